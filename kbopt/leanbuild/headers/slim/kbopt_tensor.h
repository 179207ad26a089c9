// torch::Tensor and its surroundings for kernel wrappers, over the bridge instead of torch's headers.
//
// It covers what kernel wrappers usually say and nothing by approximation: a source that says more
// does not compile here and is compiled against torch's own headers instead. Names live in an inline
// namespace, so that they never meet torch's symbols at link time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kbopt_bridge.h"

#ifdef KBOPT_REDUCED_TYPES
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#endif

namespace c10 {
inline namespace kbopt_slim {

// Codes of c10::ScalarType and c10::DeviceType, which are fixed: they are written to checkpoints.
enum class ScalarType : int8_t {
  Byte = 0, Char = 1, Short = 2, Int = 3, Long = 4, Half = 5, Float = 6, Double = 7, Bool = 11,
  BFloat16 = 15
};
enum class DeviceType : int8_t { CPU = 0, CUDA = 1 };
enum class Layout : int8_t { Strided = 0 };

constexpr ScalarType kByte = ScalarType::Byte, kUInt8 = ScalarType::Byte;
constexpr ScalarType kChar = ScalarType::Char, kInt8 = ScalarType::Char;
constexpr ScalarType kShort = ScalarType::Short, kInt16 = ScalarType::Short;
constexpr ScalarType kInt = ScalarType::Int, kInt32 = ScalarType::Int;
constexpr ScalarType kLong = ScalarType::Long, kInt64 = ScalarType::Long;
constexpr ScalarType kHalf = ScalarType::Half, kFloat16 = ScalarType::Half;
constexpr ScalarType kFloat = ScalarType::Float, kFloat32 = ScalarType::Float;
constexpr ScalarType kDouble = ScalarType::Double, kFloat64 = ScalarType::Double;
constexpr ScalarType kBool = ScalarType::Bool;
constexpr ScalarType kBFloat16 = ScalarType::BFloat16;
constexpr DeviceType kCPU = DeviceType::CPU, kCUDA = DeviceType::CUDA;
constexpr Layout kStrided = Layout::Strided;
using DeviceIndex = int8_t;
using std::nullopt;
using std::optional;

inline const char* toString(ScalarType dtype) {
  return kb_scalar_type_name(static_cast<int8_t>(dtype));
}

template <class T> struct CppTypeToScalarType;
#define KBOPT_SCALAR(type, name) \
  template <> struct CppTypeToScalarType<type> { static constexpr ScalarType value = ScalarType::name; };
KBOPT_SCALAR(uint8_t, Byte)
KBOPT_SCALAR(int8_t, Char)
KBOPT_SCALAR(int16_t, Short)
KBOPT_SCALAR(int, Int)
KBOPT_SCALAR(int64_t, Long)
KBOPT_SCALAR(float, Float)
KBOPT_SCALAR(double, Double)
KBOPT_SCALAR(bool, Bool)
#ifdef KBOPT_REDUCED_TYPES
KBOPT_SCALAR(c10::Half, Half)
KBOPT_SCALAR(c10::BFloat16, BFloat16)
#endif
#undef KBOPT_SCALAR

struct Device {
  Device(DeviceType type, DeviceIndex index = -1) : type_(type), index_(index) {}
  DeviceType type() const { return type_; }
  DeviceIndex index() const { return index_; }
  bool has_index() const { return index_ != -1; }
  bool is_cuda() const { return type_ == DeviceType::CUDA; }
  bool is_cpu() const { return type_ == DeviceType::CPU; }
  bool operator==(const Device& other) const { return type_ == other.type_ && index_ == other.index_; }
  bool operator!=(const Device& other) const { return !(*this == other); }
  std::string str() const {
    std::string text = kb_device_type_name(static_cast<int8_t>(type_));
    return has_index() ? text + ":" + std::to_string(static_cast<int>(index_)) : text;
  }

 private:
  DeviceType type_;
  DeviceIndex index_;
};

template <class T>
class ArrayRef {
 public:
  ArrayRef() = default;
  ArrayRef(const T* data, size_t length) : data_(data), length_(length) {}
  ArrayRef(const std::vector<T>& values) : data_(values.data()), length_(values.size()) {}
  ArrayRef(const std::initializer_list<T>& values)
      : data_(values.begin() == values.end() ? nullptr : values.begin()), length_(values.size()) {}
  ArrayRef(const T& value) : data_(&value), length_(1) {}
  const T* begin() const { return data_; }
  const T* end() const { return data_ + length_; }
  const T* data() const { return data_; }
  size_t size() const { return length_; }
  bool empty() const { return length_ == 0; }
  const T& operator[](size_t i) const { return data_[i]; }
  const T& front() const { return data_[0]; }
  const T& back() const { return data_[length_ - 1]; }
  std::vector<T> vec() const { return std::vector<T>(begin(), end()); }
  bool equals(ArrayRef other) const {
    if (length_ != other.length_) return false;
    for (size_t i = 0; i < length_; ++i)
      if (!(data_[i] == other.data_[i])) return false;
    return true;
  }

 private:
  const T* data_ = nullptr;
  size_t length_ = 0;
};
template <class T> bool operator==(ArrayRef<T> a, ArrayRef<T> b) { return a.equals(b); }
template <class T> bool operator!=(ArrayRef<T> a, ArrayRef<T> b) { return !a.equals(b); }
template <class T> bool operator==(const std::vector<T>& a, ArrayRef<T> b) { return ArrayRef<T>(a).equals(b); }
template <class T> bool operator==(ArrayRef<T> a, const std::vector<T>& b) { return a.equals(b); }
using IntArrayRef = ArrayRef<int64_t>;

// What `dtype()` returns: it compares with, and converts to, a ScalarType.
class TypeMeta {
 public:
  TypeMeta(ScalarType dtype) : dtype_(dtype) {}
  ScalarType toScalarType() const { return dtype_; }
  size_t itemsize() const {
    switch (dtype_) {
      case ScalarType::Double: case ScalarType::Long: return 8;
      case ScalarType::Float: case ScalarType::Int: return 4;
      case ScalarType::Half: case ScalarType::BFloat16: case ScalarType::Short: return 2;
      default: return 1;
    }
  }
  const char* name() const { return kb_type_meta_name(static_cast<int8_t>(dtype_)); }
  friend bool operator==(TypeMeta a, TypeMeta b) { return a.dtype_ == b.dtype_; }
  friend bool operator!=(TypeMeta a, TypeMeta b) { return a.dtype_ != b.dtype_; }

 private:
  ScalarType dtype_;
};

class Scalar {
 public:
  template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  Scalar(T value)
      : scalar_{std::is_same_v<T, bool> ? KbScalar::Bool : std::is_floating_point_v<T> ? KbScalar::Double : KbScalar::Int,
                static_cast<int64_t>(value), static_cast<double>(value)} {}
  KbScalar kb() const { return scalar_; }

 private:
  KbScalar scalar_;
};

struct TensorOptions {
  TensorOptions() = default;
  TensorOptions(ScalarType dtype) { kb_.dtype = static_cast<int8_t>(dtype); }
  TensorOptions(TypeMeta dtype) : TensorOptions(dtype.toScalarType()) {}
  TensorOptions(Device device) { set(device); }
  TensorOptions(DeviceType device) { set(Device(device)); }
  explicit TensorOptions(KbOptions options) : kb_(options) {}
  TensorOptions dtype(ScalarType dtype) const { TensorOptions r(*this); r.kb_.dtype = static_cast<int8_t>(dtype); return r; }
  TensorOptions dtype(TypeMeta meta) const { return dtype(meta.toScalarType()); }
  template <class T> TensorOptions dtype() const { return dtype(CppTypeToScalarType<T>::value); }
  TensorOptions device(Device device) const { TensorOptions r(*this); r.set(device); return r; }
  TensorOptions device(DeviceType type, DeviceIndex index) const { return device(Device(type, index)); }
  TensorOptions requires_grad(bool value) const { TensorOptions r(*this); r.kb_.requires_grad = value; return r; }
  TensorOptions pinned_memory(bool value) const { TensorOptions r(*this); r.kb_.pinned_memory = value; return r; }
  TensorOptions layout(Layout) const { return *this; }
  KbOptions kb() const { return kb_; }

 private:
  void set(Device device) {
    kb_.device_type = static_cast<int8_t>(device.type());
    kb_.device_index = device.index();
  }
  KbOptions kb_;
};

namespace kbopt_detail {
inline void append(std::string& out, const std::string& v) { out += v; }
inline void append(std::string& out, const char* v) { out += v; }
inline void append(std::string& out, char v) { out += v; }
inline void append(std::string& out, bool v) { out += v ? '1' : '0'; }
inline void append(std::string& out, int v) { out += std::to_string(v); }
inline void append(std::string& out, unsigned v) { out += std::to_string(v); }
inline void append(std::string& out, long v) { out += std::to_string(v); }
inline void append(std::string& out, unsigned long v) { out += std::to_string(v); }
inline void append(std::string& out, long long v) { out += std::to_string(v); }
inline void append(std::string& out, unsigned long long v) { out += std::to_string(v); }
inline void append(std::string& out, double v) {
  char text[64];
  std::snprintf(text, sizeof text, "%g", v);
  out += text;
}
inline void append(std::string& out, float v) { append(out, static_cast<double>(v)); }
inline void append(std::string& out, ScalarType v) { out += toString(v); }
inline void append(std::string& out, TypeMeta v) { out += v.name(); }
inline void append(std::string& out, const Device& v) { out += v.str(); }
inline void append(std::string& out, DeviceType v) { out += kb_device_type_name(static_cast<int8_t>(v)); }
inline void append(std::string& out, IntArrayRef v) {
  out += '[';
  for (size_t i = 0; i < v.size(); ++i) {
    if (i) out += ", ";
    out += std::to_string(v[i]);
  }
  out += ']';
}
} // namespace kbopt_detail

template <class... Args>
std::string str(const Args&... args) {
  std::string text;
  (kbopt_detail::append(text, args), ...);
  return text;
}

namespace kbopt_detail {
template <class... Args>
[[noreturn]] void check_failed(const char* kind, const char* function, const char* file, uint32_t line,
                               const char* condition, const Args&... args) {
  if constexpr (sizeof...(Args) == 0) {
    kb_check_failed(kind, function, file, line, condition, nullptr);
  } else {
    kb_check_failed(kind, function, file, line, condition, str(args...).c_str());
  }
}
} // namespace kbopt_detail
} // namespace kbopt_slim
} // namespace c10

