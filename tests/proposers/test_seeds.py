"""The seed kernels in C: as right as PyTorch, for every size and every value that may be tuned."""

import ast
import ctypes
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from kbopt.core.task import seed_name
from kbopt.core.tune_comments import parse, substitute
from kbopt.proposers import seeds as seeds_module
from kbopt.proposers.seeds import seeds_for
from kbopt.tasks import list_tasks, load_task
from kbopt.tasks.families import family_of_problem
from tests.support.seed_kernels import errors, load_module, with_sizes

KERNELS = Path(seeds_module.__file__).parent / "kernels"
FILES = sorted(KERNELS.glob("*/*.py"))
QUICK = [info.name for info in list_tasks() if info.name.startswith("quick/")]
MATMUL = [info.name for info in list_tasks() if info.name.startswith("matmul/")]
ODD = {"TOKENS": 5, "FEATURES": 4099, "M": 97, "K": 515, "N": 130, "SIDE": 203, "CLASSES": 1000, "BATCH": 3}
ALLOWED_RATIO = 4.0
"""Of the kernel's error to PyTorch's own; both are a few roundings of fp32, 6e-8 each."""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(autouse=True)
def built_once(libraries, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(libraries))


def as_right_as_pytorch(task, kernel):
    reference_error, kernel_error = errors(task, kernel)
    return kernel_error <= ALLOWED_RATIO * max(reference_error, 6e-8)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*((name, {"CHANNELS": 3}) for name in [*QUICK, *MATMUL]), *((name, ODD) for name in QUICK)],
)
def test_every_seed_of_a_task_is_as_right_as_pytorch(name, sizes, tmp_path):
    task = load_task(name)
    reference = load_module(with_sizes(task.source, sizes), tmp_path)

    found = seeds_for(task.family, "cpu")

    assert found
    for seed in found:
        assert as_right_as_pytorch(reference, load_module(seed.source, tmp_path)), seed.name


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_every_single_tunable_value_builds_and_is_right(name, tmp_path):
    task = load_task(name)
    reference = load_module(with_sizes(task.source, {"CHANNELS": 3}), tmp_path)
    for seed in seeds_for(task.family, "cpu"):
        for tunable in parse(seed.source):
            for value in tunable.alternatives:
                kernel = load_module(substitute(seed.source, {tunable.name: value}), tmp_path)
                assert as_right_as_pytorch(reference, kernel), (seed.name, tunable.name, value)


SPECIAL = [0.0, -0.0, 1e-40, 1.0, -1.0, 30.0, -30.0, 88.5, -88.5, 104.0, -104.0, 1e30, -1e30]
INFINITE = [float("inf"), float("-inf"), float("nan")]
FORMULAS = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softsign": torch.nn.functional.softsign,
    "hard_sigmoid": torch.nn.functional.hardsigmoid,
    "hard_tanh": torch.nn.functional.hardtanh,
    "swish": lambda x: x * torch.sigmoid(x),
    "hard_swish": lambda x: x * torch.nn.functional.hardtanh(x + 3.0, 0.0, 6.0) / 6.0,
    "mish": lambda x: x * torch.tanh(torch.nn.functional.softplus(x)),
    "leaky_relu": torch.nn.functional.leaky_relu,
    "tanh": torch.tanh,
    # On some processors PyTorch's own is NaN at infinity.
    "gelu": lambda x: (0.5 * x.double() * (1.0 + torch.erf(x.double() * 0.5**0.5))).float(),
    "selu": torch.selu,
    "elu": torch.nn.functional.elu,
    "softplus": torch.nn.functional.softplus,
    "new_gelu": lambda x: 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0)))),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_agree_with_pytorch_at_special_values_too(formula, tmp_path):
    x = torch.tensor([*SPECIAL, *INFINITE, *torch.linspace(-20.0, 20.0, 4001).tolist()])

    for seed in seeds_for(f"elementwise/{formula}", "cpu"):
        actual = load_module(seed.source, tmp_path).ModelNew()(x)
        torch.testing.assert_close(actual, FORMULAS[formula](x), rtol=2e-6, atol=1e-6, equal_nan=True)


