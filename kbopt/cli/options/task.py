"""The options that name tasks."""

from __future__ import annotations

from pathlib import Path

import click

from kbopt.cli.grouped import option, options

kernelbench_option = option(
    "--kernelbench",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="KBOPT_KERNELBENCH",
    help="A KernelBench checkout for level tasks. Default: KBOPT_KERNELBENCH, else the Hugging Face dataset.",
)

workloads_option = option(
    "--workloads",
    metavar="shown|all|NAME,...",
    help="Of a task with workloads judge these alone: those that are shown, all of them, or those named. "
    "Default: shown and hidden ones, and for a final verdict those held out beside them.",
)

task_options = options(
    option(
        "--task",
        metavar="NAME",
        help="quick/gelu, matmul/9, level1/12, a .py file, or a folder in another format: PATH or "
        "PATH#WORKLOAD. No default but in `run`: quick/gelu.",
    ),
    option("--task-idx", type=click.IntRange(0, 15), help="Short for --task matmul/IDX. Default: --task."),
    kernelbench_option,
    workloads_option,
)