namespace at {
inline namespace kbopt_slim {
using c10::ArrayRef, c10::Device, c10::DeviceIndex, c10::DeviceType, c10::IntArrayRef, c10::Layout, c10::Scalar,
    c10::ScalarType, c10::TensorOptions, c10::toString;
using c10::kBFloat16, c10::kBool, c10::kByte, c10::kChar, c10::kCPU, c10::kCUDA, c10::kDouble, c10::kFloat,
    c10::kFloat16, c10::kFloat32, c10::kFloat64, c10::kHalf, c10::kInt, c10::kInt16, c10::kInt32, c10::kInt64,
    c10::kInt8, c10::kLong, c10::kShort, c10::kStrided, c10::kUInt8;
#ifdef KBOPT_REDUCED_TYPES
using c10::BFloat16, c10::Half;
#endif

class Tensor;
namespace kbopt_detail {
inline KbValue value(const Tensor&);
inline KbValue value(int64_t v) { KbValue r{KbValue::Int}; r.integer = v; return r; }
inline KbValue value(bool v) { KbValue r{KbValue::Bool}; r.integer = v; return r; }
inline KbValue value(std::nullopt_t) { return KbValue{KbValue::None}; }
inline KbValue value(const Scalar& v) {
  const KbScalar s = v.kb();
  KbValue r{s.kind == KbScalar::Int ? KbValue::Int : s.kind == KbScalar::Bool ? KbValue::Bool : KbValue::Double};
  r.integer = s.integer;
  r.real = s.real;
  return r;
}
inline KbValue value(IntArrayRef v) {
  KbValue r{KbValue::IntList};
  r.integers = v.data();
  r.length = v.size();
  return r;
}
} // namespace kbopt_detail

class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor& other) : ref_(other.ref_) { kb_retain(ref_); }
  Tensor(Tensor&& other) noexcept : ref_(std::exchange(other.ref_, nullptr)) {}
  ~Tensor() { kb_release(ref_); }
  Tensor& operator=(const Tensor& other) & {
    Tensor copy(other);
    std::swap(ref_, copy.ref_);
    return *this;
  }
  Tensor& operator=(Tensor&& other) & noexcept {
    std::swap(ref_, other.ref_);
    return *this;
  }
  // Takes over an owned reference.
  static Tensor adopt(KbTensorRef ref) { Tensor t; t.ref_ = ref; return t; }
  KbTensorRef kb() const { return ref_; }
  KbTensorRef kb_take() { return std::exchange(ref_, nullptr); }

