"""Solutions of SOL-ExecBench and FlashInfer-Bench, and C++ and CUDA with a launcher, as Python sources."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from kbopt.tasks.formats import modules, templates
from kbopt.tasks.formats.model import fault
from kbopt.tasks.formats.templates import quoted

_SOURCES = (".cu", ".cpp", ".cc", ".cxx", ".c")
_HEADERS = (".cuh", ".h", ".hpp", ".inl")
C_ENDINGS = (*_SOURCES, *_HEADERS)
_LAUNCHER = re.compile(
    r"^(?!static\b|__global__|__device__)(?:extern\s+\"C\"\s+)?"
    r"(?P<result>(?:std::(?:vector|tuple)<[^;{}()]*>|(?:torch|at)::Tensor|void))\s+"
    r"(?P<name>\w+)\s*\((?P<arguments>[^;{}]*?Tensor[^;{}]*?)\)\s*\{",
    re.MULTILINE,
)
_FLAGS = {"cflags": "extra_cflags", "cuda_cflags": "extra_cuda_cflags", "ld_flags": "extra_ldflags"}
"""The fields of compile_options, and what PyTorch's loaders call them."""
_FIRST = ("run", "custom_kernel", "forward")
"""Names of launchers, of which the first that is there is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Python text that defines `function`.

    `writes`: to its last arguments; None where that is not said. `tensors` says of each parameter of a C++
    function that returns tensors whether it is one: then `writes` is no more than what its type suggests.
    """

    text: str
    function: str
    writes: bool | None
    tensors: tuple[bool, ...] = ()


def is_solution(text: str) -> bool:
    """Whether the text is a solution in JSON, and no Python."""
    return text.lstrip().startswith("{") and '"sources"' in text and '"spec"' in text


def read_solution(text: str, where: str) -> Kernel:
    """The kernel of a solution in JSON. Raises `UserError`, which names the file and the field."""
    try:
        raw = json.loads(text)
        spec, sources = raw["spec"], raw["sources"]
        entry = str(spec["entry_point"])
        files = _files(sources, where)
    except (ValueError, RecursionError) as error:
        raise fault(where, f"no JSON, {error}", "A solution is one JSON object") from None
    except KeyError as error:
        raise fault(
            f"{where}, {error.args[0]}",
            "this field is missing",
            "A solution has spec.entry_point, and sources with path and content each",
        ) from None
    except TypeError:
        raise fault(
            where, "no solution", "It has an object spec, and a list sources of path and content each"
        ) from None
    path, _, function = entry.partition("::")
    if path not in files or not function.isidentifier():
        raise fault(
            f"{where}, spec.entry_point",
            f"{entry!r}",
            f"It is FILE::FUNCTION, with a file of sources: {', '.join(files) or 'none'}",
        )
    writes = spec.get("destination_passing_style")
    if not isinstance(writes, bool | None):
        raise fault(f"{where}, spec.destination_passing_style", f"{writes!r:.40}", "It is true or false")
    ending = PurePosixPath(path).suffix
    if ending == ".py":
        text = _python(files, path, where)
        bound = {name for node in ast.parse(text).body for name in templates.bound(node)}
        if not bound & {function, "*"}:
            raise fault(
                f"{where}, spec.entry_point", f"{path} defines no {function}", "Name a function of that file"
            )
        return Kernel(text=text, function=function, writes=writes)
    if ending not in C_ENDINGS:
        raise fault(f"{where}, spec.entry_point", f"{path}", f"Allowed: .py, {', '.join(C_ENDINGS)}")
    kernel = extension(files, path, function, where, options=_options(spec, where))
    if writes is None:  # The format's default, unless the function's type says what it does.
        return replace(kernel, writes=kernel.writes is not False)
    return Kernel(text=kernel.text, function=function, writes=writes)


def _files(sources: Any, where: str) -> dict[str, str]:
    """The sources' texts by their paths, each within the solution's folder."""
    files: dict[str, str] = {}
    for number, source in enumerate(sources):
        path, content = source["path"], source["content"]
        said = f"{where}, sources[{number}]"
        if not isinstance(path, str) or not isinstance(content, str):
            raise fault(said, "path and content are not both text", "Write a path and the text of its file")
        place = PurePosixPath(path)
        if not path or place.is_absolute() or ".." in place.parts:
            raise fault(f"{said}.path", f"{path!r}", "It is a path within the solution, such as src/main.py")
        if path in files:
            raise fault(f"{said}.path", f"{path!r} is there twice", "Give each file a path of its own")
        files[path] = content
    return files


def _options(spec: Mapping[str, Any], where: str) -> Mapping[str, list[str]]:
    """The lists of flags in `compile_options`."""
    options = spec.get("compile_options") or {}
    said = f"{where}, spec.compile_options"
    if not isinstance(options, dict):
        raise fault(said, f"{options!r:.40}", f"It is an object of lists: {', '.join(_FLAGS)}")
    for name in _FLAGS:
        flags = options.get(name)
        if flags is not None and not (isinstance(flags, list) and all(isinstance(one, str) for one in flags)):
            raise fault(f"{said}.{name}", f"{flags!r:.40}", 'It is a list of flags, such as ["-O3"]')
    return options


def _python(files: Mapping[str, str], entry: str, where: str) -> str:
    others = [path for path in files if not path.endswith(".py")]
    if others:
        raise fault(f"{where}, sources", f"{others[0]} is no Python", "Put its text into a .py file")
    names = {path: ".".join(PurePosixPath(path).with_suffix("").parts) for path in files}
    texts = {name.removesuffix(".__init__"): files[path] for path, name in names.items()}
    return modules.joined(texts, names[entry], where)


