#pragma once
#include "kbopt_tensor.h"
#include "kbopt_binding.h"
