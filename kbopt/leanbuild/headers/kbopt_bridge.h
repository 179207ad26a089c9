// The C interface between a candidate's library and the bridge.
//
// The bridge (bridge/) is compiled once per torch installation with torch's own headers; a
// candidate is compiled against this file, which costs nothing. A TensorRef is a c10::TensorImpl:
// borrowed as an argument, owned as a result, null for an undefined tensor. Functions may throw
// c10::Error; they are called from C++ only.
#pragma once

#include <cstddef>
#include <cstdint>

struct KbTensorImpl;
using KbTensorRef = KbTensorImpl*;
struct KbOperator;
struct KbPyObject;

// -1 stands for "not given" in each field; codes are those of c10::ScalarType and c10::DeviceType.
struct KbOptions {
  int8_t dtype = -1;
  int8_t device_type = -1;
  int8_t device_index = -1;
  int8_t requires_grad = -1;
  int8_t pinned_memory = -1;
};

struct KbScalar {
  enum Kind : int8_t { Int, Double, Bool } kind;
  int64_t integer;
  double real;
};

// One argument of an operator called by name.
struct KbValue {
  enum Kind : int8_t { None, Int, Double, Bool, Tensor, IntList, TensorList, OptionalTensor } kind;
  int64_t integer = 0;
  double real = 0;
  KbTensorRef tensor = nullptr;
  const int64_t* integers = nullptr;
  const KbTensorRef* tensors = nullptr;
  size_t length = 0;
};

// A bound function. `invoke` returns false where an argument does not convert.
struct KbFunction {
  const char* name;
  const char* doc;
  const char* signature;
  int64_t arity;
  bool torch_errors;  // true: as torch::wrap_pybind_function; false: as plain pybind11
  bool (*invoke)(void* target, KbPyObject* const* arguments, KbPyObject** result);
  void* target;
};

#pragma GCC visibility push(default)
extern "C" {
void kb_retain(KbTensorRef);
void kb_release(KbTensorRef) noexcept;

int64_t kb_dim(KbTensorRef);
const int64_t* kb_sizes(KbTensorRef);
const int64_t* kb_strides(KbTensorRef);
int64_t kb_size(KbTensorRef, int64_t dim);
int64_t kb_stride(KbTensorRef, int64_t dim);
int64_t kb_numel(KbTensorRef);
int64_t kb_element_size(KbTensorRef);
int64_t kb_storage_offset(KbTensorRef);
int8_t kb_scalar_type(KbTensorRef);
KbOptions kb_options(KbTensorRef);
bool kb_is_contiguous(KbTensorRef);
bool kb_requires_grad(KbTensorRef);
// The data pointer; throws torch's own error unless the tensor's type is `dtype` (-1: any).
void* kb_data(KbTensorRef, int8_t dtype, bool for_reading);
KbScalar kb_item(KbTensorRef);

KbTensorRef kb_empty(const int64_t* sizes, size_t dim, KbOptions);
KbTensorRef kb_zeros(const int64_t* sizes, size_t dim, KbOptions);
KbTensorRef kb_ones(const int64_t* sizes, size_t dim, KbOptions);
KbTensorRef kb_full(const int64_t* sizes, size_t dim, KbScalar, KbOptions);
KbTensorRef kb_empty_strided(const int64_t* sizes, const int64_t* strides, size_t dim, KbOptions);
KbTensorRef kb_empty_like(KbTensorRef, KbOptions);
KbTensorRef kb_zeros_like(KbTensorRef, KbOptions);
KbTensorRef kb_contiguous(KbTensorRef);
KbTensorRef kb_to(KbTensorRef, KbOptions, bool non_blocking, bool copy);

KbOperator* kb_find_operator(const char* name, const char* overload);
// Calls an operator that returns one tensor.
KbTensorRef kb_call(KbOperator*, const KbValue* arguments, size_t length);

[[noreturn]] void kb_check_failed(
    const char* kind, const char* function, const char* file, uint32_t line, const char* condition,
    const char* message);
void kb_warn(const char* function, const char* file, uint32_t line, const char* message);
const char* kb_scalar_type_name(int8_t dtype);
const char* kb_type_meta_name(int8_t dtype);
const char* kb_device_type_name(int8_t device_type);

// Present where torch was built with CUDA.
void* kb_current_cuda_stream(int8_t device_index);
void* kb_default_cuda_stream(int8_t device_index);
int8_t kb_current_cuda_device();
void kb_set_cuda_device(int8_t device_index);
int8_t kb_cuda_device_count();
void kb_cuda_check(int32_t error, const char* file, const char* function, uint32_t line);

// Python. `kb_load_*` follow pybind11's implicit conversions; true where the object converts.
KbPyObject* kb_create_module(const char* name, const KbFunction* functions, size_t length);
bool kb_is_none(KbPyObject*);
bool kb_load_tensor(KbPyObject*, KbTensorRef*);
bool kb_load_int(KbPyObject*, int64_t*);
bool kb_load_unsigned(KbPyObject*, uint64_t*);
bool kb_load_double(KbPyObject*, double*);
bool kb_load_bool(KbPyObject*, bool*);
bool kb_load_string(KbPyObject*, const char** characters, size_t* length);
bool kb_load_dtype(KbPyObject*, int8_t*);
bool kb_load_device(KbPyObject*, int8_t* type, int8_t* index);
// The length of a sequence that is no string, or -1.
int64_t kb_sequence_length(KbPyObject*);
KbPyObject* kb_sequence_item(KbPyObject*, int64_t);
void kb_python_release(KbPyObject*);
KbPyObject* kb_make_none();
KbPyObject* kb_make_tensor(KbTensorRef);
KbPyObject* kb_make_int(int64_t);
KbPyObject* kb_make_unsigned(uint64_t);
KbPyObject* kb_make_double(double);
KbPyObject* kb_make_bool(bool);
KbPyObject* kb_make_string(const char*, size_t);
// Both steal the items.
KbPyObject* kb_make_tuple(KbPyObject* const* items, size_t length);
KbPyObject* kb_make_list(KbPyObject* const* items, size_t length);
}
#pragma GCC visibility pop
