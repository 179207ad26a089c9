"""The options of the protocol by which kernels are judged."""

from __future__ import annotations

import click

from kbopt.cli.grouped import DEVICE, EXPERT, option, options
from kbopt.cli.values import Name, Number
from kbopt.core.protocol import Arithmetic, Baseline, Clock, EvalProtocol, Outputs, Precision, TorchOps

PROTOCOL = EvalProtocol()

precision_option = option(
    "--precision",
    group=DEVICE,
    type=Name("precision", Precision),
    default=PROTOCOL.precision,
    help="Of inputs and weights. A task in another format than KernelBench's brings its own.",
)

arithmetic_option = option(
    "--arithmetic",
    group=EXPERT,
    type=Name("arithmetic", Arithmetic),
    default=PROTOCOL.arithmetic,
    help="What fp32 tasks compute in: PyTorch's default (fp32 products, TF32 in convolutions), ieee "
    "(no TF32), "
    "or tf32.",
)

eval_mode_option = option(
    "--eval-mode", group=EXPERT, is_flag=True, help="Run both models after Module.eval(): no dropout."
)

backward_option = option(
    "--backward",
    group=EXPERT,
    is_flag=True,
    help="Time forward and backward together, and check the gradients as outputs are.",
)

protocol_options = options(
    precision_option,
    option(
        "--trials",
        group=EXPERT,
        type=click.IntRange(1),
        default=PROTOCOL.trials,
        help="Correctness checks, each with fresh inputs.",
    ),
    option(
        "--timed",
        group=EXPERT,
        type=click.IntRange(10),
        default=PROTOCOL.timed,
        help="Timed calls of a candidate.",
    ),
    option(
        "--torch-ops",
        group=EXPERT,
        type=Name("choice", TorchOps),
        default=PROTOCOL.torch_ops,
        help="What becomes of candidates that compute with PyTorch's own operations.",
    ),
    arithmetic_option,
    option("--allow-tf32", group=EXPERT, is_flag=True, help="The old name of --arithmetic tf32."),
    option(
        "--outputs",
        group=EXPERT,
        type=Name("choice", Outputs),
        default=PROTOCOL.outputs,
        help="Whether each call returns memory of its own, or may reuse the last one's (CUDA graphs, "
        "static buffers).",
    ),
    option(
        "--baseline",
        group=EXPERT,
        type=Name("baseline", Baseline),
        default=PROTOCOL.baseline,
        help="What the ranking speedup is over: eager PyTorch, torch.compile, or the fastest baseline.",
    ),
    option(
        "--clock",
        group=EXPERT,
        type=Name("clock", Clock),
        default=PROTOCOL.clock,
        help="What ranks: the device's work alone, or the latency of one synchronised call.",
    ),
    eval_mode_option,
    backward_option,
    option(
        "--timeout",
        group=EXPERT,
        type=Number(1),
        default=PROTOCOL.timeout_s,
        help="Seconds for check and timing of a candidate.",
    ),
)
