"""Kernels in each format's own form become sources that define `ModelNew`."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.core.task import Task
from kbopt.core.workloads import workloads_of
from kbopt.tasks import as_model, endings, load_task, missing
from kbopt.tasks.solutions import read_solution
from tests.support import formats
from tests.tasks.formats.test_formats import WRITERS, run

KERNELS = {
    "sol": ("kernel.py", formats.NORM_KERNEL),
    "traces": ("kernel.json", json.dumps(formats.PRODUCT_SOLUTION)),
    "hard": ("solution.py", formats.HARD_KERNEL),
    "mode": ("submission.py", formats.MODE_KERNEL),
}


def task_of(form: str, folder: Path) -> Task:
    return load_task(str(WRITERS[form](folder / "one")))


def solution(*path: Any, to: Any) -> dict[str, Any]:
    """The solution with one field set."""
    whole = copy.deepcopy(formats.PRODUCT_SOLUTION)
    part: Any = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = to
    return whole


def agree(task: Task, source: str) -> bool:
    """Whether the kernel answers as the reference does on every workload, with its weights, in memory
    of its own.
    """
    reference, kernel = run(task.source), run(source)
    arguments = reference.get_init_inputs()
    one, other = reference.Model(*arguments), kernel.ModelNew(*arguments)
    other.load_state_dict(one.state_dict())
    right = True
    for workload in workloads_of(task.source):
        inputs = reference.get_inputs(**workload.arguments)
        with torch.no_grad():
            expected, first, second = one(*inputs), other(*inputs), other(*inputs)
        assert first.data_ptr() != second.data_ptr()
        right = right and torch.allclose(expected, first, atol=1e-5)
    return right


@pytest.mark.parametrize("form", KERNELS)
def test_a_kernel_in_the_formats_own_form_is_a_model(form: str, tmp_path: Path) -> None:
    task, (name, text) = task_of(form, tmp_path), KERNELS[form]

    source = as_model(text, name, task)

    assert agree(task, source)


@pytest.mark.parametrize("form", KERNELS)
def test_a_kernel_that_defines_modelnew_is_left_as_it_is(form: str, tmp_path: Path) -> None:
    text = "class ModelNew: pass\ndef run(): pass\ndef custom_kernel(): pass\nclass Model: pass\n"

    assert as_model(text, "kernel.py", task_of(form, tmp_path)) == text


@pytest.mark.parametrize("text", ["x = 1\n", "def run(x:\n", "\0", "def other(x): return x\n"])
@pytest.mark.parametrize("form", KERNELS)
def test_what_defines_nothing_that_the_format_asks_for_is_left_to_the_evaluator(
    form: str, text: str, tmp_path: Path
) -> None:
    assert as_model(text, "kernel.py", task_of(form, tmp_path)) == text


@pytest.mark.parametrize(
    ("form", "own"),
    [
        ("sol", "a function run"),
        ("traces", "a function run"),
        ("mode", "a function custom_kernel"),
        ("hard", "a class Model"),
    ],
)
def test_what_a_kernel_of_another_name_should_define_is_said(form: str, own: str, tmp_path: Path) -> None:
    task = task_of(form, tmp_path)

    assert missing("def other(x): return x\n", "kernel.py", task) == (
        f"kernel.py defines neither {own}, as the task's format has it, nor a class ModelNew"
    )
    assert missing("class ModelNew: ...\n", "kernel.py", task) == ""
    assert missing("x = 1\n", "kernel.py", load_task("quick/gelu")) == ""


def test_a_task_in_kernelbenchs_own_format_takes_modelnew_alone() -> None:
    task = load_task("quick/gelu")

    assert as_model("def run(x): return x\n", "k.py", task) == "def run(x): return x\n"
    with pytest.raises(UserError, match=r"k\.cu: .*Give a \.py file that defines ModelNew"):
        as_model("torch::Tensor run(torch::Tensor x) { return x; }", "k.cu", task)
    assert endings(task) == (".py",)


def test_a_function_that_returns_its_outputs_is_told_by_how_many_arguments_it_takes(tmp_path: Path) -> None:
    task = task_of("sol", tmp_path)
    text = formats.NORM["reference"]

    source = as_model(str(text), "kernel.py", task)

    assert "torch.empty" not in source
    assert agree(task, source)


def test_a_solution_says_whether_its_function_writes_to_its_last_arguments(tmp_path: Path) -> None:
    task = task_of("traces", tmp_path)
    writing = solution("spec", "destination_passing_style", to=True)
    writing["sources"] = [
        {"path": "main.py", "content": "import torch\ndef product(*a): torch.mm(a[0], a[1].T, out=a[2])\n"}
    ]
    absent = copy.deepcopy(writing)
    del absent["spec"]["destination_passing_style"]

    for one in (writing, absent):
        source = as_model(json.dumps(one), "s.json", task)
        assert "torch.empty((given[0].shape[0], 24), dtype=torch.float32, device=given[0].device)" in source
        assert agree(task, source)


def test_memory_for_outputs_goes_by_the_sizes_of_the_inputs(tmp_path: Path) -> None:
    """A kernel that carried the sizes of workloads would tell those that are hidden."""
    definition = {
        **formats.NORM,
        "axes": {
            "n": {"type": "var"},
            "free": {"type": "var"},
            "four": {"type": "const", "value": 4},
            "most": {"type": "expr", "expression": "half + four"},
            "half": {"type": "expr", "expression": "n / 2 * 1"},
        },
        "inputs": {
            "k": {"shape": None, "dtype": "int32"},
            "packed": {"shape": ["four", "n"], "dtype": "float4_e2m1"},
        },
        "outputs": {
            "a": {"shape": ["most", "n * (1 + 1)"], "dtype": "int32"},
            "b": {"shape": ["four", "n"], "dtype": "float4_e2m1"},
            "c": {"shape": ["free"], "dtype": "bfloat16"},
            "d": {"shape": [], "dtype": "float32"},
        },
        "reference": "def run(k, packed): return packed",
    }
    lines = [{"uuid": str(n), "axes": {"n": n, "free": 5}} for n in (6, 10)]
    path = str(formats.write_sol(tmp_path, definition, lines))

    module = run(load_task(path).source)

    for n in (6, 10):
        made = module._allocated_outputs([torch.empty(4, n // 2, dtype=torch.uint8)])
        assert [tuple(one.shape) for one in made] == [(n // 2 + 4, 2 * n), (4, n // 2), (5,), ()]
        assert [one.dtype for one in made] == [
            torch.int32,
            torch.float4_e2m1fn_x2,
            torch.bfloat16,
            torch.float32,
        ]


def test_an_output_whose_size_no_input_has_is_of_one_workload_alone(tmp_path: Path) -> None:
    definition = {
        **formats.NORM,
        "axes": {"n": {"type": "var"}},
        "inputs": {"n_out": {"shape": None, "dtype": "int32"}, "x": {"shape": [4], "dtype": "float32"}},
        "outputs": {"y": {"shape": ["n"], "dtype": "float32"}},
        "reference": "def run(n_out, x): return x[0].expand(n_out)",
    }
    lines = [
        {"uuid": str(n), "axes": {"n": n}, "inputs": {"n_out": {"type": "scalar", "value": n}}}
        for n in (6, 9)
    ]
    path = str(formats.write_sol(tmp_path, definition, lines))

    assert "torch.empty((6,)" in load_task(path).source
    with pytest.raises(UserError, match="its workloads differ in _allocated_outputs, get_inputs"):
        load_task(f"{path}#all")


BINDING = 'PYBIND11_MODULE(x, m) { m.def("run", '


@pytest.mark.parametrize(
    ("content", "writes"),
    [
        ("torch::Tensor run(torch::Tensor a, torch::Tensor b) {", False),
        ("torch::Tensor run(torch::Tensor a, c10::optional<torch::Tensor> more = c10::nullopt) {", False),
        ("void run(torch::Tensor a, torch::Tensor b, torch::Tensor out) {", True),
        ('auto run = [](torch::Tensor a) {};\nPYBIND11_MODULE(x, m) { m.def("run", run);', True),
        (f"torch::Tensor run(py::args all, py::kwargs named) {{}}\n{BINDING}run);", False),
        (f"static std::vector<at::Tensor>\nboth(py::args all) {{}}\n{BINDING}&both, doc);", False),
        (f"inline void both(py::args all) {{}}\n{BINDING} & both);", True),
        (f"auto both(py::args all) {{}}\n{BINDING}both);", True),
        (f"int run(int a) {{}}\nvoid both(torch::Tensor a, torch::Tensor b) {{}}\n{BINDING}&x::both);", True),
    ],
)
def test_the_type_of_a_function_says_what_a_solution_leaves_out(content: str, *, writes: bool) -> None:
    """Published solutions that return their outputs have no field that says so."""
    given = copy.deepcopy(formats.PRODUCT_SOLUTION)
    given["spec"] = {"language": "cuda", "entry_point": "main.cpp::run"}
    given["sources"] = [{"path": "main.cpp", "content": f"{content} }}\n"}]

    assert read_solution(json.dumps(given), "s.json").writes is writes


@pytest.mark.parametrize(
    "body", ["product(A, B): return A @ B.T", "product(*a): return a[0] @ a[1].T"], ids=["two", "any"]
)
def test_a_solution_in_python_that_returns_needs_not_say_so(body: str, tmp_path: Path) -> None:
    given = solution("sources", to=[{"path": "main.py", "content": f"def {body}\n"}])
    given["spec"].pop("destination_passing_style", None)
    task = task_of("traces", tmp_path)

    assert agree(task, as_model(json.dumps(given), "s.json", task))


def test_what_follows_an_import_on_its_line_stays(tmp_path: Path) -> None:
    task = task_of("traces", tmp_path)
    content = "from layout import turned; import math; import os  # more\n\n\ndef product(A, B):\n"
    content += "    return turned(B @ A.T) * math.floor(len(os.sep))\n"
    given = solution("sources", 0, "content", to=content)

    assert agree(task, as_model(json.dumps(given), "s.json", task))


def test_a_solution_is_told_by_its_text_where_no_file_says_so(tmp_path: Path) -> None:
    task = task_of("traces", tmp_path)

    assert agree(task, as_model(json.dumps(formats.PRODUCT_SOLUTION, indent=1), "", task))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"s\.json: no JSON"),
        ("[]", r"s\.json: no solution"),
        (json.dumps({"spec": {}, "sources": []}), r"s\.json, entry_point: this field is missing"),
        (json.dumps({"sources": []}), r"s\.json, spec: this field is missing"),
        (json.dumps(solution("sources", to=[{"path": "main.py"}])), r"s\.json, content: this field"),
        (
            json.dumps(solution("spec", "entry_point", to="main.py")),
            r"spec\.entry_point: 'main\.py'\. It is F",
        ),
        (
            json.dumps(solution("spec", "entry_point", to="a.py::b")),
            r"with a file of sources: main\.py, layout",
        ),
        (
            json.dumps(solution("sources", 1, to={"path": "a.txt", "content": ""})),
            r"sources: a\.txt is no Python",
        ),
        (
            json.dumps(solution("sources", 1, "content", to="def product(): 1\ndef turned(): 2\n")),
            r"layout and main both define product",
        ),
        (
            json.dumps(solution("sources", 0, "content", to="def product(:\n")),
            r"s\.json, main: no Python source",
        ),
        (
            json.dumps(solution("spec", "entry_point", to="main.py::prodcut")),
            r"spec\.entry_point: main\.py defines no prodcut",
        ),
        (
            json.dumps(solution("spec", "destination_passing_style", to="no")),
            r"spec\.destination_passing_style: 'no'\. It is true or false",
        ),
        (
            json.dumps(solution("sources", 1, "content", to=None)),
            r"sources\[1\]: path and content are not both text",
        ),
        (json.dumps(solution("sources", 1, "path", to="../a.py")), r"sources\[1\]\.path: '\.\./a\.py'"),
        (json.dumps(solution("sources", 1, "path", to="/a.py")), r"sources\[1\]\.path: '/a\.py'"),
        (json.dumps(solution("sources", 1, "path", to="main.py")), r"'main\.py' is there twice"),
    ],
)
def test_a_solution_without_its_form_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        as_model(text, "s.json", task_of("traces", tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-O3", r"spec\.compile_options: '-O3'\. It is an object of lists: cflags"),
        ({"cflags": "-O3"}, r"spec\.compile_options\.cflags: '-O3'\. It is a list of flags"),
        ({"ld_flags": [3]}, r"spec\.compile_options\.ld_flags: \[3\]\. It is a list of flags"),
    ],
)
def test_options_of_another_form_are_named(options: object, said: str, tmp_path: Path) -> None:
    found = {
        "spec": {"entry_point": "a.cu::run", "compile_options": options},
        "sources": [
            {"path": "a.cu", "content": "torch::Tensor run(torch::Tensor A, torch::Tensor B) {\n}\n"}
        ],
    }

    with pytest.raises(UserError, match=said):
        as_model(json.dumps(found), "s.json", task_of("traces", tmp_path))


def test_a_submission_may_import_what_the_reference_uses(tmp_path: Path) -> None:
    task = task_of("mode", tmp_path)
    text = formats.MODE_KERNEL.replace("\n\n\ndef", "\nfrom utils import Exact as E\n\n\ndef", 1)
    text = text.replace("    a, b, c = data", "    with E():\n        a, b, c = data")

    assert agree(task, as_model(text, "s.py", task))
    with pytest.raises(UserError, match=r"s\.py: it imports unused of the task's files"):
        as_model("from utils import unused\ndef custom_kernel(data): return unused()\n", "s.py", task)


def test_a_submission_may_keep_a_check_that_its_kernel_does_not_need(tmp_path: Path) -> None:
    task = task_of("mode", tmp_path)
    check = "\n\ncheck = make_match_reference(custom_kernel)\n"
    text = f"from utils import make_match_reference\n{formats.MODE_KERNEL}{check}"

    assert agree(task, as_model(text, "s.py", task))


def test_a_reference_in_float64_does_not_ask_for_it_of_kernels(tmp_path: Path) -> None:
    wide = formats.MODE_REFERENCE.replace("torch.tanh(a) + b", "torch.tanh(a.double()) + b.to(torch.float64)")
    wide = wide.replace("c[...] =", "c =")
    task = load_task(str(formats.write_mode(tmp_path / "one", reference=wide)))

    reference = run(task.source)
    (data,) = reference.get_inputs(workload=0)
    assert reference.Model()(data).dtype == torch.float32
    assert reference.Model()(tuple(part.double() for part in data[:2]) + data[2:]).dtype == torch.float64
    assert agree(task, as_model(formats.MODE_KERNEL, "s.py", task))
    assert agree(task, as_model(formats.MODE_KERNEL.replace("return c", "return c.double()"), "s.py", task))


def test_a_submission_may_fall_back_on_the_reference(tmp_path: Path) -> None:
    task = task_of("mode", tmp_path)
    text = "from reference import ref_kernel\n\n\ndef custom_kernel(data):\n    return ref_kernel(data)\n"

    assert agree(task, as_model(text, "s.py", task))


CU = r"""
#include <torch/extension.h>
static torch::Tensor inner(torch::Tensor x) { return x; }
__global__ void kernel(const float* x) { /* 'quotes' and "more" \n */ }

