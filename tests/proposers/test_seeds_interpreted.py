"""The Triton seeds without a GPU: right in Triton's interpreter, and compiled for an H200."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kbopt.core.task import seed_name
from kbopt.proposers import seeds as seeds_module
from kbopt.proposers.seeds import seeds_for
from tests.proposers.triton_cases import CASES

pytest.importorskip("triton")
pytestmark = pytest.mark.timeout(600)  # some 12 s each for the two processes on idle cores

ROOT = Path(__file__).parents[2]
ALLOWED_RATIO = 4.0
LEAST_ERROR = 2e-7
"""A few roundings of fp32. Running sums of thousands, which PyTorch forms in double on a CPU, have more."""
SHARED_BYTES = 227 * 2**10
"""Of shared memory, what a program may have on an H200."""
RUNS = {
    f"{name} by {seed.name}": {"name": f"{name} by {seed.name}", "kernel": seed.source, "task": source}
    for name, (family, source) in CASES.items()
    for seed in seeds_for(family, "cuda")
    if seed.name != "elementwise/cuda_persistent" or name in ("elementwise/swiglu", "elementwise/scaled")
}
"""Each case by each seed of its family; of the formulas, which two seeds share, by one."""


def judged(mode, runs):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_seeds", mode],
        input="".join(f"{json.dumps(run)}\n" for run in runs),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(runs), done.stderr
    return {answer["name"]: answer for answer in answers}


TF32 = [
    next(name for name in RUNS if name.startswith(family))
    for family in ("convolution/", "transposed_", "separable")
]
"""Cases by seeds that compute in TF32, one each. The interpreter computes their products in fp32."""


@pytest.fixture(scope="module")
def interpreted():
    """Those that round to TF32 are judged without it, and once as they ship."""
    exact = [
        {**run, "kernel": run["kernel"].replace('PRECISION = "tf32" ', 'PRECISION = "tf32x3" ')}
        for run in RUNS.values()
    ]
    return judged("interpret", [*exact, *({**RUNS[name], "name": f"{name} in TF32"} for name in TF32)])


@pytest.fixture(scope="module")
def compiled():
    """The first case of each seed: which variant it is changes little in what is compiled."""
    return judged("compile", {seed_name(run["kernel"]): run for run in reversed(RUNS.values())}.values())


@pytest.mark.parametrize("name", RUNS)
def test_a_triton_seed_is_as_right_as_pytorch_in_the_interpreter(name, interpreted):
    assert "error" not in interpreted[name], interpreted[name]["error"]

    reference_error, kernel_error = interpreted[name]["errors"]

    least = 1e-6 if name.startswith("scan/") else LEAST_ERROR
    assert kernel_error <= max(ALLOWED_RATIO * reference_error, least)


@pytest.mark.parametrize("name", TF32)
def test_operands_of_convolutions_are_rounded_to_tf32_and_not_cut_off(name, interpreted):
    _, error = interpreted[f"{name} in TF32"]["errors"]

    assert 2e-6 < error < 2.0**-11  # one operand is at the most half of TF32's last bit off, 2**-12


def test_every_triton_seed_compiles_for_an_h200_and_fits_its_shared_memory(compiled):
    errors = {name: answer["error"][-500:] for name, answer in compiled.items() if "error" in answer}
    kernels = [kernel for answer in compiled.values() for kernel in answer.get("kernels", ())]

    assert errors == {}
    assert all(kernel["shared"] <= SHARED_BYTES for kernel in kernels)


def test_products_for_which_tensor_cores_are_allowed_run_on_them(compiled):
    on_tensor_cores = ("tensor_cores", "convolution", "linear_", "attention", "separable")
    expected = [
        name
        for name in compiled
        if any(part in name for part in on_tensor_cores)
        and not any(part in name for part in ("cuda_library", "linear_sum"))
    ]

    assert len(expected) > len(on_tensor_cores)
    for name in expected:
        assert any(kernel["wgmma"] + kernel["mma"] for kernel in compiled[name]["kernels"]), name


def test_every_triton_seed_has_a_case():
    kernels = Path(seeds_module.__file__).parent / "kernels"
    shipped = {f"{path.parent.name}/{path.stem}" for path in kernels.glob("*/cuda_*.py")}
    elsewhere = {"diagonal", "layernorm", "logsumexp", "rmsnorm", "softmax", "cross_entropy"}

    assert {name for name in shipped if name.split("/")[0] not in elsewhere} == {
        run.rpartition(" by ")[2] for run in RUNS
    }
