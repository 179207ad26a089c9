"""A point of a landscape as the source of a kernel, and back."""

from __future__ import annotations

import re

from kbopt.simulated.landscapes import NUM_LEVELS, NUM_PARAMETERS, Point

NAMES = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M", "NUM_WARPS", "NUM_STAGES", "UNROLL", "VECTOR_WIDTH")
_LEVELS = ", ".join(str(level) for level in range(NUM_LEVELS))
_ASSIGNMENT = re.compile(r"^([A-Z_]+) = (\d+)\s*(?:#.*)?$", re.MULTILINE)


def to_source(point: Point) -> str:
    """A source whose `# tune:` comments say what the parameters may be."""
    parameters = [f"{name} = {level}  # tune: {_LEVELS}" for name, level in zip(NAMES, point, strict=True)]
    return "\n".join([*parameters, "", "class ModelNew:", "    pass", ""])


def to_point(source: str) -> Point | None:
    """The point that `source` describes, None if it is not a kernel of the simulation."""
    levels = dict(_ASSIGNMENT.findall(source))
    point = tuple(int(levels[name]) for name in NAMES if name in levels)
    return point if len(point) == NUM_PARAMETERS and max(point) < NUM_LEVELS else None
