"""Kernels in the forms that the field's formats have, as sources that define `ModelNew`: text in, text out.

What is added calls the kernel's own function as the task's `Model` calls the reference, and allocates the
outputs of a function that writes to its last arguments. Nothing is copied in the call.
"""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

from kbopt.core.errors import UNPARSABLE
from kbopt.core.task import Task
from kbopt.tasks.formats import definition_source, gpumode, hard, modules, templates
from kbopt.tasks.formats.model import fault
from kbopt.tasks.formats.renaming import renamed
from kbopt.tasks.solutions import C_ENDINGS, Kernel, extension, is_solution, read_solution

_ENTRIES = {
    definition_source.CONVENTION: (definition_source.REFERENCE, "run"),
    gpumode.CONVENTION: ("ref_kernel", "custom_kernel"),
}
"""The function that the task's `Model` calls, and the one that kernels define in its place."""
_OWN_FILES = ("task", "utils", "reference")
"""Modules of a GPU MODE task that a submission may import from."""
_TASKS_OWN = ("Model", "get_inputs", "get_init_inputs", "get_workloads", "reference_run", "drawn")
"""Names that a kernel may have too: nothing of that name is added to it."""
_TYPES = ("input_t", "output_t", "TestSpec")


def endings(task: Task) -> tuple[str, ...]:
    """The endings of files that hold kernels for the task."""
    convention = templates.convention_of(task.source)
    return (".py", ".cu", ".json") if convention in _ENTRIES else (".py",)


def missing(source: str, name: str, task: Task) -> str:
    """What the kernel `source` of the file `name` has to define and does not, in words; empty where it does.

    Tasks in KernelBench's own format ask for `ModelNew` alone, of which the evaluator speaks.
    """
    convention = templates.convention_of(task.source)
    if not convention:
        return ""
    try:
        module = ast.parse(source)
    except UNPARSABLE:
        return ""
    if "ModelNew" in {one for node in module.body for one in templates.bound(node)}:
        return ""
    own = f"a function {_ENTRIES[convention][1]}" if convention in _ENTRIES else "a class Model"
    return f"{name} defines neither {own}, as the task's format has it, nor a class ModelNew"


def as_model(text: str, name: str, task: Task) -> str:
    """The kernel `text` of the file `name` as a source that defines `ModelNew`, for `task`.

    A source that defines `ModelNew` is left as it is, and so is one that defines nothing a format asks for:
    the evaluator says what it misses. Raises `UserError` for a solution or a C++ source without its form.
    """
    convention = templates.convention_of(task.source)
    ending = PurePosixPath(name).suffix.lower()
    if ending == ".json" or is_solution(text):
        kernel = read_solution(text, name)
    elif ending in C_ENDINGS:
        kernel = extension({f"kernel{ending}": text}, f"kernel{ending}", "", name)
    else:
        return _from_python(text, name, task, convention)
    if convention not in _ENTRIES:
        raise fault(
            name,
            "a kernel as a function, and this task's kernels are modules with parameters",
            "Give a .py file that defines ModelNew",
        )
    return _with_model(kernel, name, task, convention)


def _from_python(text: str, name: str, task: Task, convention: str) -> str:
    try:
        module = ast.parse(text)
    except UNPARSABLE:
        return text
    defined = {one for node in module.body for one in templates.bound(node)}
    if "ModelNew" in defined or not convention:
        return text
    if convention == hard.CONVENTION:
        if "Model" not in defined:
            return text
        unpacked = _part(task.source, "_viewed_inputs")
        return _joined(text, unpacked, _MODULE if unpacked else "ModelNew = Model")
    entry = _ENTRIES[convention][1]
    if entry not in defined:
        return text
    if convention == gpumode.CONVENTION:
        text = _with_own_files(text, name, task)
    return _with_model(Kernel(text=text, function=entry, writes=None), name, task, convention)


