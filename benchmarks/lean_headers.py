"""How much faster extensions build than with torch's own `load_inline`, and that their kernels are the same.

Both arms run in the same invocation on the same machine: each candidate under `benchmarks/candidates`
is imported in a new process, once with torch's function and once with kbopt's in its place, and the
seconds inside `load_inline` are compared. First one candidate alone, then all at once. With cuobjdump
the machine code of every kernel is compared between the arms; with a GPU every candidate is run against
its task's reference.

    python -m benchmarks.lean_headers                  # the C++ candidates, on any machine
    python -m benchmarks.lean_headers --arch 9.0       # the CUDA ones, on a machine with nvcc and that GPU
    python -m benchmarks.lean_headers --arch 9.0 --build-only --only inline_       # without the GPU

Without a CUDA build of torch, `--kernels` compiles the kernel files only, with each set of headers, and
compares their machine code (stand-ins for CUDA's library headers come from the tests).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CANDIDATES = ROOT / "benchmarks" / "candidates"
TASKS = ROOT / "kbopt" / "tasks" / "sources" / "matmul"
STUBS = ROOT / "tests" / "evaluation" / "compile" / "stubs"
BUILD_TIMEOUT_S = 400.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="", help="compute capability to build for, such as 9.0")
    parser.add_argument("--only", default="", help="regular expression on the candidates' file names")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--alone", default="inline_09", help="the candidate that is also built alone")
    parser.add_argument("--alone-arms", default="kbopt,torch")
    parser.add_argument("--build-only", action="store_true", help="run nothing: with nvcc and without a GPU")
    parser.add_argument("--kernels", action="store_true", help="only compile kernel files, and compare them")
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="lean-headers-"))
    pattern = arguments.only or (
        "inline_" if arguments.kernels else "inline_|triton_|nvrtc_" if arguments.arch else "cpp_"
    )
    files = [file for file in sorted(CANDIDATES.glob("*.py")) if re.search(pattern, file.name)]
    if arguments.kernels:
        compare_kernels(files, work)
    else:
        asyncio.run(compare_builds(files, arguments, work))


async def compare_builds(files: list[Path], arguments: argparse.Namespace, work: Path) -> None:
    from kbopt.leanbuild import bridge, extensions, store, toolchain

    tools = toolchain.detect(arch=arguments.arch)
    print(
        f"torch {tools.torch}, CUDA {tools.cuda or 'none'}, {platform.processor() or platform.machine()}, "
        f"{arguments.jobs} jobs, arch {arguments.arch or 'none'}",
        flush=True,
    )
    started = time.monotonic()
    library = bridge.ensure_bridge(store.Store(work / "store"), tools)
    print(f"bridge, once per installation of torch: {time.monotonic() - started:.1f} s", flush=True)

    def setup(directory: Path, mode: str) -> str:
        directory.mkdir(parents=True, exist_ok=True)
        return extensions.Setup(
            mode=mode, directory=str(directory), toolchain=tools, bridge=str(library)
        ).encode()

    inlines = [file for file in files if file.name.startswith(("inline_", "cpp_"))]
    others = [file for file in files if file not in inlines]
    alone = [file for file in inlines if file.name.startswith(arguments.alone)]
    for arm in arguments.alone_arms.split(","):
        for answer in await build_all(alone, arm, work / f"alone-{arm}", 1, setup, arguments.arch):
            print(f"alone, {alone[0].stem}, {arm}: {describe(answer)}", flush=True)

    seconds = {"kbopt": await build_batch(inlines, "kbopt", arguments, work, setup)}
    if arguments.arch:
        await build_batch(others, "kbopt", arguments, work, setup)
        if not arguments.build_only:
            await check_all(files, work / "kbopt", setup)
    seconds["torch"] = await build_batch(inlines, "torch", arguments, work, setup)
    ratios = [seconds["torch"][name] / seconds["kbopt"][name] for name in seconds["kbopt"]]
    print(
        f"seconds in load_inline, torch / kbopt: median {statistics.median(ratios):.1f}, "
        f"least {min(ratios):.1f}, most {max(ratios):.1f}",
        flush=True,
    )
    if shutil.which("cuobjdump") and arguments.arch:
        for file in inlines:
            compared = compare_machine_code(
                work / "kbopt" / file.stem, work / "torch" / file.stem, work / "cubins"
            )
            print(f"  machine code of {file.stem}: {compared}", flush=True)


async def build_batch(
    files: list[Path], arm: str, arguments: argparse.Namespace, work: Path, setup: Any
) -> dict[str, float]:
    """Builds all files at once and prints how it went; returns the seconds of each by name."""
    started = time.monotonic()
    answers = await build_all(files, arm, work / arm, arguments.jobs, setup, arguments.arch)
    print(
        f"{len(files)} at once, {arm}: {time.monotonic() - started:.1f} s wall, processes included",
        flush=True,
    )
    for file, answer in zip(files, answers, strict=True):
        print(f"  {file.stem}: {describe(answer)}", flush=True)
    return {file.stem: answer["seconds"] for file, answer in zip(files, answers, strict=True)}


async def build_all(
    files: list[Path], arm: str, work: Path, jobs: int, setup: Any, arch: str
) -> list[dict[str, Any]]:
    slots = asyncio.Semaphore(jobs)

    async def build(file: Path) -> dict[str, Any]:
        async with slots:
            directory = work / file.stem
            told = setup(directory, "build") if arm == "kbopt" else ""
            return await in_new_process("build", file, told, str(directory), arch)

    return await asyncio.gather(*(build(file) for file in files))


async def in_new_process(*arguments: object) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.lean_headers_worker", *map(str, arguments)),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), BUILD_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"ok": False, "seconds": BUILD_TIMEOUT_S, "note": "timed out"}
    lines = output.decode().splitlines()
    if process.returncode != 0 or not lines:
        return {"ok": False, "seconds": float("nan"), "note": errors.decode()[-600:]}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


async def check_all(files: list[Path], work: Path, setup: Any) -> None:
    """Runs every built candidate against its task's reference; what is compiled now came too late."""
    tasks = sorted(TASKS.glob("*.py"))
    slots = asyncio.Semaphore(8)

    async def check(file: Path) -> dict[str, Any]:
        async with slots:
            task = tasks[int(file.stem.split("_")[1])]
            return await in_new_process("check", file, setup(work / file.stem, "use"), task, "")

    for file, answer in zip(files, await asyncio.gather(*map(check, files)), strict=True):
        print(f"  {file.stem} on the GPU: {json.dumps(answer)}", flush=True)


