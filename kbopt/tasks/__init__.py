"""Tasks: built in, from files and checkouts, in KernelBench's format and others; and their kernels' forms."""

from __future__ import annotations

from kbopt.tasks.candidates import as_model, endings, missing
from kbopt.tasks.catalog import TaskInfo, expand, list_formats, list_tasks, load_task
from kbopt.tasks.formats.templates import precision_of

__all__ = [
    "TaskInfo",
    "as_model",
    "endings",
    "expand",
    "list_formats",
    "list_tasks",
    "load_task",
    "missing",
    "precision_of",
]
