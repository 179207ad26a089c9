"""One candidate in a process of its own, for `benchmarks.lean_headers`; prints one JSON line.

build FILE SETUP DIRECTORY ARCH    import it; SETUP is empty for torch's own functions
check FILE SETUP TASK              run what was built against the task's reference on the GPU
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


def main() -> None:
    what, file, setup, where, arch = sys.argv[1:]
    commands = {
        "build": lambda: build(Path(file), setup, Path(where), arch),
        "check": lambda: check(Path(file), setup, Path(where)),
        "fresh": lambda: fresh(Path(file), Path(where), *arch.split(":", 1)),
    }
    print(json.dumps(commands[what]()))


def build(file: Path, setup: str, directory: Path, arch: str) -> dict[str, Any]:
    """Seconds inside `load_inline`; for other candidates the whole of import, constructor and forward."""
    from torch.utils import cpp_extension

    from kbopt.leanbuild import extensions, gpu_code, inline

    if setup:
        inline.install(extensions.Setup.decode(setup))
    else:
        directory.mkdir(parents=True, exist_ok=True)
        os.environ["TORCH_EXTENSIONS_DIR"] = str(directory)
        if arch:
            os.environ["TORCH_CUDA_ARCH_LIST"] = f"{arch}+PTX"
    spent: list[float] = []
    replaced = cpp_extension.load_inline

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return replaced(*args, **kwargs)
        finally:
            spent.append(time.monotonic() - started)

    cpp_extension.load_inline = timed
    started = time.monotonic()
    note = ""
    try:
        module = load(file, "candidate")
        if not file.name.startswith(("inline_", "cpp_")):
            with gpu_code.ahead_of_device(arch):
                run(module, task_of(file))
    except Exception:  # noqa: BLE001 - the candidate may raise anything; the note says what
        note = traceback.format_exc()[-500:]
    seconds = sum(spent) or time.monotonic() - started
    records = extensions.build_records(directory)
    tiers = ", ".join(f"{name} {s:.1f}" for record in records for name, s in record["attempts"].items())
    return {"ok": not note, "seconds": seconds, "tiers": tiers, "note": note}


def task_of(file: Path) -> Path:
    sources = Path(__file__).resolve().parent.parent / "kbopt" / "tasks" / "sources" / "matmul"
    return sorted(sources.glob("*.py"))[int(file.stem.split("_")[1])]


def run(candidate: ModuleType, task: Path) -> Any:
    import torch

    reference = load(task, "task")
    inputs = [
        value.to("cuda") if isinstance(value, torch.Tensor) else value for value in reference.get_inputs()
    ]
    return candidate.ModelNew(*reference.get_init_inputs()).to("cuda")(*inputs)


def check(file: Path, setup: str, task: Path) -> dict[str, Any]:
    """Whether the candidate agrees with the reference in float64, and how much was still compiled."""
    import torch

    from kbopt.leanbuild import extensions, inline

    inline.install(extensions.Setup.decode(setup))
    caches = Path(os.environ["TRITON_CACHE_DIR"]).parent
    before = set(caches.rglob("*"))
    started = time.monotonic()
    candidate = load(file, "candidate")
    reference = load(task, "task")
    torch.manual_seed(0)
    with torch.device("cuda"):
        inputs = reference.get_inputs()
    with torch.no_grad():
        model = candidate.ModelNew(*reference.get_init_inputs()).to("cuda")
        torch.cuda.synchronize()
        loaded_s = time.monotonic() - started
        output = model(*inputs)
        torch.cuda.synchronize()
        first_call_s = time.monotonic() - started - loaded_s
        expected = reference.Model(*reference.get_init_inputs()).to("cuda")(*inputs)
        error = ((output.double() - expected.double()).norm() / expected.double().norm()).item()
    compiled = sorted(path.name for path in set(caches.rglob("*")) - before if path.is_file())
    return {
        "ok": error < 1e-5,
        "error": error,
        "import_s": round(loaded_s, 2),
        "first_call_s": round(first_call_s, 2),
        "compiled_late": compiled[:8],
    }


def fresh(file: Path, directory: Path, arch: str, task: str) -> dict[str, Any]:
    """An evaluation as a pipeline without a service does it: inputs drawn on the CPU, L2 flushed per call."""
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(directory)
    os.environ["TORCH_CUDA_ARCH_LIST"] = f"{arch}+PTX"
    import torch

    reference, candidate = load(Path(task), "task"), load(file, "candidate")
    expected_model = reference.Model(*reference.get_init_inputs()).to("cuda")
    model = candidate.ModelNew(*reference.get_init_inputs()).to("cuda")
    right = True
    with torch.no_grad():
        for _ in range(5):
            inputs = [value.to("cuda") for value in reference.get_inputs()]
            right &= torch.allclose(model(*inputs), expected_model(*inputs), atol=1e-2, rtol=1e-2)
        cache = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
        for timed in (model, expected_model):
            for _ in range(104):
                cache.zero_()
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                timed(*inputs)
                end.record()
                torch.cuda.synchronize()
    return {"ok": right, "seconds": 0.0, "note": "" if right else "wrong answer"}


def extension_of(file: Path) -> Any:
    """What `file` asks of `load_inline`, without building it."""
    from torch.utils import cpp_extension

    from kbopt.leanbuild.inline import Loader

    seen: list[Any] = []
    originals = cpp_extension.load_inline, cpp_extension.load

    def remember(extension: Any) -> ModuleType:
        seen.append(extension)
        return ModuleType(extension.name)

    loader = Loader(remember, original_inline=originals[0], original_load=originals[1])
    cpp_extension.load_inline, cpp_extension.load = loader.load_inline, loader.load
    try:
        load(file, "candidate")
    finally:
        cpp_extension.load_inline, cpp_extension.load = originals
    (extension,) = seen
    return extension


def load(file: Path, name: str) -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
