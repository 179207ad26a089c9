"""Finds matrix instructions in a build's machine code. They show half precision and TF32 that outputs hide.

This runs in a sandboxed child, because a candidate's files are not trusted. PTX is read as text, cubins and
libraries by `cuobjdump`, which both CUDA and Triton contain.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kbopt.evaluation.messages import Arithmetic, Dissect
from kbopt.evaluation.transport.channel import Channel

MAX_FOUND = 10
"""Findings in a build at most."""
_DISASSEMBLY_S = 30.0
"""Seconds to disassemble one file."""
_HEAD_BYTES = 4096
"""Bytes from a file's start that show its kind: PTX names its target within the first few hundred."""
_MAX_TEXT_BYTES = 256 * 2**20
"""Bytes of a file of PTX, or of what a tool prints, that are searched: more takes minutes."""
_SASS = re.compile(
    rb"\b(?:HMMA|HGMMA|QMMA|QGMMA|OMMA)\.[\w.]+|\bF2FP?\.(?:B?F16|E4M3|E5M2)[\w.]*|\b[HB]MUL2[\w.]*"
)
_PTX = re.compile(
    rb"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)[\w.:]+|\bcvt\.rn[\w.]*\.(?:bf16|f16)(?:x2)?\.f32"
)


def inspect(channel: Channel) -> None:
    """Answer `Dissect` with one line for each kind of instruction in the folder's files.

    A line is `half: INSTRUCTION in FILE` or `tf32: INSTRUCTION in FILE`. There are at most `MAX_FOUND`.
    """
    job: Dissect = channel.receive(Dissect)
    folder = Path(job.folder)
    found: dict[str, None] = {}
    for file, instruction in _instructions(folder):
        found[f"{_kind(instruction)}: {instruction} in {file.name}"] = None
        if len(found) >= MAX_FOUND:
            break
    channel.send(Arithmetic(found=tuple(found)))


def _instructions(folder: Path) -> Iterator[tuple[Path, str]]:
    tool = disassembler()
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if b".target sm_" in head:
                text, pattern = head + stream.read(_MAX_TEXT_BYTES), _PTX
            elif head.startswith(b"\x7fELF") and tool is not None:
                text, pattern = printed([tool, "-sass", str(file)]), _SASS
            else:
                continue
        for instruction in dict.fromkeys(match.decode() for match in pattern.findall(text)):
            yield file, instruction


def printed(command: list[str]) -> bytes:
    """Return what a disassembler prints, or nothing if it cannot run or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_DISASSEMBLY_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout[:_MAX_TEXT_BYTES]


def disassembler() -> str | None:
    """Return the path of `cuobjdump`, on PATH or in Triton's package, or None."""
    if found := shutil.which("cuobjdump"):
        return found
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(bundled) if bundled.exists() else None


def _kind(instruction: str) -> str:
    """Return `tf32` if the instruction names it, else `half`: all others take half precision or less."""
    return "tf32" if "TF32" in instruction.upper() else "half"
