// Tensors, operators, errors and streams: what needs no Python. See kbopt_bridge.h.
#include "handles.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#ifdef KBOPT_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace {

at::TensorOptions options_of(KbOptions options) {
  at::TensorOptions result;
  if (options.dtype >= 0) {
    result = result.dtype(static_cast<at::ScalarType>(options.dtype));
  }
  if (options.device_type >= 0) {
    result = result.device(at::Device(static_cast<at::DeviceType>(options.device_type), options.device_index));
  }
  if (options.requires_grad > 0) {
    result = result.requires_grad(true);
  }
  if (options.pinned_memory > 0) {
    result = result.pinned_memory(true);
  }
  return result;
}

// As torch:: factories do: the dispatcher refuses requires_grad, so it is set afterwards.
template <class Make>
KbTensorRef make(KbOptions options, Make&& create) {
  const bool requires_grad = options.requires_grad > 0;
  options.requires_grad = -1;
  at::Tensor tensor = create(options_of(options));
  if (requires_grad) {
    tensor.set_requires_grad(true);
  }
  return owned(std::move(tensor));
}

at::Scalar scalar_of(KbScalar scalar) {
  switch (scalar.kind) {
    case KbScalar::Int:
      return at::Scalar(scalar.integer);
    case KbScalar::Double:
      return at::Scalar(scalar.real);
    default:
      return at::Scalar(scalar.integer != 0);
  }
}

c10::IValue value_of(const KbValue& value) {
  switch (value.kind) {
    case KbValue::None:
      return {};
    case KbValue::Int:
      return value.integer;
    case KbValue::Double:
      return value.real;
    case KbValue::Bool:
      return value.integer != 0;
    case KbValue::Tensor:
      return *Borrowed(value.tensor);
    case KbValue::OptionalTensor:
      return value.tensor ? c10::IValue(*Borrowed(value.tensor)) : c10::IValue();
    case KbValue::IntList:
      return std::vector<int64_t>(value.integers, value.integers + value.length);
    default: {
      std::vector<at::Tensor> tensors;
      for (size_t i = 0; i < value.length; ++i) {
        tensors.push_back(*Borrowed(value.tensors[i]));
      }
      return tensors;
    }
  }
}

// The sentence of a TORCH_CHECK without a message, taken from torch's own macro.
std::string default_message(const std::string& condition) {
  std::string message = TORCH_CHECK_MSG(KBOPT_CONDITION, "");
  const std::string mark = "KBOPT_CONDITION";
  const auto position = message.find(mark);
  return position == std::string::npos ? message : message.replace(position, mark.size(), condition);
}

} // namespace

extern "C" {

void kb_retain(KbTensorRef ref) {
  if (ref) {
    c10::raw::intrusive_ptr::incref(impl_of(ref));
  }
}

void kb_release(KbTensorRef ref) noexcept {
  if (ref) {
    c10::raw::intrusive_ptr::decref(impl_of(ref));
  }
}

int64_t kb_dim(KbTensorRef ref) {
  return Borrowed(ref)->dim();
}
const int64_t* kb_sizes(KbTensorRef ref) {
  return Borrowed(ref)->sizes().data();
}
const int64_t* kb_strides(KbTensorRef ref) {
  return Borrowed(ref)->strides().data();
}
int64_t kb_size(KbTensorRef ref, int64_t dim) {
  return Borrowed(ref)->size(dim);
}
int64_t kb_stride(KbTensorRef ref, int64_t dim) {
  return Borrowed(ref)->stride(dim);
}
int64_t kb_numel(KbTensorRef ref) {
  return Borrowed(ref)->numel();
}
int64_t kb_element_size(KbTensorRef ref) {
  return Borrowed(ref)->element_size();
}
int64_t kb_storage_offset(KbTensorRef ref) {
  return Borrowed(ref)->storage_offset();
}
int8_t kb_scalar_type(KbTensorRef ref) {
  return static_cast<int8_t>(Borrowed(ref)->scalar_type());
}
KbOptions kb_options(KbTensorRef ref) {
  Borrowed tensor(ref);
  KbOptions options;
  options.dtype = static_cast<int8_t>(tensor->scalar_type());
  options.device_type = static_cast<int8_t>(tensor->device().type());
  options.device_index = static_cast<int8_t>(tensor->device().index());
  return options;
}
bool kb_is_contiguous(KbTensorRef ref) {
  return Borrowed(ref)->is_contiguous();
}
bool kb_requires_grad(KbTensorRef ref) {
  return Borrowed(ref)->requires_grad();
}

void* kb_data(KbTensorRef ref, int8_t dtype, bool for_reading) {
  Borrowed tensor(ref);
#define KBOPT_DATA(type, name)                                                         \
  case at::ScalarType::name:                                                           \
    return for_reading ? const_cast<void*>(static_cast<const void*>(tensor->const_data_ptr<type>())) \
                       : static_cast<void*>(tensor->mutable_data_ptr<type>());
  if (dtype < 0) {
    return for_reading ? const_cast<void*>(tensor->const_data_ptr()) : tensor->mutable_data_ptr();
  }
  switch (static_cast<at::ScalarType>(dtype)) {
    KBOPT_DATA(uint8_t, Byte)
    KBOPT_DATA(int8_t, Char)
    KBOPT_DATA(int16_t, Short)
    KBOPT_DATA(int, Int)
    KBOPT_DATA(int64_t, Long)
    KBOPT_DATA(at::Half, Half)
    KBOPT_DATA(float, Float)
    KBOPT_DATA(double, Double)
    KBOPT_DATA(bool, Bool)
    KBOPT_DATA(at::BFloat16, BFloat16)
    default:
      TORCH_CHECK(false, "data_ptr of scalar type ", static_cast<at::ScalarType>(dtype), " is not supported here");
  }
#undef KBOPT_DATA
}

KbScalar kb_item(KbTensorRef ref) {
  const at::Scalar scalar = Borrowed(ref)->item();
  if (scalar.isBoolean()) {
    return {KbScalar::Bool, scalar.toBool(), 0.0};
  }
  if (scalar.isIntegral(false)) {
    return {KbScalar::Int, scalar.toLong(), 0.0};
  }
  return {KbScalar::Double, 0, scalar.toDouble()};
}

KbTensorRef kb_empty(const int64_t* sizes, size_t dim, KbOptions options) {
  return make(options, [&](const at::TensorOptions& o) { return at::empty(at::IntArrayRef(sizes, dim), o); });
}
KbTensorRef kb_zeros(const int64_t* sizes, size_t dim, KbOptions options) {
  return make(options, [&](const at::TensorOptions& o) { return at::zeros(at::IntArrayRef(sizes, dim), o); });
}
KbTensorRef kb_ones(const int64_t* sizes, size_t dim, KbOptions options) {
  return make(options, [&](const at::TensorOptions& o) { return at::ones(at::IntArrayRef(sizes, dim), o); });
}
KbTensorRef kb_full(const int64_t* sizes, size_t dim, KbScalar value, KbOptions options) {
  return make(options, [&](const at::TensorOptions& o) {
    return at::full(at::IntArrayRef(sizes, dim), scalar_of(value), o);
  });
}
KbTensorRef kb_empty_strided(const int64_t* sizes, const int64_t* strides, size_t dim, KbOptions options) {
  return make(options, [&](const at::TensorOptions& o) {
    return at::empty_strided(at::IntArrayRef(sizes, dim), at::IntArrayRef(strides, dim), o);
  });
}
KbTensorRef kb_empty_like(KbTensorRef ref, KbOptions options) {
  Borrowed tensor(ref);
  return make(options, [&](const at::TensorOptions& o) { return at::empty_like(*tensor, o); });
}
KbTensorRef kb_zeros_like(KbTensorRef ref, KbOptions options) {
  Borrowed tensor(ref);
  return make(options, [&](const at::TensorOptions& o) { return at::zeros_like(*tensor, o); });
}
KbTensorRef kb_contiguous(KbTensorRef ref) {
  return owned(Borrowed(ref)->contiguous());
}
KbTensorRef kb_to(KbTensorRef ref, KbOptions options, bool non_blocking, bool copy) {
  return owned(Borrowed(ref)->to(options_of(options), non_blocking, copy));
}

KbOperator* kb_find_operator(const char* name, const char* overload) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
  return reinterpret_cast<KbOperator*>(new c10::OperatorHandle(handle));
}

