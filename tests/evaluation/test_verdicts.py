"""What the service says of sources that are right, wrong, broken or hostile; see also tests/adversarial."""

import os
from dataclasses import replace

import pytest

from kbopt.core.errors import UserError
from kbopt.core.outcomes import CompileFailed, Crashed, Measured, Rejected, TimedOut, WrongAnswer
from kbopt.core.protocol import EvalProtocol
from tests.evaluation.conftest import ELEMENTWISE, QUICK, Bench
from tests.support.compilers import needs_extensions

HEAD = "import os, time\nimport torch\n\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x):\n"
PLAIN = HEAD + "        return torch.tanh(x) * 2 + x\n"

C_KERNEL = '''
import ctypes, os, subprocess
import torch

SOURCE = r"""
#include <math.h>
void f(const float *x, float *y, long n) {
  for (long i = 0; i < n; i++) y[i] = tanhf(x[i]) * 2 + x[i];
}
"""
folder = os.environ["TORCH_EXTENSIONS_DIR"]
library = os.path.join(folder, "f.so")
if not os.path.exists(library):
    with open(os.path.join(folder, "f.c"), "w") as file:
        file.write(SOURCE)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", file.name, "-o", library, "-lm"], check=True)
kernel = ctypes.CDLL(library).f


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        kernel(*map(ctypes.c_void_p, (x.data_ptr(), y.data_ptr())), ctypes.c_long(x.numel()))
        return y
'''


def test_a_right_kernel_is_measured_with_every_field_filled(bench: Bench):
    result = bench.judge(C_KERNEL, kernelbench=True)

    outcome = result.outcome
    assert isinstance(outcome, Measured), outcome
    assert len(outcome.kernel_ms) == len(outcome.reference_ms) == 21  # 7 at the least in each of three pairs
    assert outcome.speedup_ci[0] <= outcome.speedup <= outcome.speedup_ci[1]
    assert outcome.audit.custom_kernel
    assert outcome.audit.torch_ops == ()
    assert "3 pairs of processes, each with a kernel and a reference of its own, read " in result.feedback
    assert outcome.roofline.size_bytes == 2 * 4 * 256 * 512
    assert result.kernelbench.compiled
    assert result.kernelbench.correctness
    assert result.kernelbench.runtime_stats["num_trials"] == 12
    assert result.kernelbench.ref_runtime > 0
    assert {span.stage for span in result.spans} == {"queue", "compile", "check", "time"}
    assert result.device_s > 0
    assert "Correct." in result.feedback


@pytest.mark.parametrize(
    ("made", "is_custom"),
    [
        ("torch.from_numpy(np.tanh(x.numpy()) * 2 + x.numpy())", True),
        ("torch.frombuffer(np.tanh(x.numpy()) * 2 + x.numpy(), dtype=x.dtype).view(x.shape)", True),
        ("torch.from_dlpack(np.tanh(x.numpy()) * 2 + x.numpy())", True),
        ("torch.add(torch.tanh(x) * 2, x, out=torch.empty_like(x))", False),
        ("torch.zeros_like(x).copy_(torch.tanh(x) * 2 + x)", False),
        ("(torch.tanh(x) * 2 + x).view(-1).view(x.shape)", False),
    ],
)
def test_memory_that_pytorch_did_not_write_is_that_of_another_kernel(
    bench: Bench, made: str, is_custom: bool
):
    source = f"""
import numpy as np
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return {made}
"""

    outcome = bench.judge(source).outcome

    assert isinstance(outcome, Measured), outcome
    assert outcome.audit.custom_kernel == is_custom


def test_plain_pytorch_is_measured_and_marked(bench: Bench):
    outcome = bench.judge(PLAIN).outcome

    assert isinstance(outcome, Measured), outcome
    assert not outcome.audit.custom_kernel
    assert set(outcome.audit.torch_ops) == {"tanh", "mul", "add"}


def test_pytorch_is_refused_where_it_is_forbidden(bench: Bench):
    protocol = EvalProtocol(trials=2, timed=12, torch_ops="forbid")

    outcome = bench.judge(PLAIN, protocol=protocol).outcome

    assert isinstance(outcome, Rejected)
    assert outcome.family == "torch_ops"


