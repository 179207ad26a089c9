"""How candidates are judged, and by which speedup they are ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16"]
TorchOps = Literal["allow", "warn", "forbid"]
Arithmetic = Literal["default", "ieee", "tf32"]
Outputs = Literal["fresh", "reusable"]
Baseline = Literal["eager", "compile", "best"]
Clock = Literal["device", "latency"]
Verdict = Literal["strict", "kernelbench", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalProtocol:
    """How a candidate is judged. Two results are comparable when their `id`s and devices agree.

    `trials`: correctness checks, each on fresh inputs. `timed`: timed calls of either model.
    `arithmetic` is what fp32 tasks may compute in: PyTorch's `default` (fp32 products, TF32 in convolutions),
    `ieee` (no TF32) or `tf32` (TF32 everywhere); the reference runs so too. `outputs` says whether each call
    has to return memory of its own. `baseline` and `clock` choose the speedup that ranks: over eager PyTorch,
    `torch.compile` or the fastest baseline; by the device's work or by what one synchronised call takes.
    `eval_mode` runs both models after `Module.eval()`. With `backward` a call is forward and
    backward, and its gradients are outputs. `timeout_s` bounds check and timing together,
    `compile_timeout_s` the build before it; both are seconds of wall clock.
    """

    trials: int = 5
    timed: int = 100
    precision: Precision = "fp32"
    torch_ops: TorchOps = "warn"
    arithmetic: Arithmetic = "default"
    outputs: Outputs = "fresh"
    baseline: Baseline = "eager"
    clock: Clock = "device"
    eval_mode: bool = False
    backward: bool = False
    timeout_s: float = 60.0
    compile_timeout_s: float = 300.0

    @property
    def id(self) -> str:
        """Every field that can change a verdict: `rules`, and the limits of time."""
        return f"{self.rules}/{self.timeout_s:g}s+{self.compile_timeout_s:g}s"

    @property
    def rules(self) -> str:
        """Every field that can change the verdict of a candidate which is in time. The leading number is the
        version of the rules: docs/evaluation.md says when it is raised.
        """
        unusual = [
            value
            for value, usual in (
                (self.arithmetic, "default"),
                (f"{self.outputs}-outputs", "fresh-outputs"),
                (f"over-{self.baseline}", "over-eager"),
                (self.clock, "device"),
                ("eval-mode" if self.eval_mode else "", ""),
                ("backward" if self.backward else "", ""),
            )
            if value != usual
        ]
        parts = (self.precision, *unusual, f"{self.trials}x{self.timed}", f"torch-{self.torch_ops}")
        return "/".join(("strict-10", *parts))


def ranked_by(protocol: str) -> tuple[Baseline, Clock]:
    """What the protocol with this id ranks by."""
    parts = protocol.split("/")
    named = [baseline for baseline in get_args(Baseline) if f"over-{baseline}" in parts]
    return (named[0] if named else "eager"), ("latency" if "latency" in parts else "device")