  bool defined() const { return ref_ != nullptr; }
  int64_t dim() const { return kb_dim(ref_); }
  int64_t ndimension() const { return kb_dim(ref_); }
  IntArrayRef sizes() const { return IntArrayRef(kb_sizes(ref_), static_cast<size_t>(dim())); }
  IntArrayRef strides() const { return IntArrayRef(kb_strides(ref_), static_cast<size_t>(dim())); }
  int64_t size(int64_t d) const { return kb_size(ref_, d); }
  int64_t stride(int64_t d) const { return kb_stride(ref_, d); }
  int64_t numel() const { return kb_numel(ref_); }
  size_t itemsize() const { return static_cast<size_t>(kb_element_size(ref_)); }
  int64_t element_size() const { return kb_element_size(ref_); }
  size_t nbytes() const { return static_cast<size_t>(numel() * element_size()); }
  int64_t storage_offset() const { return kb_storage_offset(ref_); }
  ScalarType scalar_type() const { return static_cast<ScalarType>(kb_scalar_type(ref_)); }
  c10::TypeMeta dtype() const { return c10::TypeMeta(scalar_type()); }
  TensorOptions options() const { return TensorOptions(kb_options(ref_)); }
  Device device() const {
    const KbOptions o = kb_options(ref_);
    return Device(static_cast<DeviceType>(o.device_type), o.device_index);
  }
  DeviceIndex get_device() const { return kb_options(ref_).device_index; }
  bool is_cuda() const { return device().is_cuda(); }
  bool is_cpu() const { return device().is_cpu(); }
  bool is_contiguous() const { return kb_is_contiguous(ref_); }
  bool requires_grad() const { return kb_requires_grad(ref_); }
  bool is_floating_point() const {
    const ScalarType t = scalar_type();
    return t == kFloat || t == kDouble || t == kHalf || t == kBFloat16;
  }