def test_every_formula_in_the_table_is_tested():
    table = (KERNELS / "elementwise" / "variants.toml").read_text()

    assert set(re.findall(r"^\[(\w+)\]", table, re.MULTILINE)) == {*FORMULAS, "swiglu", "scaled"}


@pytest.mark.parametrize("special", INFINITE)
@pytest.mark.parametrize(
    ("family", "function"),
    [("softmax", lambda x: torch.softmax(x, -1)), ("logsumexp", lambda x: torch.logsumexp(x, -1))],
)
def test_infinities_and_nan_in_a_row_come_out_as_in_pytorch(family, function, special, tmp_path):
    x = torch.randn(4, 67)
    x[1, 3] = x[1, 66] = special
    x[2, :] = special
    [seed] = seeds_for(family, "cpu")

    torch.testing.assert_close(load_module(seed.source, tmp_path).ModelNew()(x), function(x), equal_nan=True)


def test_the_exponential_is_within_two_units_in_the_last_place(tmp_path):
    [seed] = seeds_for("logsumexp", "cpu")
    exported = (
        "void all(const float *x, float *y, int64_t n) { for (int64_t i = 0; i < n; i++) y[i] = exp_(x[i]); }"
    )
    library = load_module(seed.source.replace("void reduce(", f"{exported}\nvoid reduce("), tmp_path).library
    x = torch.linspace(-87.0, 88.7, 2_000_001)
    y = torch.empty_like(x)

    library.all(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_int64(x.numel()))

    exact = x.double().exp()
    unit = 2.0 ** (torch.floor(torch.log2(exact)) - 23.0)
    assert ((y.double() - exact).abs() / unit).max() <= 2.0
    assert y.argmax() == x.numel() - 1


def test_large_logits_do_not_overflow(tmp_path):
    x = torch.randn(3, 100) * 1e4
    for family, function in (("softmax", torch.softmax), ("logsumexp", torch.logsumexp)):
        [seed] = seeds_for(family, "cpu")
        torch.testing.assert_close(load_module(seed.source, tmp_path).ModelNew()(x), function(x, -1))


def test_cross_entropy_ignores_the_class_that_pytorch_ignores_and_refuses_a_wrong_one(tmp_path):
    [seed] = seeds_for("cross_entropy", "cpu")
    model, logits = load_module(seed.source, tmp_path).ModelNew(), torch.randn(3, 7)

    targets = torch.tensor([6, -100, 0])
    torch.testing.assert_close(model(logits, targets), torch.nn.functional.cross_entropy(logits, targets))
    for wrong in (7, -1):
        with pytest.raises(IndexError, match=f"class {wrong} is out of range: there are 7"):
            model(logits, torch.tensor([0, wrong, 0]))


@pytest.mark.parametrize("family", ["elementwise/swish", "softmax", "matmul/nn", "triangular/upper"])
def test_a_tensor_of_another_dtype_is_refused(family, tmp_path):
    half = torch.ones(4, 4, dtype=torch.float16)
    for seed in seeds_for(family, "cpu"):
        model = load_module(seed.source, tmp_path).ModelNew()
        with pytest.raises(TypeError, match=r"takes contiguous fp32 tensors on the CPU, not torch\.float16"):
            model(half) if family in ("elementwise/swish", "softmax") else model(half, half)


