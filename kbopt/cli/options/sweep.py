"""The options of many searches: how many at once, on which cluster, and where they are kept."""

from __future__ import annotations

from pathlib import Path

import click

from kbopt.cli.grouped import DEVICE, option, options

many_options = options(
    option(
        "--explorers",
        type=click.IntRange(1, 1024),
        default=8,
        help="Proposals made at the same time, in all.",
    ),
    option(
        "--parallel-searches", type=click.IntRange(1), default=8, help="Searches under way at the same time."
    ),
)
"""How much of a sweep happens at once."""

out_option = option(
    "--out", type=click.Path(path_type=Path), default=Path("sweeps"), help="The folder of all sweeps."
)
address_option = option(
    "--address", group=DEVICE, help="A Ray cluster, e.g. auto. Default: this machine alone."
)
nodes_option = option(
    "--nodes",
    group=DEVICE,
    type=click.IntRange(1),
    default=1,
    help="Wait until the cluster has so many: right after `ray up` only the head is there.",
)