def describe(answer: Mapping[str, Any]) -> str:
    mark = "ok" if answer["ok"] else "FAILED"
    return f"{mark} {answer['seconds']:.1f} s {answer.get('tiers', '')} {answer.get('note', '')}".rstrip()


def compare_machine_code(left: Path, right: Path, work: Path) -> str:
    """`same` and the number of kernels, or what differs, between the libraries under two directories."""
    kernels = []
    for number, directory in enumerate((left, right)):
        (library,) = directory.rglob("*.so")
        extracted = work / f"{left.name}-{number}"
        extracted.mkdir(parents=True)
        subprocess.run(
            ["cuobjdump", "-xelf", "all", str(library)], cwd=extracted, check=True, capture_output=True
        )
        kernels.append(
            {name: code for cubin in extracted.iterdir() for name, code in machine_code(cubin).items()}
        )
    return verdict(kernels[0], kernels[1])


def machine_code(cubin: Path) -> dict[str, bytes]:
    """The instructions of each kernel: the sections `.text.NAME` of a cubin, which is an ELF file."""
    data = cubin.read_bytes()
    table, entry_size, count, names_index = struct.unpack_from("<Q10xHHH", data, 40)
    sections = [struct.unpack_from("<IIQQQQ", data, table + i * entry_size) for i in range(count)]
    names_at = sections[names_index][4]
    code = {}
    for name_offset, _, _, _, offset, size in sections:
        name = data[names_at + name_offset : data.index(b"\0", names_at + name_offset)].decode()
        if name.startswith(".text."):
            code[without_file_hash(name.removeprefix(".text."))] = data[offset : offset + size]
    return code


def without_file_hash(name: str) -> str:
    """Names in anonymous namespaces carry a hash of the file's path, which differs between directories."""
    return re.sub(r"_GLOBAL__N__[0-9a-f]+_\d*_?\w+?_cu_[0-9a-f]+(_\d+)?", "ANONYMOUS", name)


def verdict(left: Mapping[str, bytes], right: Mapping[str, bytes]) -> str:
    if not left:
        return "NO KERNELS"
    if left == right:
        return f"same, {len(left)} kernels"
    return f"DIFFERS: {sorted(left)} and {sorted(right)}"


def compare_kernels(files: list[Path], work: Path) -> None:
    """Seconds of nvcc's device passes for each set of headers, and whether the machine code is equal."""
    from benchmarks.lean_headers_worker import extension_of
    from kbopt.leanbuild import builder, toolchain

    tools = toolchain.detect(arch="9.0")
    os.environ["TORCH_CUDA_ARCH_LIST"] = "9.0"
    for file in files:
        extension = extension_of(file)
        found: dict[str, dict[str, bytes]] = {}
        for tier in builder.TIERS:
            directory = work / file.stem / tier
            directory.mkdir(parents=True)
            commands = builder.compile_commands(extension, directory, tools, tier)
            command = next(c for c, unit in zip(commands, extension.units, strict=True) if unit.is_cuda)
            target = directory / "kernels.cubin"
            started = time.monotonic()
            answer = subprocess.run(
                cubin_command(command, target), capture_output=True, text=True, check=False
            )
            note = "" if answer.returncode == 0 else f"failed: {answer.stderr[:200]}"
            print(f"{file.stem} {tier}: {time.monotonic() - started:.1f} s {note}", flush=True)
            if answer.returncode == 0:
                found[tier] = machine_code(target)
        for tier in ("slim", "core"):
            if tier in found:
                print(f"{file.stem} {tier} and full: {verdict(found[tier], found['full'])}", flush=True)


def cubin_command(command: list[str], target: Path) -> list[str]:
    """An nvcc command as `builder` makes it, ending at the device's machine code."""
    kept = [word for word in command if not word.startswith("-gencode")]
    kept[kept.index("-c")] = "-cubin"
    kept[kept.index("-o") + 1] = str(target)
    return [*kept, "-arch=sm_90", "-isystem", str(STUBS)]


if __name__ == "__main__":
    main()