  void* data_ptr() const { return kb_data(ref_, -1, false); }
  void* mutable_data_ptr() const { return kb_data(ref_, -1, false); }
  const void* const_data_ptr() const { return kb_data(ref_, -1, true); }
  template <class T> T* data_ptr() const { return static_cast<T*>(kb_data(ref_, code<T>(), false)); }
  template <class T> T* mutable_data_ptr() const { return static_cast<T*>(kb_data(ref_, code<T>(), false)); }
  template <class T> const T* const_data_ptr() const {
    return static_cast<const T*>(kb_data(ref_, code<std::remove_const_t<T>>(), true));
  }
  template <class T> T item() const {
    const KbScalar s = kb_item(ref_);
    return s.kind == KbScalar::Double ? static_cast<T>(s.real) : static_cast<T>(s.integer);
  }

  Tensor contiguous() const { return adopt(kb_contiguous(ref_)); }
  Tensor to(ScalarType t) const { return adopt(kb_to(ref_, TensorOptions(t).kb(), false, false)); }
  Tensor to(Device d) const { return adopt(kb_to(ref_, TensorOptions(d).kb(), false, false)); }
  Tensor to(DeviceType d) const { return to(Device(d)); }
  Tensor to(Device d, ScalarType t) const { return adopt(kb_to(ref_, TensorOptions(d).dtype(t).kb(), false, false)); }
  Tensor to(TensorOptions o) const { return adopt(kb_to(ref_, o.kb(), false, false)); }
  Tensor cuda() const { return to(Device(kCUDA)); }
  Tensor cpu() const { return to(Device(kCPU)); }

#define KBOPT_METHOD(declaration, op, overload, ...)                          \
  Tensor declaration const {                                                  \
    static KbOperator* const operator_ = kb_find_operator("aten::" op, overload); \
    const KbValue arguments[] = {__VA_ARGS__};                                \
    return adopt(kb_call(operator_, arguments, sizeof arguments / sizeof arguments[0])); \
  }
#define V(x) kbopt_detail::value(x)
#define SELF kbopt_detail::value(*this)
  KBOPT_METHOD(clone(), "clone", "", SELF, V(std::nullopt))
  KBOPT_METHOD(detach(), "detach", "", SELF)
  KBOPT_METHOD(view(IntArrayRef shape), "view", "", SELF, V(shape))
  KBOPT_METHOD(reshape(IntArrayRef shape), "reshape", "", SELF, V(shape))
  KBOPT_METHOD(t(), "t", "", SELF)
  KBOPT_METHOD(transpose(int64_t a, int64_t b), "transpose", "int", SELF, V(a), V(b))
  KBOPT_METHOD(permute(IntArrayRef dims), "permute", "", SELF, V(dims))
  KBOPT_METHOD(squeeze(), "squeeze", "", SELF)
  KBOPT_METHOD(squeeze(int64_t d), "squeeze", "dim", SELF, V(d))
  KBOPT_METHOD(unsqueeze(int64_t d), "unsqueeze", "", SELF, V(d))
  KBOPT_METHOD(expand(IntArrayRef shape), "expand", "", SELF, V(shape), V(false))
  KBOPT_METHOD(flatten(int64_t start = 0, int64_t end = -1), "flatten", "using_ints", SELF, V(start), V(end))
  KBOPT_METHOD(select(int64_t d, int64_t i), "select", "int", SELF, V(d), V(i))
  KBOPT_METHOD(narrow(int64_t d, int64_t s, int64_t n), "narrow", "", SELF, V(d), V(s), V(n))
  KBOPT_METHOD(zero_(), "zero_", "", SELF)
  KBOPT_METHOD(fill_(const Scalar& v), "fill_", "Scalar", SELF, V(v))
  KBOPT_METHOD(copy_(const Tensor& source), "copy_", "", SELF, V(source), V(false))
  KBOPT_METHOD(matmul(const Tensor& other), "matmul", "", SELF, V(other))
  KBOPT_METHOD(mm(const Tensor& other), "mm", "", SELF, V(other))
  KBOPT_METHOD(bmm(const Tensor& other), "bmm", "", SELF, V(other))
  KBOPT_METHOD(add(const Tensor& other), "add", "Tensor", SELF, V(other), V(int64_t{1}))
  KBOPT_METHOD(sub(const Tensor& other), "sub", "Tensor", SELF, V(other), V(int64_t{1}))
  KBOPT_METHOD(mul(const Tensor& other), "mul", "Tensor", SELF, V(other))
  KBOPT_METHOD(div(const Tensor& other), "div", "Tensor", SELF, V(other))
  KBOPT_METHOD(mul(const Scalar& other), "mul", "Scalar", SELF, V(other))
  KBOPT_METHOD(add(const Scalar& other), "add", "Scalar", SELF, V(other), V(int64_t{1}))
  KBOPT_METHOD(sum(), "sum", "", SELF, V(std::nullopt))
  KBOPT_METHOD(relu(), "relu", "", SELF)
  KBOPT_METHOD(tril(int64_t diagonal = 0), "tril", "", SELF, V(diagonal))
  KBOPT_METHOD(triu(int64_t diagonal = 0), "triu", "", SELF, V(diagonal))