def test_a_wrong_answer_names_the_worst_element(bench: Bench):
    source = HEAD + "        y = torch.tanh(x) * 2 + x\n        y[3, 5] += 100\n        return y\n"

    result = bench.judge(source, kernelbench=True)

    assert isinstance(result.outcome, WrongAnswer)
    assert "output 0 at index [3, 5]" in result.outcome.reason
    assert "1 of 131072 elements wrong" in result.feedback
    assert result.kernelbench.compiled
    assert not result.kernelbench.correctness


def test_an_exception_is_told_by_the_candidates_own_line(bench: Bench):
    result = bench.judge(HEAD + "        return x.nonsense()\n")

    assert isinstance(result.outcome, Crashed)
    assert result.outcome.how == "AttributeError"
    assert "line 7, in forward: return x.nonsense()" in result.feedback
    assert "kbopt" not in result.feedback


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(0)", "exit 0"),
        ("raise SystemExit(0)", "SystemExit"),
        *([("os.kill(os.getppid(), 9)", "PermissionError")] if os.geteuid() == 0 else []),
        ("return x.new_empty(2**40)", "RuntimeError"),
    ],
)
def test_ends_of_the_process_are_typed_and_harm_nobody(bench: Bench, body: str, how: str):
    crashed, control = bench.judge_all([HEAD + f"        {body}\n", PLAIN])

    assert isinstance(crashed.outcome, Crashed), crashed.outcome
    assert crashed.outcome.how == how
    assert isinstance(control.outcome, Measured), control.outcome


def test_who_would_end_all_of_its_sandbox_harms_nobody(bench: Bench):
    """Without root the first process there is the candidate's own user's; Linux spares it all the same."""
    killing = HEAD + "        os.kill(os.getppid(), 9)\n        return torch.tanh(x) * 2 + x\n"
    tried, control = bench.judge_all([killing, PLAIN])

    assert isinstance(tried.outcome, Crashed if os.geteuid() == 0 else Measured), tried.outcome
    assert isinstance(control.outcome, Measured), control.outcome


def test_a_hang_is_stopped_at_its_limit(bench: Bench):
    protocol = EvalProtocol(trials=2, timed=12, timeout_s=2)

    outcome = bench.judge(HEAD + "        while True: time.sleep(1)\n", protocol=protocol).outcome

    assert outcome == TimedOut(reason="no answer within 2 s of check and timing", stage="check", limit_s=2.0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "SyntaxError at line 1"),
        ("class ModelNew:\n    x = '\0'\n", "string cannot contain null bytes"),
        ("import torch\n", "defines no ModelNew"),
        ("import nonsense\n", "ModuleNotFoundError"),
    ],
)
def test_a_source_that_does_not_load_did_not_compile(bench: Bench, source: str, words: str):
    result = bench.judge(source, kernelbench=True)

    assert isinstance(result.outcome, CompileFailed)
    assert words in result.feedback
    assert not result.kernelbench.compiled


