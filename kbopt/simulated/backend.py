"""A backend that judges points of a landscape, with the latencies and the faults of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest, Result, Seconds
from kbopt.core.outcomes import (
    Audit,
    CompileFailed,
    Crashed,
    Measured,
    Outcome,
    Roofline,
    TimedOut,
    WrongAnswer,
)
from kbopt.core.ports import BackendStatus
from kbopt.simulated.kernels import to_point
from kbopt.simulated.landscapes import OPTIMUM_SPEEDUP, Landscape, Point, landscape, stable_rng

DEVICE = "Simulated GPU"
REFERENCE_MS = 1.0
FLOOR_MS = REFERENCE_MS / OPTIMUM_SPEEDUP
NUM_SAMPLES = 5
LOSSES_IN_A_ROW = 2
"""How often one request finds the machine lost at most: a retry gets through in the end."""


class SimulatedBackend:
    """One device; requests of a batch are served one after another, `service_s` seconds each.

    A share `infra_failure_rate` of the requests loses the machine: `InfraError`, and none of the call's
    requests counts.
    """

    max_in_flight = 1

    def __init__(
        self, *, service_s: float = 0.0, max_batch: int = 8, infra_failure_rate: float = 0.0
    ) -> None:
        self.max_batch = max_batch
        self._service_s = service_s
        self._infra_failure_rate = infra_failure_rate
        self._device_free = asyncio.Lock()
        self._losses: dict[tuple[str, int], int] = {}
        self._opened = False
        self._boots = 0

    async def open(self) -> BackendStatus:
        if not self._opened:
            self._opened = True
            self._boots += 1
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        if not self._opened:
            raise InfraError("the simulated device is not open; call open() first")
        async with self._device_free:
            for request in requests:
                self._lose_sometimes(request)
            await asyncio.sleep(self._service_s * len(requests))
            return [
                judge(request, service_s=self._service_s, boot=f"simulated-{self._boots}")
                for request in requests
            ]

    async def status(self) -> BackendStatus:
        return BackendStatus(
            state="warm" if self._opened else "closed",
            device=DEVICE,
            boot=f"simulated-{self._boots}" if self._boots else "",
            age_s=0.0,
            cold_boots=tuple(f"simulated-{number + 1}" for number in range(self._boots)),
        )

    async def close(self) -> None:
        self._opened = False

    def _lose_sometimes(self, request: EvalRequest) -> None:
        key = (request.source, request.repeat)
        losses = self._losses.get(key, 0)
        unlucky = stable_rng("infra", *key, losses).random() < self._infra_failure_rate
        if unlucky and losses < LOSSES_IN_A_ROW:
            self._losses[key] = losses + 1
            raise InfraError("the simulated machine was lost")


def judge(request: EvalRequest, *, service_s: float = 0.0, boot: str = "simulated-1") -> Result:
    """The result of one request, the same for the same source and repeat."""
    terrain = landscape(request.task.name)
    outcome = _outcome(terrain, to_point(request.source), request)
    speed = f"{outcome.speedup:.3f} times as fast" if isinstance(outcome, Measured) else outcome.reason
    return Result(
        outcome=outcome,
        feedback=speed,
        device=DEVICE,
        protocol=request.protocol.id,
        boot=boot,
        seconds=Seconds(time=service_s),
        device_s=service_s,
    )


def _outcome(terrain: Landscape, point: Point | None, request: EvalRequest) -> Outcome:
    if point is None:
        return CompileFailed(reason="not a kernel of the simulation", lasting=True)
    match terrain.fault(point):
        case "compile_failed":
            return CompileFailed(reason="simulated compiler error", lasting=True)
        case "wrong_answer":
            return WrongAnswer(reason="simulated wrong answer")
        case "crashed":
            return Crashed(reason="simulated crash", how="SIGSEGV")
        case "timed_out":
            return TimedOut(reason="simulated hang", stage="check", limit_s=request.protocol.timeout_s)
    rng = stable_rng("noise", request.source, request.repeat)
    speedup = terrain.speedup(point) * float(rng.normal(1.0, terrain.noise))
    kernel_ms = REFERENCE_MS / speedup
    margin = 2.0 * terrain.noise * speedup
    return Measured(
        kernel_ms=(kernel_ms,) * NUM_SAMPLES,
        reference_ms=(REFERENCE_MS,) * NUM_SAMPLES,
        speedup=speedup,
        speedup_ci=(speedup - margin, speedup + margin),
        native_ms=kernel_ms,
        wall_ms=kernel_ms,
        audit=Audit(custom_kernel=True),
        roofline=Roofline(
            size_bytes=0,
            operations=0,
            floor_ms=FLOOR_MS,
            share=min(1.0, FLOOR_MS / kernel_ms),
            reference_ops_ms=0.0,
        ),
    )