def extension(
    files: Mapping[str, str],
    entry: str,
    function: str,
    where: str,
    *,
    options: Mapping[str, list[str]] | None = None,
) -> Kernel:
    """C++ and CUDA files as a Python text that builds them by PyTorch's loader when it is imported.

    `function` is the one to call, found in the text where it is empty. Files without `PYBIND11_MODULE` get a
    binding of it. Raises `UserError` where no function takes tensors.
    """
    whole = "\n".join(files.values())
    bound = "PYBIND11_MODULE" in whole
    if "TVM_FFI" in whole and not bound:
        raise fault(where, "it is bound by TVM FFI", "kbopt builds bindings of torch: use PYBIND11_MODULE")
    launchers = {found["name"]: found for found in _LAUNCHER.finditer(files[entry])}
    if not function:
        function = next((name for name in (*_FIRST, *launchers) if name in launchers), "")
        if function not in _FIRST and len(launchers) != 1:
            raise fault(
                where,
                f"functions that take tensors: {', '.join(launchers) or 'none'}",
                "Have one, called run: torch::Tensor run(torch::Tensor x, ...)",
            )
    found = launchers.get(_behind_binding(whole, function))
    if found is None and not bound:
        raise fault(
            f"{where}, {function}",
            "no such function that takes tensors",
            f"Define it in {entry}, at its top level",
        )
    result = found["result"] if found else _result_of(whole, _behind_binding(whole, function))
    writes = result == "void" if result else None
    binding = None if bound or found is None else f"{found[0].rstrip('{').strip()};"
    flags = _flags(options or {})
    if len(files) == 1:
        text = _inlined(files[entry], entry, function, binding, flags)
    else:
        text = _loaded(files, function, binding, flags)
    return Kernel(
        text=f"{text}\n{function} = _extension.{function}\n",
        function=function,
        writes=writes,
        tensors=() if found is None or writes else tuple(map(_is_tensor, _parameters(found["arguments"]))),
    )


def _behind_binding(text: str, function: str) -> str:
    """The name of the C++ function that `m.def("function", &name)` binds, else `function`."""
    found = re.search(rf'\bdef\(\s*"{function}"\s*,\s*&?\s*([\w:]+)', text)
    return found[1].rpartition("::")[2] if found else function


def _result_of(text: str, name: str) -> str:
    """The type that a C++ function returns, whatever it takes; "" where none is found or it is deduced."""
    words = r"(?:static\s+|inline\s+)*(?P<result>[\w:<>, \t]+?)[\s&*]+"
    found = re.search(rf"^[ \t]*{words}{name}\s*\([^;{{}}]*\)\s*\{{", text, re.MULTILINE)
    return found["result"] if found and found["result"] != "auto" else ""


def _parameters(text: str) -> list[str]:
    """The parameters of a C++ function, apart at the commas that no bracket encloses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "<({[") - (letter in ">)}]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is_tensor(parameter: str) -> bool:
    return re.match(r"\s*(const\s+)?([\w:]*optional\s*<\s*)?(\w+::)?Tensor\b", parameter) is not None


def _flags(options: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """A solution's compile_options as keywords of PyTorch's loaders."""
    return {keyword: options[name] for name, keyword in _FLAGS.items() if options.get(name)}


def _inlined(
    text: str, entry: str, function: str, binding: str | None, flags: Mapping[str, list[str]]
) -> str:
    is_cuda = PurePosixPath(entry).suffix in (".cu", ".cuh")
    declared = quoted(f"{binding}\n") if binding and is_cuda else '""'
    lines = [
        "from torch.utils.cpp_extension import load_inline",
        "",
        f"_SOURCE = {quoted(text)}",
        "_extension = load_inline(",
        f'    name="kernel_{_key({entry: text})}",',
        *(
            (f"    cpp_sources={declared},", "    cuda_sources=_SOURCE,")
            if is_cuda
            else ("    cpp_sources=_SOURCE,",)
        ),
        *((f'    functions=["{function}"],',) if binding else ()),
        *(f"    {name}={value!r}," for name, value in flags.items()),
        ")",
    ]
    return "\n".join(lines)


def _loaded(
    files: Mapping[str, str], function: str, binding: str | None, flags: Mapping[str, list[str]]
) -> str:
    """The files lie in a folder whose name depends on their text alone, so that builds are found again."""
    texts = dict(files)
    if binding:
        texts["binding.cpp"] = _BINDING.format(binding=binding, function=function)
    written = "".join(f"    {path!r}: {quoted(text)},\n" for path, text in texts.items())
    sources = [path for path in texts if PurePosixPath(path).suffix in _SOURCES]
    keywords = "".join(f"    {name}={value!r},\n" for name, value in flags.items())
    return _LOADED.format(files=written, key=_key(texts), sources=sources, keywords=keywords)


def _key(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:16]


_BINDING = """#include <torch/extension.h>

{binding}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {{
    m.def("{function}", &{function});
}}
"""
_LOADED = """import pathlib
import tempfile

from torch.utils.cpp_extension import load

_FILES = {{
{files}}}
_FOLDER = pathlib.Path(tempfile.gettempdir()) / "kernel_{key}"
for _path, _text in _FILES.items():
    (_FOLDER / _path).parent.mkdir(parents=True, exist_ok=True)
    (_FOLDER / _path).write_text(_text)
_extension = load(
    name="kernel_{key}",
    sources=[str(_FOLDER / _path) for _path in {sources}],
    extra_include_paths=[str(_FOLDER)],
{keywords})
"""