KbTensorRef kb_call(KbOperator* operator_, const KbValue* arguments, size_t length) {
  torch::jit::Stack stack;
  for (size_t i = 0; i < length; ++i) {
    stack.push_back(value_of(arguments[i]));
  }
  reinterpret_cast<c10::OperatorHandle*>(operator_)->callBoxed(stack);
  return owned(std::move(stack.at(0)).toTensor());
}

void kb_check_failed(
    const char* kind, const char* function, const char* file, uint32_t line, const char* condition,
    const char* message) {
  const std::string text = message ? std::string(message) : default_message(condition);
  const c10::SourceLocation where{function, file, line};
  const std::string name = kind;
  if (name == "INDEX") {
    throw c10::IndexError(where, text);
  }
  if (name == "VALUE") {
    throw c10::ValueError(where, text);
  }
  if (name == "TYPE") {
    throw c10::TypeError(where, text);
  }
  if (name == "NOT_IMPLEMENTED") {
    throw c10::NotImplementedError(where, text);
  }
  c10::detail::torchCheckFail(function, file, line, text);
}

void kb_warn(const char* function, const char* file, uint32_t line, const char* message) {
  c10::warn(c10::Warning(c10::UserWarning(), {function, file, line}, std::string(message), false));
}

const char* kb_scalar_type_name(int8_t dtype) {
  return c10::toString(static_cast<at::ScalarType>(dtype));
}
const char* kb_type_meta_name(int8_t dtype) {
  static thread_local std::string name;
  name = std::string(c10::scalarTypeToTypeMeta(static_cast<at::ScalarType>(dtype)).name());
  return name.c_str();
}
const char* kb_device_type_name(int8_t device_type) {
  static thread_local std::string name;
  name = c10::DeviceTypeName(static_cast<at::DeviceType>(device_type), /*lower_case=*/true);
  return name.c_str();
}

#ifdef KBOPT_WITH_CUDA
void* kb_current_cuda_stream(int8_t device_index) {
  return c10::cuda::getCurrentCUDAStream(device_index).stream();
}
void* kb_default_cuda_stream(int8_t device_index) {
  return c10::cuda::getDefaultCUDAStream(device_index).stream();
}
int8_t kb_current_cuda_device() {
  return static_cast<int8_t>(c10::cuda::current_device());
}
void kb_set_cuda_device(int8_t device_index) {
  c10::cuda::set_device(device_index);
}
int8_t kb_cuda_device_count() {
  return static_cast<int8_t>(c10::cuda::device_count());
}
void kb_cuda_check(int32_t error, const char* file, const char* function, uint32_t line) {
  c10::cuda::c10_cuda_check_implementation(error, file, function, line, true);
}
#endif

} // extern "C"
