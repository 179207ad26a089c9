"""Extensions built and called for real, on the CPU; one process per build, as in the evaluator."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbopt.leanbuild import bridge, builder, extensions, toolchain
from kbopt.leanbuild.store import Store
from tests.support.compilers import needs_extensions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_extensions,
]

SOURCE = """
torch::Tensor scale(torch::Tensor a, double s, int64_t n, bool flip, c10::optional<torch::Tensor> bias) {
  TORCH_CHECK(a.dim() == 2, "a must be 2D, got ", a.sizes(), " of ", a.scalar_type(), " on ", a.device());
  TORCH_CHECK(n > 0);
  auto x = a.contiguous();
  auto out = torch::zeros({a.size(0), a.size(1)}, a.options());
  const float* in = x.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out.data_ptr<float>()[i] = in[i] * s + n;
  if (bias.has_value()) out = out + *bias;
  return flip ? out.t() : out;
}
std::tuple<torch::Tensor, int64_t> shape(const torch::Tensor& a, std::vector<int64_t> v, std::string s) {
  return std::make_tuple(a.reshape(v), static_cast<int64_t>(s.size()));
}
std::vector<at::Tensor> more(std::vector<torch::Tensor> ts) {
  ts.push_back(torch::empty_like(ts[0]).fill_(3));
  return ts;
}
void boom() { throw std::invalid_argument("bad argument"); }
int far(int a) { torch::zeros({2}).size(a); return a; }
"""

CALLS = """
import json, sys
import torch
from kbopt.leanbuild import extensions, inline
inline.install(extensions.Setup.decode(sys.argv[1]))
from torch.utils.cpp_extension import load_inline
m = load_inline("ext", sys.argv[2], functions=["scale", "shape", "more", "boom", "far"])
a = torch.arange(6.0).reshape(2, 3)
def show(value):
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), list(value.stride()), value.tolist()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(show, value)]
    return value
answers = []
for call in (
    lambda: m.scale(a, 2.0, 1, False, None), lambda: m.scale(a, 2, 1, True, torch.ones(2, 3)),
    lambda: m.scale(a[0], 1.0, 1, True, None), lambda: m.scale(a, 1.0, 0, True, None),
    lambda: m.scale(a.double(), 1.0, 1, True, None), lambda: m.scale(a.t(), 1.0, 1, False, None),
    lambda: m.shape(a, [3, 2], "abc"), lambda: m.shape(a, (6,), ""), lambda: m.more([a, a]), lambda: m.boom(),
    lambda: m.far(5), lambda: m.far(0), lambda: m.far(2**40), lambda: m.far(1.5), lambda: m.far(True),
    lambda: m.scale(a), lambda: m.scale("x", 1.0, 1, True, None), lambda: m.scale(a, "x", 1, True, None),
):
    try:
        answers.append(show(call()))
    except Exception as error:
        # What follows the first line of a TypeError names the types in each binder's own words.
        answers.append([type(error).__name__, str(error).splitlines()[0]])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def tools() -> toolchain.Toolchain:
    return toolchain.detect()


