"""The options of Weights & Biases."""

from __future__ import annotations

from typing import Literal

import click

from kbopt.cli.grouped import EXPERT, option, options
from kbopt.cli.values import Name
from kbopt.core.extras import require


def _with_wandb(_: click.Context, __: click.Parameter, value: bool) -> bool:
    if value:
        require("wandb", "--use-wandb")
    return value


wandb_options = options(
    option("--use-wandb", group=EXPERT, is_flag=True, callback=_with_wandb, help="Log to Weights & Biases."),
    option("--project-name", "--project", group=EXPERT, default="kbopt", help="The W&B project."),
    option(
        "--wandb-mode",
        group=EXPERT,
        type=Name("mode", Literal["online", "offline"]),
        help="Default: WANDB_MODE, else online.",
    ),
)
