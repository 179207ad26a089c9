"""Landscapes that do not ship, for `search_simulated.py --held-out`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kbopt.core.task import Task
from kbopt.simulated import Landscape
from kbopt.simulated.landscapes import NUM_PARAMETERS, Point, stable_rng

OPTIMUM: Point = (12, 9, 14, 8, 11, 13, 15, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Landscape):
    """A landscape by its `quality`, a function of the point between 0 and 1."""

    name: str
    quality: Callable[[Point], float]

    @property
    def task(self) -> Task:
        return Task(name=f"sim/{self.name}", source=f"# {self.name}\n", family="simulated")

    def _quality(self, point: Point) -> float:
        return self.quality(point)


def _gaussian(squares: float, width: float) -> float:
    return math.exp(-squares / (2.0 * NUM_PARAMETERS * width**2))


def narrow(point: Point) -> float:
    """A Gaussian three quarters as wide as the smooth landscape's."""
    return _gaussian(sum((a - b) ** 2 for a, b in zip(point, OPTIMUM, strict=True)), 3.0)


def terraced(point: Point) -> float:
    """Twelve steps: most changes of a parameter change nothing."""
    return round(_gaussian(sum((a - b) ** 2 for a, b in zip(point, OPTIMUM, strict=True)), 4.0) * 12) / 12


def coupled(point: Point) -> float:
    """Ridges: two parameters have to move against each other."""
    offsets = [a - b for a, b in zip(point, OPTIMUM, strict=True)]
    pairs = zip(offsets[::2], offsets[1::2], strict=True)
    return _gaussian(sum((a + b) ** 2 / 8 + (a - b) ** 2 for a, b in pairs), 4.0)


def random_pairs(point: Point) -> float:
    """Kauffman's NK with K = 1: what two neighbouring parameters are worth together is drawn at random."""
    pairs = zip(point, (*point[1:], point[0]), strict=True)
    worth = [stable_rng("pair", i, a // 2, b // 2).random() for i, (a, b) in enumerate(pairs)]
    return min(1.0, max(0.0, (sum(worth) / NUM_PARAMETERS - 0.3) / 0.6))


def slope(point: Point) -> float:
    """Every step towards the optimum is worth the same."""
    return 1.0 - sum(abs(a - b) for a, b in zip(point, OPTIMUM, strict=True)) / (12.0 * NUM_PARAMETERS)


HELD_OUT: dict[str, Landscape] = {
    landscape.task.name: landscape
    for landscape in (
        HeldOut(shape="smooth", name="narrow", quality=narrow),
        HeldOut(shape="smooth", name="terraced", quality=terraced, noise=0.01),
        HeldOut(shape="smooth", name="coupled", quality=coupled, noise=0.02),
        HeldOut(shape="smooth", name="random_pairs", quality=random_pairs, noise=0.01, fault_rate=0.2),
        HeldOut(shape="smooth", name="slope", quality=slope, noise=0.03, fault_rate=0.1),
    )
}