@pytest.fixture(scope="module")
def library(tools: toolchain.Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bridge.ensure_bridge(Store(tmp_path_factory.mktemp("store")), tools)


def answers(setup: extensions.Setup, source: str = SOURCE) -> list[Any]:
    process = subprocess.run(
        [sys.executable, "-c", CALLS, setup.encode(), source],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found: list[Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def setup_in(directory: Path, tools: toolchain.Toolchain, library: Path | None) -> extensions.Setup:
    directory.mkdir()
    return extensions.Setup(
        mode="build",
        directory=str(directory),
        toolchain=tools,
        bridge="" if library is None else str(library),
    )


@pytest.fixture(scope="module")
def lean(
    tools: toolchain.Toolchain, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[extensions.Setup, list[Any]]:
    """`SOURCE` built with lean headers: where it lies, and what it answers."""
    setup = setup_in(tmp_path_factory.mktemp("lean") / "build", tools, library)
    return setup, answers(setup)


def test_lean_and_full_headers_give_the_same_results_and_errors(
    tmp_path: Path, tools: toolchain.Toolchain, lean: tuple[extensions.Setup, list[Any]]
) -> None:
    full = setup_in(tmp_path / "full", tools, None)
    expected = answers(full)
    setup, answered = lean
    assert answered == expected
    assert [record["tier"] for record in extensions.build_records(Path(setup.directory))] == ["slim"]
    assert [record["tier"] for record in extensions.build_records(tmp_path / "full")] == ["full"]
    assert expected[0] == ["torch.float32", [2, 3], [3, 1], [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]]]


def test_what_was_built_is_loaded_without_a_compiler(
    tools: toolchain.Toolchain, lean: tuple[extensions.Setup, list[Any]]
) -> None:
    setup, built = lean
    assert answers(replace(setup, mode="use", toolchain=replace(tools, cxx="/nonexistent"))) == built


def test_a_source_that_lean_headers_cannot_carry_is_built_with_the_next(
    tmp_path: Path, tools: toolchain.Toolchain, library: Path
) -> None:
    source = SOURCE.replace(
        "auto x = a.contiguous();", "auto x = a.contiguous().cumsum(0).sub(a.cumsum(0)).add(a);"
    )
    setup = setup_in(tmp_path / "next", tools, library)
    answers(setup, source)
    (record,) = extensions.build_records(tmp_path / "next")
    assert list(record["attempts"]) == ["slim", "core"]


def test_a_compiler_error_is_one_of_torchs_own_headers_and_counts_the_authors_lines(
    tmp_path: Path, tools: toolchain.Toolchain, library: Path
) -> None:
    extension = builder.Extension(
        name="bad",
        units=(
            builder.Unit(
                file_name="main.cpp",
                text='#line 1 "cpp_sources[0]"\nint f() {\n  int key = 1;\n  return lock + key; }',
                is_cuda=False,
                implicit=True,
            ),
        ),
        functions={"f": "f"},
    )
    attempts = builder.build(extension, tmp_path / "bad", tools, bridge=library)
    assert [(attempt.tier, attempt.ok) for attempt in attempts] == [("slim", False), ("full", False)]
    assert "cpp_sources[0]:3:" in attempts[-1].log
    assert "lock" in attempts[-1].log


def test_what_was_never_built_is_refused_in_the_measurement(
    tmp_path: Path, tools: toolchain.Toolchain
) -> None:
    setup = replace(setup_in(tmp_path / "empty", tools, None), mode="use")
    extension = builder.Extension(name="late", units=(), functions=None)
    with pytest.raises(extensions.NotBuilt, match="'late' was not built before the measurement"):
        extensions.Builds(setup).obtain(extension)


@pytest.mark.parametrize(
    ("line", "found"), [("int f() {", "Error building extension"), ('#include "a.h"', "was not built before")]
)
def test_a_source_file_is_found_by_its_text_unless_it_includes_another(
    line: str, found: str, tmp_path: Path, tools: toolchain.Toolchain, library: Path
) -> None:
    """Here nothing compiles, which is remembered too."""

    def written_to(folder: str) -> builder.Extension:
        text = f'#line 1 "{folder}.cpp"\n{line}\n'
        unit = builder.Unit(
            file_name=f"0_{folder}.cpp",
            text=text,
            is_cuda=False,
            implicit=False,
            folder=str(tmp_path / folder),
        )
        return builder.Extension(name="read", units=(unit,), functions=None)

    setup = setup_in(tmp_path / "builds", tools, library)
    with pytest.raises(RuntimeError, match="Error building extension"):
        extensions.Builds(setup).obtain(written_to("one"))
    with pytest.raises(RuntimeError, match=found):
        extensions.Builds(replace(setup, mode="use")).obtain(written_to("two"))


TWICE = """
import sys
import torch
from kbopt.leanbuild import extensions, inline
inline.install(extensions.Setup.decode(sys.argv[1]))
from torch.utils.cpp_extension import load_inline
code = "torch::Tensor run(torch::Tensor x) { auto y = torch::empty_like(x); y.fill_(%s); return y; }"
one, two = (load_inline("same", code % number, functions=["run"]) for number in (3, 2))
print([each.run(torch.ones(1)).item() for each in (one, two, one)])
"""


def test_two_extensions_of_one_name_have_each_their_own_code(
    tmp_path: Path, tools: toolchain.Toolchain, library: Path
) -> None:
    setup = setup_in(tmp_path / "twice", tools, library)
    for mode in ("build", "use"):
        command = [sys.executable, "-c", TWICE, replace(setup, mode=mode).encode()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.stdout == "[3.0, 2.0, 3.0]\n", done.stderr
    assert extensions.num_builds(Path(setup.directory)) == 2
