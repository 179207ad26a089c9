"""What one call has to do, counted on the CPU with literal numbers."""

from collections import defaultdict
from typing import get_args

import pytest
import torch

from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.roofline import _TFLOPS, Arithmetic, arithmetic_of, device_peaks, work_of

LAYER = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(32, 16, bias=False)

    def forward(self, x):
        return torch.relu(self.layer(x))


def get_inputs():
    return [torch.rand(8, 32)]


def get_init_inputs():
    return []
"""


def _reference(precision: Precision = "fp32", *, tf32: bool = False) -> Reference:
    protocol = EvalProtocol(precision=precision, arithmetic="tf32" if tf32 else "default")
    return Reference(LAYER, protocol, torch.device("cpu"), 0)


@pytest.mark.parametrize(("tf32", "arithmetic"), [(False, "fp32"), (True, "tf32")])
def test_bytes_and_operations_of_a_layer(tf32: bool, arithmetic: Arithmetic) -> None:
    reference = _reference(tf32=tf32)
    work = work_of(reference, reference.draw(0))
    limits = work.limits
    assert limits.size_bytes == 4 * (8 * 32 + 16 * 32 + 8 * 16)
    assert limits.operations == 2 * 8 * 32 * 16
    bandwidth, peak = device_peaks("cpu", arithmetic)
    assert limits.floor_ms == pytest.approx(1000 * limits.size_bytes / bandwidth)
    assert limits.operations_ms == pytest.approx(1000 * limits.operations / peak)
    assert work.impossible_ms == 0


@pytest.mark.parametrize(
    ("precision", "tf32", "arithmetic"),
    [
        ("fp32", False, "fp32"),
        ("fp32", True, "tf32"),
        ("fp16", True, "fp16"),
        ("bf16", False, "bf16"),
    ],
)
def test_the_peak_is_that_of_the_arithmetic_allowed(
    precision: Precision, tf32: bool, arithmetic: str
) -> None:
    assert arithmetic_of(_reference(precision, tf32=tf32)) == arithmetic


def test_the_highest_of_a_few_measurements_of_a_cpu_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([(5e9, 2e11), (2e10, 1e11), (1e10, 1e11), (1e10, 1e11), (9e10, 9e11)])
    monkeypatch.setattr(roofline, "_peaks_now", lambda _device, _arithmetic: next(measured))
    monkeypatch.setattr(roofline, "_measured", defaultdict(list))
    assert device_peaks("cpu", "fp32") == (5e9, 2e11)
    assert device_peaks("cpu", "fp32") == (5e9, 2e11)
    reference = _reference()
    floors = [work_of(reference, reference.draw(0)).limits.floor_ms for _ in range(6)]
    assert floors == [pytest.approx(1000 * 3584 / 2e10)] * 6
    assert device_peaks("cpu", "fp32") == (2e10, 2e11)
    assert next(measured) == (9e10, 9e11)  # Not asked for.


def test_every_device_has_a_peak_for_every_arithmetic() -> None:
    for peaks in _TFLOPS.values():
        assert set(peaks) == set(get_args(Arithmetic))
        assert peaks["fp32"] <= peaks["tf32"] <= peaks["fp16"] == peaks["bf16"]
