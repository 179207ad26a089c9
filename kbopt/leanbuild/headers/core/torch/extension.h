#pragma once
#include "kbopt_tensor.h"
#ifdef KBOPT_PYBIND
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>
namespace torch {
namespace py = pybind11;
}
namespace py = pybind11;
#else
#include "kbopt_binding.h"
#endif
