"""The options of the device on which kernels are judged."""

from __future__ import annotations

import click

from kbopt.cli.grouped import DEVICE, EXPERT, option, options
from kbopt.cli.values import Device, GpuCount, Name, Number
from kbopt.config import BackendConfig, BackendName

BACKEND = BackendConfig()

device_option = option(
    "--device",
    group=DEVICE,
    type=Device(),
    default=BACKEND.device,
    help="Local backend: which device. Spool: cpu where no GPU drains it.",
)

backend_options = options(
    option(
        "--backend",
        group=DEVICE,
        type=Name("backend", BackendName),
        default=BACKEND.name,
        help="Where kernels are judged: this machine, a GPU rented from Modal, machines without a network "
        "that drain a shared folder, or a simulated device.",
    ),
    device_option,
    option(
        "--spool",
        group=DEVICE,
        type=click.Path(file_okay=False, resolve_path=True),
        help="Spool backend: the shared folder. No default: --backend spool needs it.",
    ),
    option(
        "--spool-ahead",
        group=EXPERT,
        type=click.IntRange(1, 100_000),
        default=BACKEND.spool_ahead,
        help="Spool: requests in the folder for each job that drains it; many for one that travels.",
    ),
    option(
        "--no-sandbox",
        group=DEVICE,
        is_flag=True,
        help="Local backend: run models' kernels even if it cannot isolate them.",
    ),
    option(
        "--gpu",
        group=DEVICE,
        default=BACKEND.gpu,
        help="Modal backend: L4, L40S, H100, ... Spool: the GPU that models are told of.",
    ),
    option(
        "--gpus",
        group=EXPERT,
        type=GpuCount(),
        default=BACKEND.gpus,
        help="Local: GPUs to use at once, of this machine or, on a cluster, of the evaluator's. Modal: "
        "containers at once.",
    ),
    option("--lane", group=EXPERT, default=BACKEND.lane, help="Modal: a name for containers of your own."),
    option(
        "--warm-minutes",
        group=EXPERT,
        type=Number(0),
        default=BACKEND.warm_minutes,
        help="Modal: minutes that a container is kept after its last use.",
    ),
    option(
        "--start-timeout",
        group=EXPERT,
        type=Number(1),
        default=BACKEND.start_timeout_s,
        help="Modal: seconds to wait for a GPU.",
    ),
)
