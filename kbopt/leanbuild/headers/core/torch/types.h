#pragma once
#include "kbopt_tensor.h"
