// Compiled once per torch installation with torch's full headers; see kbopt_bridge.h.
#include "kbopt_bridge.h"

#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#ifdef KBOPT_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace py = pybind11;

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

PyObject* python(KbPyObject* object) {
  return reinterpret_cast<PyObject*>(object);
}

KbPyObject* result(PyObject* object) {
  if (object == nullptr) {
    throw py::error_already_set();
  }
  return reinterpret_cast<KbPyObject*>(object);
}

template <class T>
bool load(KbPyObject* object, T* value) {
  py::detail::make_caster<T> caster;
  if (!caster.load(python(object), /*convert=*/true)) {
    return false;
  }
  *value = py::detail::cast_op<T>(caster);
  return true;
}

PyObject* type_error(const KbFunction& function, PyObject* const* arguments, Py_ssize_t count) {
  std::string message = std::string(function.name) +
      "(): incompatible function arguments. The following argument types are supported:\n    1. " +
      function.name + function.signature + "\n\nInvoked with types: ";
  for (Py_ssize_t i = 0; i < count; ++i) {
    message += (i ? ", " : "") + std::string(Py_TYPE(arguments[i])->tp_name);
  }
  PyErr_SetString(PyExc_TypeError, message.c_str());
  return nullptr;
}

PyObject* call(const KbFunction& function, PyObject* const* arguments, Py_ssize_t count) {
  KbPyObject* value = nullptr;
  if (!function.invoke(function.target, reinterpret_cast<KbPyObject* const*>(arguments), &value)) {
    return type_error(function, arguments, count);
  }
  return python(value);
}

PyObject* call_with_torch_errors(const KbFunction& function, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  return call(function, arguments, count);
  END_HANDLE_TH_ERRORS
}

// The translation that pybind11 documents for standard exceptions.
PyObject* call_with_pybind_errors(const KbFunction& function, PyObject* const* arguments, Py_ssize_t count) {
  PyObject* kind = nullptr;
  std::string message;
  try {
    return call(function, arguments, count);
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  } catch (const py::builtin_exception& error) {
    error.set_error();
    return nullptr;
  } catch (const std::bad_alloc& error) {
    kind = PyExc_MemoryError, message = error.what();
  } catch (const std::domain_error& error) {
    kind = PyExc_ValueError, message = error.what();
  } catch (const std::invalid_argument& error) {
    kind = PyExc_ValueError, message = error.what();
  } catch (const std::length_error& error) {
    kind = PyExc_ValueError, message = error.what();
  } catch (const std::out_of_range& error) {
    kind = PyExc_IndexError, message = error.what();
  } catch (const std::range_error& error) {
    kind = PyExc_ValueError, message = error.what();
  } catch (const std::overflow_error& error) {
    kind = PyExc_OverflowError, message = error.what();
  } catch (const std::exception& error) {
    kind = PyExc_RuntimeError, message = error.what();
  } catch (...) {
    kind = PyExc_RuntimeError, message = "Caught an unknown exception!";
  }
  PyErr_SetString(kind, message.c_str());
  return nullptr;
}