torch::Tensor run(torch::Tensor a, torch::Tensor b) {
    return inner(a) + b;
}
"""


def built(source: str) -> dict[str, Any]:
    """The keywords with which the source calls PyTorch's loaders."""
    import torch.utils.cpp_extension as loaders

    calls: dict[str, Any] = {}

    class Extension:
        def __getattr__(self, name: str) -> Any:
            return lambda *inputs: inputs[0]

    def load(**keywords: Any) -> Extension:
        texts = [Path(path).read_text() for path in keywords.get("sources", ())]
        calls.update(keywords, texts=texts)
        return Extension()

    before = loaders.load, loaders.load_inline
    loaders.load = loaders.load_inline = load
    try:
        run(source)
    finally:
        loaders.load, loaders.load_inline = before
    return calls


def test_a_cuda_file_with_a_launcher_is_bound_by_its_signature(tmp_path: Path) -> None:
    task = task_of("traces", tmp_path)

    calls = built(as_model(CU, "k.cu", task))

    assert calls["cuda_sources"] == CU
    assert calls["functions"] == ["run"]
    assert calls["cpp_sources"].strip() == "torch::Tensor run(torch::Tensor a, torch::Tensor b);"


def test_a_launcher_that_returns_nothing_writes_to_its_last_arguments(tmp_path: Path) -> None:
    text = CU.replace("torch::Tensor run(", "void run(").replace("return inner(a) + b", "inner(a)")

    assert "_allocated_outputs" in as_model(text, "k.cu", task_of("traces", tmp_path))
    with pytest.raises(UserError, match=r"run writes to its arguments\. Have it return what it writes"):
        as_model(text, "k.cu", task_of("mode", tmp_path / "other"))


