"""Loads sources as modules, as an import would: from a file, and with an entry in `sys.modules`.

Dataclasses, pickle and TorchScript look up a class's module by its name. `inspect`, TorchScript, Triton and
tracebacks read a function's lines from its file.
"""

from __future__ import annotations

import importlib.util
import io
import linecache
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from kbopt.core.workloads import workloads_of

_BYTE_ORDER_MARK = "\ufeff"


def parsed(source: str, file_name: str) -> CodeType:
    """Compile `source` without its byte order mark, as if read from a file. Raises what `compile` raises."""
    return compile(source.removeprefix(_BYTE_ORDER_MARK), file_name, "exec", dont_inherit=True)


def load_module(name: str, source: str, folder: Path) -> ModuleType:
    """Write `source` to `folder` and load it as module `name`. Raises what the source raises."""
    text = source.removeprefix(_BYTE_ORDER_MARK)
    path = folder / f"{name}.py"
    code = parsed(source, str(path))
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # An entry without a modification time stays valid when the file is gone.
    linecache.cache[str(path)] = (len(text), None, io.StringIO(text, newline=None).readlines(), str(path))
    exec(code, module.__dict__)
    return module


def first_inputs(task: ModuleType, source: str) -> Callable[[], Sequence[Any]]:
    """Return a function that draws inputs of the first workload of `task`, which was loaded from `source`."""
    return partial(task.get_inputs, **workloads_of(source)[0].arguments)


def load_task_module(source: str) -> ModuleType:
    """Load a task's source as module `task`, and delete its file."""
    with tempfile.TemporaryDirectory(prefix="kbopt-task-") as folder:
        return load_module("task", source, Path(folder))
