// torch's own Tensor from ATen's core headers, with the operators that KBOPT_OPERATORS names.
//
// torch/extension.h also brings every operator, autograd, torch::nn and pybind11, and five times the
// compile time; a source that needs one of those does not compile here and gets the whole.
#pragma once

// One header per operator, instead of all of them through ATen/Functions.h.
#ifndef AT_PER_OPERATOR_HEADERS
#define AT_PER_OPERATOR_HEADERS
#endif

#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/TensorAccessor.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#ifdef KBOPT_OPERATORS
#include KBOPT_OPERATORS
#endif

#include "kbopt_bridge.h"

namespace torch {
using namespace at;
using c10::nullopt;
using std::optional;
using Dtype = at::ScalarType;
} // namespace torch

namespace kbopt {
inline at::Tensor adopt(KbTensorRef ref) {
  using Impl = c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
  return ref ? at::Tensor(Impl::reclaim(reinterpret_cast<c10::TensorImpl*>(ref))) : at::Tensor();
}
inline KbTensorRef release(at::Tensor&& tensor) {
  return tensor.defined() ? reinterpret_cast<KbTensorRef>(tensor.unsafeReleaseTensorImpl()) : nullptr;
}
} // namespace kbopt
