// The binding of functions, and the conversion of their arguments and results. See kbopt_bridge.h.
#include "handles.h"

#include <torch/csrc/Dtype.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;

namespace {

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

} // namespace

extern "C" {

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
  at::Tensor tensor;
  if (!load(object, &tensor)) {
    return false;
  }
  *ref = owned(std::move(tensor));
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
  return result(py::cast(*Borrowed(ref)).release().ptr());
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
