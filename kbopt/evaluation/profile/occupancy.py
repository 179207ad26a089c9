"""Theoretical occupancy: the share of a multiprocessor's warps that a kernel can use.

The limits are those of the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
Clusters are not considered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kbopt.core.profile import Launch

_WARP = 32
"""Threads in a warp."""
_SCHEDULERS = 4
"""Granularity of warps: the registers are divided among four schedulers."""
_REGISTERS_AT_ONCE = 256
"""Granularity of a warp's registers."""
_MOST_BLOCK_THREADS = 1024
"""Threads of a block at most, on every compute capability (CUDA C++ Programming Guide)."""


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """The limits of a multiprocessor.

    The system reserves `reserved_bytes` of shared memory for each block. Shared memory is granted in units of
    `unit_bytes`.
    """

    warps: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int = 1024
    unit_bytes: int = 128
    registers: int = 65536


_KIB = 1024
MULTIPROCESSORS = {
    "7.0": Multiprocessor(64, 32, 96 * _KIB, 0, 256),
    "7.5": Multiprocessor(32, 16, 64 * _KIB, 0, 256),
    "8.0": Multiprocessor(64, 32, 164 * _KIB),
    "8.6": Multiprocessor(48, 16, 100 * _KIB),
    "8.7": Multiprocessor(48, 16, 164 * _KIB),
    "8.9": Multiprocessor(48, 24, 100 * _KIB),
    "9.0": Multiprocessor(64, 32, 228 * _KIB),
    "10.0": Multiprocessor(64, 32, 228 * _KIB),
    "12.0": Multiprocessor(48, 24, 100 * _KIB),
}
"""Limits by compute capability."""


def with_occupancy(launch: Launch, capability: str) -> Launch:
    """Return the launch with the share of warps that can be resident, and the resource that limits it.

    The latter is `registers`, `shared memory`, `blocks` or `warps`, or `launch` if not even one block fits.
    They are 0 and "" for an unknown compute capability such as "9.9".
    """
    most = MULTIPROCESSORS.get(capability)
    if most is None:
        return replace(launch, occupancy=0.0, limited_by="")
    threads = math.prod(launch.block)
    if not 1 <= threads <= _MOST_BLOCK_THREADS:
        return replace(launch, occupancy=0.0, limited_by="launch")
    warps = math.ceil(threads / _WARP)
    blocks = {"warps": most.warps // warps, "blocks": most.blocks}
    if launch.registers:  # 0 if not known.
        per_warp = _up(launch.registers * _WARP, _REGISTERS_AT_ONCE)
        of_a_scheduler = most.registers // per_warp // _SCHEDULERS
        blocks["registers"] = _SCHEDULERS * of_a_scheduler // warps
    if per_block := _up(launch.shared_bytes + most.reserved_bytes, most.unit_bytes):
        blocks["shared memory"] = most.shared_bytes // per_block
    limited_by = min(blocks, key=lambda name: blocks[name])
    if not blocks[limited_by]:
        return replace(launch, occupancy=0.0, limited_by="launch")
    return replace(launch, occupancy=blocks[limited_by] * warps / most.warps, limited_by=limited_by)


def _up(value: int, unit: int) -> int:
    return math.ceil(value / unit) * unit