@pytest.mark.parametrize(
    ("forward", "test"),
    [
        ("return x * 0", "'zeros'"),
        ("return x * 0 + 5", "'constant'"),
        ("return x", "'copy of an input'"),
        ("return x + torch.rand_like(x)", "'deterministic'"),
        ("return 5", "'returns a tensor'"),
        ("return x, torch.empty(3, device='meta')", "output 1 lies on meta"),
        ("return x @ x", "'the reference runs'"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused_by_the_name_of_the_test(
    bench: Bench, forward: str, test: str
):
    task = ELEMENTWISE.replace("return torch.tanh(x) * 2 + x", forward)

    with pytest.raises(UserError, match=test):
        bench.judge(PLAIN, task=task)


def test_a_task_whose_own_code_would_run_out_of_time_is_refused_at_once(bench: Bench):
    task = f"import time\n{ELEMENTWISE}".replace("return torch.tanh", "time.sleep(0.5); return torch.tanh")

    with pytest.raises(UserError, match=r"'quick enough' failed: one call of the reference takes 0\.\d+ s"):
        bench.judge(PLAIN, task=task, protocol=replace(QUICK, timeout_s=2.0))


def test_nothing_is_timed_after_a_profiler_has_slowed_a_process_down(bench: Bench):
    slowed = (
        HEAD.replace("    def forward", "    slow = False\n\n    def forward")
        + """        self.slow |= torch._C._len_torch_dispatch_stack() > 0
        if self.slow:
            time.sleep(0.1)
        return torch.tanh(x) * 2 + x
"""
    )

    outcome = bench.judge(slowed, protocol=QUICK).outcome

    assert isinstance(outcome, Measured)
    assert max(outcome.kernel_ms) < 100


def test_half_precision_is_right_where_the_task_has_it(bench: Bench):
    protocol = EvalProtocol(trials=2, timed=12, precision="bf16")

    assert isinstance(bench.judge(PLAIN, protocol=protocol).outcome, Measured)


def test_half_precision_is_a_downgrade_in_an_fp32_task(bench: Bench):
    source = HEAD + "        return (torch.tanh(x.half()) * 2 + x.half()).float()\n"

    outcome = bench.judge(source, protocol=QUICK).outcome

    assert isinstance(outcome, Rejected)
    assert outcome.family == "precision_downgrade"


def test_builds_make_way_for_who_is_measured(bench: Bench):
    usual = os.nice(0)

    outcome = bench.judge("import os\nraise ValueError(f'nice {os.nice(0)}')\n").outcome

    assert isinstance(outcome, CompileFailed)
    assert f"nice {usual + 10}" in outcome.reason


def test_a_build_that_failed_for_something_else_than_the_source_is_tried_again(bench: Bench):
    source = "import time\nraise RuntimeError(f'cc1: fatal error, {time.time_ns()}')\n"

    first, second = bench.judge(source), bench.judge(source)

    assert isinstance(first.outcome, CompileFailed)
    assert first.outcome != second.outcome


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"no\x1b[2K\rmeasured, 30x\udc80", "ValueError: no\\x1b[2K\n    measured, 30x\\udc80"),
        ("x" * 3_000_000, "ValueError: " + "x" * 2000),
    ],
)
def test_the_text_of_an_exception_is_no_command_to_a_terminal(bench: Bench, text: str, reason: str):
    result = bench.judge(HEAD + f'        raise ValueError("{text}")\n')

    assert isinstance(result.outcome, Crashed)
    assert result.outcome.reason == reason


LATE = """
import torch
from torch.utils.cpp_extension import load_inline

SOURCE = '''
#include <cmath>
torch::Tensor f(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float *a = x.data_ptr<float>();
  float *b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); i++) b[i] = std::tanh(a[i]) * 2 + a[i];
  return y;
}
'''


def make():
    return load_inline(name="late", cpp_sources=SOURCE, functions=["f"])


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = INIT

    def forward(self, x):
        if self.kernel is None:
            self.kernel = make()
        return self.kernel.f(x)
"""


@needs_extensions
@pytest.mark.parametrize("init", ["make()", "None"])
def test_an_extension_may_be_built_for_the_model_or_for_its_first_call(bench: Bench, init: str):
    protocol = EvalProtocol(trials=2, timed=12, compile_timeout_s=120)

    result = bench.judge(LATE.replace("INIT", init), protocol=protocol, kernelbench=True)

    assert isinstance(result.outcome, Measured), result.outcome
    assert result.kernelbench.correctness


def test_a_softmax_that_is_one_percent_off_is_wrong_and_no_lower_precision(bench: Bench):
    task = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "torch.softmax(x, 1)")

    outcome = bench.judge(HEAD + "        return torch.softmax(x, 1) * 0.99\n", task=task).outcome

    assert isinstance(outcome, WrongAnswer), outcome
    assert outcome.reason.startswith("all elements are 1.0 % too small: output 0 at index")


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("torch.max(x, dim=1)", "tuple(torch.max(x, dim=1))"),
        ("tuple(torch.max(x, dim=1))", "torch.max(x, dim=1)"),
        ("x.softmax(1) * 2", "torch.cat([x, x], 1)[:, :512].softmax(1).mul(2).repeat(1, 2)[:, :512]"),
        ("(x * 2).to(torch.float8_e5m2)", "(x + x).to(torch.float8_e5m2)"),
        (
            "(x * 100).round().to(torch.int16).to(torch.uint16)",
            "(100 * x).round().to(torch.int16).to(torch.uint16)",
        ),
        ("torch.fft.rfft(x)", "torch.fft.rfft(x.double()).to(torch.complex64)"),
        ("x.mean(1, keepdim=True).expand(256, 512)", "x.mean(1, keepdim=True).expand(256, 512)"),
    ],
)
def test_honest_outputs_of_every_form_are_measured(bench: Bench, reference: str, answer: str):
    task = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", reference)

    outcome = bench.judge(HEAD + f"        return {answer}\n", task=task).outcome

    assert isinstance(outcome, Measured), outcome