@pytest.mark.parametrize("name", ["quick/softmax", "quick/matmul", "quick/matmul_batched", "matmul/8"])
def test_a_tensor_that_is_not_contiguous_is_taken(name, tmp_path):
    task = load_task(name)
    reference = load_module(with_sizes(task.source, {}), tmp_path)
    inputs = [x.mT.contiguous().mT for x in reference.get_inputs()]
    init = reference.get_init_inputs()

    for seed in seeds_for(task.family, "cpu"):
        actual = load_module(seed.source, tmp_path).ModelNew(*init)(*inputs)
        torch.testing.assert_close(actual, reference.Model(*init)(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_seed_file_names_itself_documents_itself_and_needs_only_torch(path):
    source = path.read_text()
    module = ast.parse(source)
    imported = {
        alias.name for node in ast.walk(module) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in ast.walk(module) if isinstance(node, ast.ImportFrom)}

    assert seed_name(source) == f"{path.parent.name}/{path.stem}"
    assert ast.get_docstring(module)
    assert not {name for name in imported if name.startswith("kbopt")}
    assert any(isinstance(node, ast.ClassDef) and node.name == "ModelNew" for node in module.body)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_tune_comment_of_a_seed_is_understood_and_allows_the_value_it_ships_with(path):
    source = path.read_text()
    tunables = parse(source)

    assert len(tunables) == source.count("tune: ") >= 2
    assert all(len(tunable.alternatives) == len(tunable.choices) - 1 for tunable in tunables)


@pytest.mark.parametrize(
    "block",
    [
        "vector math",
        "build",
        "tile",
        "pointwise functions",
        "pointwise functions in Triton",
        "rounding",
        "activations in Triton",
        "one pass",
        "convolution and first formula",
        "the first formula's values",
        "windows",
        "moments",
        "product and first formula",
        "formula's arguments of features",
    ],
)
def test_blocks_that_several_seeds_share_are_the_same_in_all(block):
    pattern = re.compile(rf"(?:#|//) begin: {block}\n(.*?)(?:#|//) end: {block}\n", re.DOTALL)
    found = [match[1] for path in FILES for match in pattern.finditer(path.read_text())]

    assert len(found) >= 2
    assert len(set(found)) == 1


@pytest.mark.parametrize("table", sorted(KERNELS.glob("*/variants.toml")), ids=lambda path: path.parent.name)
def test_every_variant_gives_what_its_seeds_leave_open_and_nothing_else(table):
    files = list(table.parent.glob("*.py"))
    asked = {key for path in files for key in re.findall(r"(?:#|//) variant: (\w+)", path.read_text())}
    for variant, values in tomllib.loads(table.read_text()).items():
        assert values.keys() <= asked, variant
        for kind in {path.name.split("_")[0] for path in files}:
            found = seeds_for(f"{table.parent.name}/{variant}", kind)
            assert found
            assert all(compile(seed.source, variant, "exec") for seed in found)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_built_in_task_has_seeds(kind):
    families = {info.family for info in list_tasks()}

    assert [family for family in families if not seeds_for(family, kind)] == []


def test_every_problem_of_kernelbenchs_level_1_has_triton_seeds():
    assert [index for index in range(1, 101) if not seeds_for(family_of_problem(1, index), "cuda")] == []
    assert family_of_problem(1, 101) == ""


@pytest.mark.parametrize(("level", "least"), [(2, 95), (3, 7)])
def test_the_families_of_the_other_levels_have_triton_seeds(level, least):
    families = [family for index in range(1, 101) if (family := family_of_problem(level, index))]

    assert [family for family in families if not seeds_for(family, "cuda")] == []
    assert len(families) >= least


@pytest.mark.parametrize("family", ["", "softmax/unheard", "elementwise", "unheard", "../tasks", "matmul"])
def test_a_family_that_is_not_known_has_no_seeds(family):
    assert seeds_for(family, "cpu") == ()


def test_a_seed_runs_in_a_process_that_cannot_import_kbopt(tmp_path):
    seed = seeds_for("softmax", "cpu")[0]
    (tmp_path / "kernel.py").write_text(f"import sys\nsys.modules['kbopt'] = None\n{seed.source}")
    program = "import kernel, torch; print(kernel.ModelNew()(torch.zeros(1, 4)).tolist())"

    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    assert done.stdout == "[[0.25, 0.25, 0.25, 0.25]]\n", done.stderr


def test_a_source_that_does_not_compile_gives_the_compilers_message(tmp_path):
    source = seeds_for("diagonal", "cpu")[0].source.replace("void scale", "viod scale")

    with pytest.raises(RuntimeError, match="unknown type name"):
        load_module(source, tmp_path)


def test_a_second_load_of_the_same_source_compiles_nothing(tmp_path, monkeypatch):
    source = seeds_for("diagonal", "cpu")[0].source
    load_module(source, tmp_path)

    monkeypatch.setenv("PATH", "")
    load_module(source, tmp_path)
    with pytest.raises(FileNotFoundError):
        load_module(source.replace("void scale", "void  scale"), tmp_path)
