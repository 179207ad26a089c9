from kbopt.leanbuild import scan


def test_standard_headers_follow_the_names_used() -> None:
    source = "std::cout << std::min(a, b); std::vector<int> v; assert(x); float m = -FLT_MAX;"
    assert scan.standard_headers(source) == ("algorithm", "cassert", "cfloat", "iostream")


def test_half_precision_is_seen_in_types_and_in_dispatch_macros() -> None:
    assert scan.uses_reduced_types("reinterpret_cast<__half*>(x.data_ptr<at::Half>())")
    assert scan.uses_reduced_types("AT_DISPATCH_FLOATING_TYPES_AND_HALF(x.scalar_type(), ...)")
    assert not scan.uses_reduced_types("AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), ...)")


def test_cuda_half_types_bring_their_header() -> None:
    assert scan.cuda_headers("__global__ void k(const half* a)") == ("cuda_fp16.h",)
    assert scan.cuda_headers("__global__ void k(const float* a)") == ()


def test_keyword_arguments_need_pybind_but_its_alias_does_not() -> None:
    assert scan.uses_pybind('m.def("f", &f, py::arg("a"));')
    assert not scan.uses_pybind('namespace py = pybind11;\nPYBIND11_MODULE(x, m) { m.def("f", &f); }')


def test_other_parts_of_torch_need_its_full_headers() -> None:
    assert scan.needs_full_headers("TORCH_LIBRARY(ns, m) {}")
    assert scan.needs_full_headers("class F : public torch::autograd::Function<F> {};")
    assert not scan.needs_full_headers("torch::Tensor f(torch::Tensor x) { return torch::relu(x); }")


def test_an_error_in_plain_code_does_not_blame_torch() -> None:
    plain = "cuda_sources[0](12): error: expected a ';'\n      float x = 1\n          ^\n"
    lacking = "cpp_sources[0]:3:9: error: 'class at::kbopt_slim::Tensor' has no member named 'logsumexp'\n"
    quoted = (
        "x.cu(6): error: qualified name is not allowed\n  const torch::PackedTensorAccessor32<float, 2> a\n"
    )
    assert not scan.blames_torch(plain)
    assert scan.blames_torch(lacking)
    assert scan.blames_torch(quoted)