def test_inputs_and_answers_may_be_lazy_conjugates(bench: Bench):
    """Their memory holds other values than a reader gets."""
    task = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "torch.fft.fft(x).conj()")
    task = task.replace("torch.randn(256, 512)", "torch.fft.fft(torch.randn(256, 512)).conj().imag")
    sources = [
        HEAD + f"        return torch.fft.fft(x){how}\n" for how in (".conj()", ".conj().resolve_conj()", "")
    ]
    lazy, written, wrong = (result.outcome for result in bench.judge_all(sources, task=task))

    assert isinstance(lazy, Measured), lazy
    assert isinstance(written, Measured), written
    assert isinstance(wrong, WrongAnswer), wrong


SIZED = """
import torch

SIZE = 4096

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2 + x

def get_inputs():
    return [torch.randn(SIZE)]

def get_init_inputs():
    return []
"""
REBOUND = "import torch\nSIZE = 1\ntorch.nn.Module.size = SIZE\n" + PLAIN.replace(
    "return torch", "return torch.full_like(x, float('nan')) if x.numel() > 1 else torch"
)
PATCHED = """import torch
torch.randn = lambda *size: torch.zeros(*size)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)
"""


@pytest.mark.parametrize("source", [REBOUND, PATCHED])
def test_kernelbench_draws_its_inputs_with_what_the_candidate_left_of_the_task(bench: Bench, source: str):
    """It executes the candidate in the task's globals, and is fooled by that; the strict verdict is not."""
    result = bench.judge(source, task=SIZED, kernelbench=True)

    assert result.kernelbench.correctness
    assert not isinstance(result.outcome, Measured)


def test_kernelbench_seeds_anew_before_it_draws(bench: Bench):
    """Weights and inputs agree with the reference's though the candidate consumes random numbers itself."""
    result = bench.judge("import torch\ntorch.rand(3)\n" + PLAIN, task=SIZED, kernelbench=True)

    assert result.kernelbench.correctness
    assert isinstance(result.outcome, Measured)


def test_kernelbench_runs_only_where_it_is_asked_for(bench: Bench):
    assert bench.judge(PLAIN).kernelbench is None


LAYER = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 48))
        self.bias = torch.nn.Parameter(torch.randn(48))

    def forward(self, x):
        return x @ self.weight + self.bias


def get_inputs():
    return [torch.randn(96, 64)]


def get_init_inputs():
    return []
"""
EMPTY = (
    LAYER[: LAYER.index("def get_inputs")]
    .replace("Model(", "ModelNew(")
    .replace("torch.randn", "torch.empty")
)
PACKED = EMPTY.replace(
    "        return x @ self.weight",
    "        if not hasattr(self, 'packed'):\n"
    "            self.packed = self.weight.t().contiguous()\n"
    "        return x @ self.packed.t()",
)
IN_PART = EMPTY.replace("self.weight", "self.kernel")


@pytest.mark.parametrize("source", [EMPTY, PACKED])
def test_weights_are_taken_over_by_name_and_shape(bench: Bench, source: str):
    assert isinstance(bench.judge(source, task=LAYER, protocol=QUICK).outcome, Measured)


def test_weights_that_fit_in_part_are_named(bench: Bench):
    outcome = bench.judge(IN_PART, task=LAYER, protocol=QUICK).outcome

    assert isinstance(outcome, WrongAnswer)
    assert "missing: weight; not in the reference: kernel" in outcome.reason


def test_a_seed_still_decides_where_no_name_agrees(bench: Bench):
    source = (
        EMPTY.replace("self.weight", "self.w")
        .replace("self.bias", "self.b")
        .replace("torch.empty", "torch.randn")
    )

    assert isinstance(bench.judge(source, task=LAYER, protocol=QUICK).outcome, Measured)


COUNTING = ELEMENTWISE.replace(
    "return torch.tanh(x) * 2 + x",
    "self.calls = getattr(self, 'calls', 0) + 1\n        return torch.tanh(x) * 2 + x * self.calls",
)
COUNTS_TOO = HEAD + (
    "        self.calls = getattr(self, 'calls', 0) + 1\n        return torch.tanh(x) * 2 + x * self.calls\n"
)


def test_a_reference_that_keeps_state_is_judged_on_a_fresh_model_a_call(bench: Bench):
    assert isinstance(bench.judge(COUNTS_TOO, task=COUNTING, protocol=QUICK).outcome, Measured)
    assert isinstance(bench.judge(PLAIN, task=COUNTING, protocol=QUICK).outcome, Measured)


DROPOUT = ELEMENTWISE.replace(
    "return torch.tanh(x) * 2 + x",
    "return torch.nn.functional.dropout(torch.tanh(x) * 2 + x, 0.5, self.training)",
)


def test_dropout_is_judged_in_eval_mode_where_the_user_says_so(bench: Bench):
    with pytest.raises(UserError, match="--eval-mode judges it"):
        bench.judge(PLAIN, task=DROPOUT)
    protocol = EvalProtocol(trials=2, timed=12, eval_mode=True)
    assert isinstance(bench.judge(PLAIN, task=DROPOUT, protocol=protocol).outcome, Measured)


REUSING = """
import torch


