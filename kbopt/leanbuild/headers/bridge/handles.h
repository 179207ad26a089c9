// How both halves of the bridge take and give tensors.
#pragma once

#include "kbopt_bridge.h"

#include <ATen/core/Tensor.h>

namespace {

using Impl = c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

c10::TensorImpl* impl_of(KbTensorRef ref) {
  return reinterpret_cast<c10::TensorImpl*>(ref);
}

// A tensor that does not own its reference.
class Borrowed {
 public:
  explicit Borrowed(KbTensorRef ref) : tensor_(ref ? at::Tensor(Impl::reclaim(impl_of(ref))) : at::Tensor()) {}
  ~Borrowed() {
    tensor_.unsafeReleaseTensorImpl();
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  const at::Tensor& operator*() const {
    return tensor_;
  }
  const at::Tensor* operator->() const {
    return &tensor_;
  }

 private:
  at::Tensor tensor_;
};

KbTensorRef owned(at::Tensor tensor) {
  if (!tensor.defined()) {
    return nullptr;
  }
  return reinterpret_cast<KbTensorRef>(tensor.unsafeReleaseTensorImpl());
}

} // namespace