@pytest.mark.parametrize(
    ("third", "takes"),
    [
        ("", False),
        (", torch::Tensor out", True),
        (", const c10::optional<torch::Tensor>& out = c10::nullopt", True),
        (", std::optional<std::pair<int, int>> tile", False),
        (", torch::Tensor out, torch::Tensor more", False),
    ],
)
def test_a_function_that_also_returns_its_outputs_gets_memory_for_them(
    third: str, *, takes: bool, tmp_path: Path
) -> None:
    """FlashInfer-Bench calls each function with its outputs, unless the solution says otherwise."""
    given = copy.deepcopy(formats.PRODUCT_SOLUTION)
    given["spec"] = {"language": "cuda", "entry_point": "main.cpp::run"}
    content = f"torch::Tensor run(torch::Tensor A, torch::Tensor B{third}) {{ }}\n"
    given["sources"] = [{"path": "main.cpp", "content": content}]
    task = task_of("traces", tmp_path)

    assert ("_allocated_outputs" in as_model(json.dumps(given), "s.json", task)) is takes
    given["spec"]["destination_passing_style"] = False
    assert "_allocated_outputs" not in as_model(json.dumps(given), "s.json", task)


def test_a_file_with_a_binding_of_its_own_keeps_it(tmp_path: Path) -> None:
    text = CU + 'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("run", &run); }\n'

    calls = built(as_model(text, "k.cu", task_of("traces", tmp_path)))

    assert "functions" not in calls
    assert calls["cpp_sources"] == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "__global__ void kernel(float* x) {}\n",
            r"functions that take tensors: none\. Have one, called run",
        ),
        (
            CU.replace("run", "first") + CU.replace("run", "second"),
            r"functions that take tensors: first, second",
        ),
        (
            CU + "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);\n",
            r"it is bound by TVM FFI\. kbopt builds bindings",
        ),
    ],
)
def test_a_cuda_file_without_a_launcher_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"k\.cu: {said}"):
        as_model(text, "k.cu", task_of("traces", tmp_path))


def test_the_files_of_a_solution_in_cuda_lie_where_their_text_says(tmp_path: Path) -> None:
    files = {"src/k.h": "#pragma once\n", "src/k.cu": '#include "k.h"\n' + CU}
    whole = solution("sources", to=[{"path": path, "content": text} for path, text in files.items()])
    whole["spec"] |= {
        "entry_point": "src/k.cu::run",
        "compile_options": {"cuda_cflags": ["-O1"], "ld_flags": []},
        "binding": "torch",
    }
    task = task_of("traces", tmp_path)

    source = as_model(json.dumps(whole), "s.json", task)
    first, again = built(source), built(source)

    assert first == again
    assert first["extra_cuda_cflags"] == ["-O1"]
    assert "extra_ldflags" not in first
    assert first["texts"][0] == files["src/k.cu"]
    assert 'm.def("run", &run);' in first["texts"][1]
