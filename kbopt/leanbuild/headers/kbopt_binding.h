// Python bindings for free functions, from their C++ types alone: what PYBIND11_MODULE and m.def do
// for the argument and result types listed here, without pybind11's headers. A function with another
// type does not compile here, and is compiled against pybind11 instead.
//
// Included after a header that defines at::Tensor and kbopt::adopt / kbopt::release for it.
#pragma once

#include <limits>

#include "kbopt_bridge.h"

namespace pybind11 {} // lets a source say `namespace py = pybind11;`

namespace kbopt {

// From<T>::load(object) fills `value`; To<T>::make(value) returns a new reference.
template <class T, class = void> struct From;
template <class T, class = void> struct To;
template <class T, class = void> struct Name;

template <> struct From<at::Tensor> {
  at::Tensor value;
  bool load(KbPyObject* o) {
    KbTensorRef ref = nullptr;
    if (!kb_load_tensor(o, &ref)) return false;
    value = adopt(ref);
    return true;
  }
};
template <> struct To<at::Tensor> {
  static KbPyObject* make(at::Tensor&& v) {
    const KbTensorRef ref = release(std::move(v));
    KbPyObject* object = kb_make_tensor(ref);
    kb_release(ref);
    return object;
  }
};
template <> struct Name<at::Tensor> { static std::string get() { return "torch.Tensor"; } };

template <> struct From<bool> {
  bool value = false;
  bool load(KbPyObject* o) { return kb_load_bool(o, &value); }
};
template <> struct To<bool> { static KbPyObject* make(bool v) { return kb_make_bool(v); } };
template <> struct Name<bool> { static std::string get() { return "bool"; } };

template <class T> constexpr bool is_signed_integer =
    std::is_integral_v<T> && std::is_signed_v<T> && !std::is_same_v<T, char>;
template <class T> constexpr bool is_unsigned_integer =
    std::is_integral_v<T> && std::is_unsigned_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;

template <class T> struct From<T, std::enable_if_t<is_signed_integer<T>>> {
  T value = 0;
  bool load(KbPyObject* o) {
    int64_t wide = 0;
    if (!kb_load_int(o, &wide) || wide < std::numeric_limits<T>::min() || wide > std::numeric_limits<T>::max())
      return false;
    value = static_cast<T>(wide);
    return true;
  }
};
template <class T> struct To<T, std::enable_if_t<is_signed_integer<T>>> {
  static KbPyObject* make(T v) { return kb_make_int(v); }
};
template <class T> struct From<T, std::enable_if_t<is_unsigned_integer<T>>> {
  T value = 0;
  bool load(KbPyObject* o) {
    uint64_t wide = 0;
    if (!kb_load_unsigned(o, &wide) || wide > std::numeric_limits<T>::max()) return false;
    value = static_cast<T>(wide);
    return true;
  }
};
template <class T> struct To<T, std::enable_if_t<is_unsigned_integer<T>>> {
  static KbPyObject* make(T v) { return kb_make_unsigned(v); }
};
template <class T> struct Name<T, std::enable_if_t<is_signed_integer<T> || is_unsigned_integer<T>>> {
  static std::string get() { return "int"; }
};

template <class T> struct From<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  T value = 0;
  bool load(KbPyObject* o) {
    double wide = 0;
    if (!kb_load_double(o, &wide)) return false;
    value = static_cast<T>(wide);
    return true;
  }
};
template <class T> struct To<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static KbPyObject* make(T v) { return kb_make_double(v); }
};
template <class T> struct Name<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static std::string get() { return "float"; }
};

template <> struct From<std::string> {
  std::string value;
  bool load(KbPyObject* o) {
    const char* characters = nullptr;
    size_t length = 0;
    if (!kb_load_string(o, &characters, &length)) return false;
    value.assign(characters, length);
    return true;
  }
};
template <> struct To<std::string> {
  static KbPyObject* make(const std::string& v) { return kb_make_string(v.data(), v.size()); }
};
template <> struct Name<std::string> { static std::string get() { return "str"; } };

template <> struct From<at::ScalarType> {
  at::ScalarType value{};
  bool load(KbPyObject* o) {
    int8_t code = 0;
    if (!kb_load_dtype(o, &code)) return false;
    value = static_cast<at::ScalarType>(code);
    return true;
  }
};
template <> struct Name<at::ScalarType> { static std::string get() { return "torch.dtype"; } };

template <> struct From<at::Device> {
  at::Device value{at::kCPU};
  bool load(KbPyObject* o) {
    int8_t type = 0, index = -1;
    if (!kb_load_device(o, &type, &index)) return false;
    value = at::Device(static_cast<at::DeviceType>(type), index);
    return true;
  }
};
template <> struct Name<at::Device> { static std::string get() { return "torch.device"; } };

template <class T> struct From<std::optional<T>> {
  std::optional<T> value;
  bool load(KbPyObject* o) {
    if (kb_is_none(o)) return true;
    From<T> inner;
    if (!inner.load(o)) return false;
    value = std::move(inner.value);
    return true;
  }
};
template <class T> struct To<std::optional<T>> {
  static KbPyObject* make(std::optional<T>&& v) { return v ? To<T>::make(std::move(*v)) : kb_make_none(); }
};
template <class T> struct Name<std::optional<T>> {
  static std::string get() { return Name<T>::get() + " | None"; }
};