 private:
  template <class T> static constexpr int8_t code() { return static_cast<int8_t>(c10::CppTypeToScalarType<T>::value); }
  KbTensorRef ref_ = nullptr;
};

namespace kbopt_detail {
inline KbValue value(const Tensor& v) {
  KbValue r{KbValue::Tensor};
  r.tensor = v.kb();
  return r;
}
} // namespace kbopt_detail

#define KBOPT_FUNCTION(declaration, op, overload, ...)                        \
  inline Tensor declaration {                                                 \
    static KbOperator* const operator_ = kb_find_operator("aten::" op, overload); \
    const KbValue arguments[] = {__VA_ARGS__};                                \
    return Tensor::adopt(kb_call(operator_, arguments, sizeof arguments / sizeof arguments[0])); \
  }
KBOPT_FUNCTION(matmul(const Tensor& a, const Tensor& b), "matmul", "", V(a), V(b))
KBOPT_FUNCTION(mm(const Tensor& a, const Tensor& b), "mm", "", V(a), V(b))
KBOPT_FUNCTION(bmm(const Tensor& a, const Tensor& b), "bmm", "", V(a), V(b))
KBOPT_FUNCTION(relu(const Tensor& a), "relu", "", V(a))
KBOPT_FUNCTION(transpose(const Tensor& x, int64_t a, int64_t b), "transpose", "int", V(x), V(a), V(b))
KBOPT_FUNCTION(tril(const Tensor& x, int64_t diagonal = 0), "tril", "", V(x), V(diagonal))
KBOPT_FUNCTION(triu(const Tensor& x, int64_t diagonal = 0), "triu", "", V(x), V(diagonal))
#undef KBOPT_FUNCTION
#undef KBOPT_METHOD
#undef SELF
#undef V