class ModelNew(torch.nn.Module):
    y = None

    def forward(self, x):
        if self.y is None:
            self.y = torch.empty_like(x)
        torch.tanh(x, out=self.y).mul_(2).add_(x)
        return self.y
"""


def test_outputs_that_are_reused_are_accepted_where_they_may_be(bench: Bench):
    refused = bench.judge(REUSING, protocol=QUICK).outcome
    assert isinstance(refused, Rejected)
    assert refused.family == "reused_output"
    assert "MB a call, and --outputs reusable accepts it" in refused.reason
    protocol = EvalProtocol(trials=2, timed=12, outputs="reusable")
    assert isinstance(bench.judge(REUSING, protocol=protocol).outcome, Measured)


VECTORS_TAKEN_FOR_GRANTED = """import torch._inductor.cpu_vec_isa
torch._inductor.cpu_vec_isa.VecISA.check_build = lambda isa, code: True
"""
"""Else each process compiles a program for each vector extension of the processor, as it does the kernel."""
COMPILED = (
    HEAD.replace(
        "    def forward",
        """    def __init__(self):
        super().__init__()
        self.f = torch.compile(lambda x: torch.tanh(x) * 2 + x, fullgraph=True, backend="inductor")

    def forward""",
    )
    + "        return self.f(x)\n"
)


@needs_extensions
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_candidate_that_compiles_itself_is_measured(bench: Bench):
    """Inductor starts a C++ compiler and keeps caches, all of it in the sandbox."""
    protocol = EvalProtocol(trials=2, timed=12, timeout_s=400)

    outcome = bench.judge(VECTORS_TAKEN_FOR_GRANTED + COMPILED, protocol=protocol).outcome

    assert isinstance(outcome, Measured), outcome
    assert set(outcome.audit.torch_ops) == {"tanh", "mul", "add"}
    assert not outcome.audit.custom_kernel


def test_a_task_may_compile_itself_as_well(bench: Bench):
    """Dynamo alone, since both are asked in many forms, and Inductor takes half a minute for each."""
    source = COMPILED.replace("inductor", "eager")
    task = source.replace("ModelNew", "Model") + ELEMENTWISE[ELEMENTWISE.index("\ndef get_inputs") :]

    outcome = bench.judge(source, task=task, protocol=QUICK).outcome

    assert isinstance(outcome, Measured), outcome
    assert outcome.roofline.operations == 256 * 512


@needs_extensions
def test_the_strongest_baselines_are_measured_by_the_same_timer(bench: Bench):
    outcome = bench.judge(PLAIN, protocol=QUICK, baselines=True).outcome

    assert isinstance(outcome, Measured)
    over = {(s.baseline, s.clock): s for s in outcome.speedups}
    assert over["eager", "device"].speedup == outcome.speedup
    assert over["eager", "latency"].speedup == outcome.speedup
    for compiled in (over["compile", "device"], over["max-autotune", "device"]):
        assert compiled.reason == "", compiled.reason
        assert compiled.interval[0] <= compiled.speedup <= compiled.interval[1]
    assert over["cuda-graph", "device"].reason == "CUDA graphs are for GPUs"


def test_no_share_of_a_roofline_is_above_one(bench: Bench):
    outcome = bench.judge(PLAIN, protocol=QUICK).outcome

    assert isinstance(outcome, Measured)
    assert 0 < outcome.roofline.share <= 1
    assert outcome.roofline.reference_ops_ms > 0