template <class T> struct From<std::vector<T>> {
  std::vector<T> value;
  bool load(KbPyObject* o) {
    const int64_t length = kb_sequence_length(o);
    if (length < 0) return false;
    for (int64_t i = 0; i < length; ++i) {
      KbPyObject* item = kb_sequence_item(o, i);
      From<T> inner;
      const bool loaded = inner.load(item);
      kb_python_release(item);
      if (!loaded) return false;
      value.push_back(std::move(inner.value));
    }
    return true;
  }
};
template <class T> struct To<std::vector<T>> {
  static KbPyObject* make(std::vector<T>&& v) {
    std::vector<KbPyObject*> items;
    for (auto& item : v) items.push_back(To<T>::make(std::move(item)));
    return kb_make_list(items.data(), items.size());
  }
};
template <class T> struct Name<std::vector<T>> {
  static std::string get() { return "list[" + Name<T>::get() + "]"; }
};

template <> struct From<at::IntArrayRef> {
  From<std::vector<int64_t>> inner;
  at::IntArrayRef value;
  bool load(KbPyObject* o) {
    if (!inner.load(o)) return false;
    value = at::IntArrayRef(inner.value);
    return true;
  }
};
template <> struct Name<at::IntArrayRef> { static std::string get() { return "list[int]"; } };

template <class... T> struct To<std::tuple<T...>> {
  static KbPyObject* make(std::tuple<T...>&& v) {
    return std::apply(
        [](auto&&... item) {
          KbPyObject* const items[] = {To<std::decay_t<decltype(item)>>::make(std::move(item))...};
          return kb_make_tuple(items, sizeof...(item));
        },
        std::move(v));
  }
};
template <class... T> struct Name<std::tuple<T...>> {
  static std::string get() {
    std::string text;
    ((text += (text.empty() ? "" : ", ") + Name<T>::get()), ...);
    return "tuple[" + text + "]";
  }
};
template <class A, class B> struct To<std::pair<A, B>> {
  static KbPyObject* make(std::pair<A, B>&& v) {
    return To<std::tuple<A, B>>::make(std::tuple<A, B>(std::move(v.first), std::move(v.second)));
  }
};
template <class A, class B> struct Name<std::pair<A, B>> : Name<std::tuple<A, B>> {};

template <class T> using Plain = std::remove_cv_t<std::remove_reference_t<T>>;

template <class A> A pass(From<Plain<A>>& argument) {
  if constexpr (std::is_lvalue_reference_v<A>) return argument.value;
  else return std::move(argument.value);
}

template <class F> struct Invoke;
template <class R, class... A> struct Invoke<R (*)(A...)> {
  template <size_t... I>
  static bool call(void* target, KbPyObject* const* arguments, KbPyObject** result, std::index_sequence<I...>) {
    std::tuple<From<Plain<A>>...> loaded;
    if (!(std::get<I>(loaded).load(arguments[I]) && ...)) return false;
    const auto function = reinterpret_cast<R (*)(A...)>(target);
    if constexpr (std::is_void_v<R>) {
      function(pass<A>(std::get<I>(loaded))...);
      *result = kb_make_none();
    } else {
      Plain<R> value = function(pass<A>(std::get<I>(loaded))...);
      *result = To<Plain<R>>::make(std::move(value));
    }
    return true;
  }
  static bool invoke(void* target, KbPyObject* const* arguments, KbPyObject** result) {
    return call(target, arguments, result, std::index_sequence_for<A...>());
  }
  static std::string signature() {
    std::string text;
    size_t i = 0;
    ((text += (i ? ", arg" : "arg") + std::to_string(i) + ": " + Name<Plain<A>>::get(), ++i), ...);
    std::string returned = "None";
    if constexpr (!std::is_void_v<R>) returned = Name<Plain<R>>::get();
    return "(" + text + ") -> " + returned;
  }
  static constexpr int64_t arity = sizeof...(A);
};

class Module {
 public:
  template <class R, class... A>
  Module& def(const char* name, R (*function)(A...), const char* doc = "") { return add(name, function, doc, false); }
  template <class R, class... A>
  Module& def_with_torch_errors(const char* name, R (*function)(A...), const char* doc) {
    return add(name, function, doc, true);
  }
  KbPyObject* create(const char* name) const {
    std::vector<KbFunction> functions = functions_;
    for (size_t i = 0; i < functions.size(); ++i) functions[i].signature = (*signatures_)[i].c_str();
    return kb_create_module(name, functions.data(), functions.size());
  }

 private:
  template <class F> Module& add(const char* name, F function, const char* doc, bool torch_errors) {
    signatures_->push_back(Invoke<F>::signature());
    functions_.push_back({name, doc, nullptr, Invoke<F>::arity, torch_errors, &Invoke<F>::invoke,
                          reinterpret_cast<void*>(function)});
    return *this;
  }
  std::vector<KbFunction> functions_;
  // Kept for the life of the process, as the module is: its functions refer to these.
  std::vector<std::string>* signatures_ = new std::vector<std::string>();
};

} // namespace kbopt

#define KBOPT_CONCAT_(a, b) a##b
#define KBOPT_CONCAT(a, b) KBOPT_CONCAT_(a, b)
#define KBOPT_STRING_(a) #a
#define KBOPT_STRING(a) KBOPT_STRING_(a)
#define PYBIND11_MODULE(name, variable)                                                                   \
  static void KBOPT_CONCAT(kbopt_define_, name)(::kbopt::Module&);                                        \
  extern "C" __attribute__((visibility("default"))) KbPyObject* KBOPT_CONCAT(PyInit_, name)() {           \
    ::kbopt::Module module;                                                                               \
    KBOPT_CONCAT(kbopt_define_, name)(module);                                                            \
    return module.create(KBOPT_STRING(name));                                                             \
  }                                                                                                       \
  static void KBOPT_CONCAT(kbopt_define_, name)([[maybe_unused]] ::kbopt::Module & variable)