PyObject* trampoline(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  const auto& function = *static_cast<const KbFunction*>(PyCapsule_GetPointer(self, nullptr));
  const bool has_keywords = keywords != nullptr && PyTuple_GET_SIZE(keywords) > 0;
  if (count != function.arity || has_keywords) {
    return type_error(function, arguments, count);
  }
  return function.torch_errors ? call_with_torch_errors(function, arguments, count)
                               : call_with_pybind_errors(function, arguments, count);
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

KbPyObject* kb_create_module(const char* name, const KbFunction* functions, size_t length) {
  // Both live as long as the process: extension modules are never unloaded.
  auto* definition = new PyModuleDef{PyModuleDef_HEAD_INIT, strdup(name), nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(definition);
  if (module == nullptr) {
    return nullptr;
  }
  for (size_t i = 0; i < length; ++i) {
    auto* function = new KbFunction(functions[i]);
    const std::string doc = std::string(function->name) + function->signature + "\n\n" + function->doc + "\n";
    auto* method = new PyMethodDef{
        strdup(function->name),
        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(trampoline)),
        METH_FASTCALL | METH_KEYWORDS,
        strdup(doc.c_str())};
    PyObject* capsule = PyCapsule_New(function, nullptr, nullptr);
    PyObject* bound = capsule ? PyCFunction_NewEx(method, capsule, PyModule_GetNameObject(module)) : nullptr;
    Py_XDECREF(capsule);
    if (bound == nullptr || PyModule_AddObject(module, function->name, bound) < 0) {
      Py_XDECREF(bound);
      Py_DECREF(module);
      return nullptr;
    }
  }
  return reinterpret_cast<KbPyObject*>(module);
}

bool kb_is_none(KbPyObject* object) {
  return python(object) == Py_None;
}
bool kb_load_tensor(KbPyObject* object, KbTensorRef* ref) {
  if (!THPVariable_Check(python(object))) {
    return false;
  }
  *ref = owned(THPVariable_Unpack(python(object)));
  return true;
}
bool kb_load_int(KbPyObject* object, int64_t* value) {
  return load(object, value);
}
bool kb_load_unsigned(KbPyObject* object, uint64_t* value) {
  return load(object, value);
}
bool kb_load_double(KbPyObject* object, double* value) {
  return load(object, value);
}
bool kb_load_bool(KbPyObject* object, bool* value) {
  return load(object, value);
}
bool kb_load_string(KbPyObject* object, const char** characters, size_t* length) {
  Py_ssize_t size = 0;
  if (PyUnicode_Check(python(object))) {
    *characters = PyUnicode_AsUTF8AndSize(python(object), &size);
  } else if (PyBytes_Check(python(object))) {
    *characters = PyBytes_AS_STRING(python(object));
    size = PyBytes_GET_SIZE(python(object));
  } else {
    return false;
  }
  if (*characters == nullptr) {
    PyErr_Clear();
    return false;
  }
  *length = static_cast<size_t>(size);
  return true;
}
bool kb_load_dtype(KbPyObject* object, int8_t* dtype) {
  if (!THPDtype_Check(python(object))) {
    return false;
  }
  *dtype = static_cast<int8_t>(reinterpret_cast<THPDtype*>(python(object))->scalar_type);
  return true;
}
bool kb_load_device(KbPyObject* object, int8_t* type, int8_t* index) {
  at::Device device(at::kCPU);
  if (!load(object, &device)) {
    return false;
  }
  *type = static_cast<int8_t>(device.type());
  *index = static_cast<int8_t>(device.index());
  return true;
}
int64_t kb_sequence_length(KbPyObject* object) {
  PyObject* sequence = python(object);
  if (!PySequence_Check(sequence) || PyUnicode_Check(sequence) || PyBytes_Check(sequence)) {
    return -1;
  }
  const Py_ssize_t length = PySequence_Size(sequence);
  if (length < 0) {
    PyErr_Clear();
  }
  return length;
}
KbPyObject* kb_sequence_item(KbPyObject* object, int64_t index) {
  return result(PySequence_GetItem(python(object), static_cast<Py_ssize_t>(index)));
}
void kb_python_release(KbPyObject* object) {
  Py_DECREF(python(object));
}
KbPyObject* kb_make_none() {
  Py_INCREF(Py_None);
  return reinterpret_cast<KbPyObject*>(Py_None);
}
KbPyObject* kb_make_tensor(KbTensorRef ref) {
  return result(THPVariable_Wrap(*Borrowed(ref)));
}
KbPyObject* kb_make_int(int64_t value) {
  return result(PyLong_FromLongLong(value));
}
KbPyObject* kb_make_unsigned(uint64_t value) {
  return result(PyLong_FromUnsignedLongLong(value));
}
KbPyObject* kb_make_double(double value) {
  return result(PyFloat_FromDouble(value));
}
KbPyObject* kb_make_bool(bool value) {
  return result(PyBool_FromLong(value));
}
KbPyObject* kb_make_string(const char* characters, size_t length) {
  return result(PyUnicode_DecodeUTF8(characters, static_cast<Py_ssize_t>(length), nullptr));
}
KbPyObject* kb_make_tuple(KbPyObject* const* items, size_t length) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(length));
  for (size_t i = 0; tuple != nullptr && i < length; ++i) {
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), python(items[i]));
  }
  return result(tuple);
}
KbPyObject* kb_make_list(KbPyObject* const* items, size_t length) {
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(length));
  for (size_t i = 0; list != nullptr && i < length; ++i) {
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), python(items[i]));
  }
  return result(list);
}

} // extern "C"