def _with_own_files(text: str, name: str, task: Task) -> str:
    """`text` with what it imports from the task's own files, as far as the task's source has it.

    What only definitions of the submission need that its kernel does not, such as a check, may be absent.
    """
    known = {one for node in ast.parse(task.source).body for one in templates.bound(node)}
    if _imported(text) - known - set(_TYPES):
        text = modules.reduced(text, {_ENTRIES[gpumode.CONVENTION][1]})
    wanted = _imported(text)
    lost = sorted(wanted - known - set(_TYPES))
    if lost:
        raise fault(
            name, f"it imports {', '.join(lost)} of the task's files", "Put that into the submission itself"
        )
    own = modules.reduced(task.source, wanted & known) if wanted & known else ""
    types = [f"{one} = object" for one in _TYPES if one in wanted - known]
    texts = {one: "" for one in _OWN_FILES if one in _modules(text)}
    texts |= {one: "\n".join([own, *types]) for one in list(texts)[:1]}
    return modules.joined({**texts, "submission": text}, "submission", name)


def _imported(text: str) -> set[str]:
    """The names that the text imports from the task's own files."""
    names = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module in _OWN_FILES and not node.level
        for alias in node.names
    }
    return (names - {"*"}) | set(_TYPES) if "*" in names else names


def _with_model(kernel: Kernel, name: str, task: Task, convention: str) -> str:
    """The kernel's text with a `ModelNew` that calls its function as `Model` calls the reference."""
    model = _part(task.source, "Model")
    helpers = [_part(task.source, one) for one in ("_ordered_outputs", "_viewed_inputs", "_narrowed_outputs")]
    own = {old: new for old, new in templates.own_names(kernel.text).items() if old not in _TASKS_OWN}
    text, function, adapter = renamed(kernel.text, own), own.get(kernel.function, kernel.function), ""
    if convention == gpumode.CONVENTION and kernel.writes is not None:
        if kernel.writes:
            raise fault(name, f"{function} writes to its arguments", "Have it return what it writes")
        function, adapter = "_spread_data", _FROM_DATA.format(function=function)
    elif convention == definition_source.CONVENTION and _writes(kernel, task.source):
        helpers.append(_part(task.source, definition_source.ALLOCATION))
        function, adapter = "_written_outputs", _WRITING.format(function=function)
    elif any(isinstance(node, ast.arg) and node.arg == function for node in ast.walk(ast.parse(model))):
        function, adapter = "_called_kernel", f"_called_kernel = {function}"
    own_model = renamed(model, {"Model": "ModelNew", _ENTRIES[convention][0]: function})
    return _joined(text, *helpers, adapter, own_model)


def _joined(text: str, *parts: str) -> str:
    """The kernel as it is, then what is added."""
    return "\n\n\n".join([text.rstrip(), "import torch", *(part.strip() for part in parts if part)]) + "\n"


def _writes(kernel: Kernel, source: str) -> bool:
    """Whether the function takes its outputs as last arguments: as it says, or by how many it takes.

    If it takes any number, it does unless it returns something. A function in C++ may both take and return
    them, as those of FlashInfer-Bench do, which calls all functions with their outputs.
    """
    model = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Model"
    )
    forward = next(node for node in model.body if isinstance(node, ast.FunctionDef))
    num_inputs = len(forward.args.args) - 1
    num_outputs = _part(source, definition_source.ALLOCATION).count("torch.empty(")
    if kernel.writes is not None:
        takes_all = len(kernel.tensors) == num_inputs + num_outputs
        return kernel.writes or (takes_all and all(kernel.tensors[num_inputs:]))
    run = templates.functions(ast.parse(kernel.text)).get(kernel.function)
    if run is None or run.args.defaults:
        return False
    if run.args.vararg:
        return not any(isinstance(node, ast.Return) and node.value for node in ast.walk(run))
    return len(run.args.args) == num_inputs + num_outputs


def _part(source: str, name: str) -> str:
    """The statement of the source that binds `name`; empty where there is none."""
    for node in ast.parse(source).body:
        if name in templates.bound(node):
            return ast.get_source_segment(source, node) or ""
    return ""


def _modules(text: str) -> set[str]:
    return {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


_MODULE = """
class ModelNew(Model):
    def forward(self, *values):
        return super().forward(*_viewed_inputs(values))
"""
_FROM_DATA = '''
def _spread_data(data):
    """The launcher takes what the tuple holds, one by one."""
    value = {function}(*data) if isinstance(data, tuple) else {function}(data)
    return tuple(value) if isinstance(value, list) else value
'''
_WRITING = '''
def _written_outputs(*inputs):
    """The function writes to its last arguments: memory that is allocated for each call."""
    outputs = _allocated_outputs([one for one in inputs if isinstance(one, torch.Tensor)])
    {function}(*inputs, *outputs)
    return outputs
'''
