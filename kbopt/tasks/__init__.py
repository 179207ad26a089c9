"""Tasks: KernelBench problems, built in, from a file, a checkout or the Hugging Face dataset."""

from __future__ import annotations

from kbopt.tasks.catalog import TaskInfo, expand, list_tasks, load_task

__all__ = ["TaskInfo", "expand", "list_tasks", "load_task"]
