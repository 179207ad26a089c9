"""Landscapes with known optima: what a kernel's parameters are worth, without any kernel.

A point has `NUM_PARAMETERS` parameters of `NUM_LEVELS` levels, 4.3e9 points in all. Its speedup lies between
0.3 and the optimum's 3.0. First kernels are mediocre, as first answers of models are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kbopt.core.errors import unknown_name
from kbopt.core.task import Task

Shape = Literal["smooth", "rugged", "deceptive", "faulty"]
Point = tuple[int, ...]

NUM_PARAMETERS = 8
NUM_LEVELS = 16
OPTIMUM_SPEEDUP = 3.0
_FLOOR_SPEEDUP = 0.3
_TRAP_SPEEDUP = 1.8
_TRAP_CENTRE = 3
_OPTIMUM: Point = (13, 10, 14, 11, 12, 14, 10, 13)
_LEVELS_OF_FIRST_KERNELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """One landscape. `noise` is the relative standard deviation of a measurement's speedup.

    `fault_rate` is the share of points that do not work at all, always the same ones.
    """

    shape: Shape
    noise: float = 0.0
    fault_rate: float = 0.0

    @property
    def task(self) -> Task:
        source = f'"""A simulated task, {self.shape}: no kernel runs; see kbopt.simulated."""\n'
        return Task(name=f"sim/{self.shape}", source=source, family="simulated")

    def speedup(self, point: Point) -> float:
        """The true speedup of a point that works."""
        return _FLOOR_SPEEDUP + (OPTIMUM_SPEEDUP - _FLOOR_SPEEDUP) * self._quality(point)

    def fault(self, point: Point) -> str | None:
        """How a point fails, if it does: `compile_failed`, `wrong_answer`, `crashed` or `timed_out`."""
        rng = stable_rng("fault", self.shape, *point)
        if point == _OPTIMUM or rng.random() >= self.fault_rate:
            return None
        return str(rng.choice(["compile_failed", "wrong_answer", "crashed", "timed_out"]))

    def first_point(self, rng: np.random.Generator) -> Point:
        """Where a first kernel lies: anywhere in the lower half of every parameter."""
        return tuple(int(level) for level in rng.integers(_LEVELS_OF_FIRST_KERNELS, size=NUM_PARAMETERS))

    def _quality(self, point: Point) -> float:
        """Between 0 and 1, the latter at the optimum only."""
        near = _closeness(point, _OPTIMUM)
        match self.shape:
            case "smooth" | "faulty":
                return near
            case "rugged":
                return near * (0.6 + 0.4 * _ripple(point)) if point != _OPTIMUM else 1.0
            case "deceptive":
                trap = _closeness(point, (_TRAP_CENTRE,) * NUM_PARAMETERS)
                height = (_TRAP_SPEEDUP - _FLOOR_SPEEDUP) / (OPTIMUM_SPEEDUP - _FLOOR_SPEEDUP)
                return max(near**6, height * trap)


LANDSCAPES: dict[str, Landscape] = {
    f"sim/{landscape.shape}": landscape
    for landscape in (
        Landscape(shape="smooth"),
        Landscape(shape="rugged", noise=0.01),
        Landscape(shape="deceptive"),
        Landscape(shape="faulty", noise=0.03, fault_rate=0.35),
    )
}


def landscape(name: str) -> Landscape:
    """The landscape of task `name`; raises `UserError` for a task that is not simulated."""
    if name not in LANDSCAPES:
        raise unknown_name("simulated task", name, LANDSCAPES)
    return LANDSCAPES[name]


def stable_rng(*what: object) -> np.random.Generator:
    """A generator that depends on `what` alone, in every process and on every machine."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _closeness(point: Sequence[int], centre: Sequence[int]) -> float:
    """1 at `centre`, falling like a Gaussian with the squared distance in levels."""
    squares = sum((a - b) ** 2 for a, b in zip(point, centre, strict=True))
    return math.exp(-squares / (2.0 * NUM_PARAMETERS * 4.0**2))


def _ripple(point: Point) -> float:
    """Between 0 and 1, with a local maximum wherever neighbouring parameters agree modulo three."""
    pairs = zip(point, (*point[1:], point[0]), strict=True)
    return sum(0.5 + 0.5 * math.cos(2.0 * math.pi * (a - b) / 3.0) for a, b in pairs) / NUM_PARAMETERS
