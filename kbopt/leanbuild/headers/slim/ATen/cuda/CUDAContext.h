#pragma once
#include "kbopt_cuda.h"