inline Tensor operator+(const Tensor& a, const Tensor& b) { return a.add(b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return a.sub(b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return a.mul(b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return a.div(b); }
inline Tensor operator*(const Tensor& a, const Scalar& b) { return a.mul(b); }
inline Tensor operator+(const Tensor& a, const Scalar& b) { return a.add(b); }

inline Tensor empty(IntArrayRef s, const TensorOptions& o = {}) { return Tensor::adopt(kb_empty(s.data(), s.size(), o.kb())); }
inline Tensor zeros(IntArrayRef s, const TensorOptions& o = {}) { return Tensor::adopt(kb_zeros(s.data(), s.size(), o.kb())); }
inline Tensor ones(IntArrayRef s, const TensorOptions& o = {}) { return Tensor::adopt(kb_ones(s.data(), s.size(), o.kb())); }
inline Tensor full(IntArrayRef s, const Scalar& v, const TensorOptions& o = {}) {
  return Tensor::adopt(kb_full(s.data(), s.size(), v.kb(), o.kb()));
}
inline Tensor empty_strided(IntArrayRef s, IntArrayRef strides, const TensorOptions& o = {}) {
  return Tensor::adopt(kb_empty_strided(s.data(), strides.data(), s.size(), o.kb()));
}
inline Tensor empty_like(const Tensor& t, const TensorOptions& o = {}) { return Tensor::adopt(kb_empty_like(t.kb(), o.kb())); }
inline Tensor zeros_like(const Tensor& t, const TensorOptions& o = {}) { return Tensor::adopt(kb_zeros_like(t.kb(), o.kb())); }
} // namespace kbopt_slim
} // namespace at

namespace c10 {
inline namespace kbopt_slim {
using at::Tensor;
}
} // namespace c10

namespace torch {
using namespace at;
using c10::nullopt, c10::optional;
using Dtype = at::ScalarType;
inline at::TensorOptions dtype(at::ScalarType t) { return at::TensorOptions(t); }
inline at::TensorOptions device(at::Device d) { return at::TensorOptions(d); }
} // namespace torch

#define KBOPT_CHECK(kind, cond, ...)                                                              \
  if (__builtin_expect(!(cond), 0)) {                                                             \
    ::c10::kbopt_detail::check_failed(kind, __func__, __FILE__, static_cast<uint32_t>(__LINE__), #cond, \
                                ##__VA_ARGS__);                                                   \
  }
#define TORCH_CHECK(cond, ...) KBOPT_CHECK("", cond, ##__VA_ARGS__)
#define TORCH_CHECK_INDEX(cond, ...) KBOPT_CHECK("INDEX", cond, ##__VA_ARGS__)
#define TORCH_CHECK_VALUE(cond, ...) KBOPT_CHECK("VALUE", cond, ##__VA_ARGS__)
#define TORCH_CHECK_TYPE(cond, ...) KBOPT_CHECK("TYPE", cond, ##__VA_ARGS__)
#define TORCH_CHECK_NOT_IMPLEMENTED(cond, ...) KBOPT_CHECK("NOT_IMPLEMENTED", cond, ##__VA_ARGS__)
#define TORCH_WARN(...) ::kb_warn(__func__, __FILE__, static_cast<uint32_t>(__LINE__), ::c10::str(__VA_ARGS__).c_str())

#define AT_DISPATCH_CASE(enum_type, ...)                                       \
  case enum_type: {                                                            \
    using scalar_t [[maybe_unused]] = ::c10::kbopt_detail::CppType<enum_type>;       \
    return __VA_ARGS__();                                                      \
  }
#define AT_DISPATCH_SWITCH(TYPE, NAME, ...)                                                             \
  [&] {                                                                                                 \
    const ::at::ScalarType kbopt_type = TYPE;                                                           \
    constexpr const char* at_dispatch_name = NAME;                                                      \
    switch (kbopt_type) {                                                                               \
      __VA_ARGS__                                                                                       \
      default:                                                                                          \
        TORCH_CHECK_NOT_IMPLEMENTED(false, '"', at_dispatch_name, "\" not implemented for '",           \
                                    ::c10::toString(kbopt_type), "'");                                  \
    }                                                                                                   \
  }()
#define AT_DISPATCH_CASE_FLOATING_TYPES(...)              \
  AT_DISPATCH_CASE(::at::ScalarType::Double, __VA_ARGS__) \
  AT_DISPATCH_CASE(::at::ScalarType::Float, __VA_ARGS__)
#define AT_DISPATCH_FLOATING_TYPES(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND_HALF(TYPE, NAME, ...)                  \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__) \
                     AT_DISPATCH_CASE(::at::ScalarType::Half, __VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND(T1, TYPE, NAME, ...)                   \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__) \
                     AT_DISPATCH_CASE(T1, __VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND2(T1, T2, TYPE, NAME, ...)              \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__) \
                     AT_DISPATCH_CASE(T1, __VA_ARGS__) AT_DISPATCH_CASE(T2, __VA_ARGS__))

namespace c10 {
inline namespace kbopt_slim {
namespace kbopt_detail {
template <ScalarType> struct CppTypeOf;
template <> struct CppTypeOf<ScalarType::Float> { using type = float; };
template <> struct CppTypeOf<ScalarType::Double> { using type = double; };
#ifdef KBOPT_REDUCED_TYPES
template <> struct CppTypeOf<ScalarType::Half> { using type = c10::Half; };
template <> struct CppTypeOf<ScalarType::BFloat16> { using type = c10::BFloat16; };
#endif
template <ScalarType t> using CppType = typename CppTypeOf<t>::type;
} // namespace kbopt_detail
} // namespace kbopt_slim
} // namespace c10

namespace kbopt {
inline at::Tensor adopt(KbTensorRef ref) { return at::Tensor::adopt(ref); }
inline KbTensorRef release(at::Tensor&& tensor) { return tensor.kb_take(); }
} // namespace kbopt
