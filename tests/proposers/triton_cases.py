"""Small tasks of the shapes that the Triton seeds are for, by name: the family and the task's source."""


def task(family, init, forward, inputs, settings="", arguments="", before=""):
    """A task in KernelBench's form, written out."""
    source = f"""
import torch
import torch.nn as nn
import torch.nn.functional as F
{before}

class Model(nn.Module):
    def __init__(self{", " if arguments else ""}{arguments}):
        super().__init__()
        {init or "pass"}

    def forward(self, *inputs):
        {"x, *rest = inputs"}
        return {forward}


def get_inputs():
    return [{inputs}]


def get_init_inputs():
    return [{settings}]
"""
    return family, source


SPREAD = "torch.randn(3, 1371) * 4"

CASES = {
    **{
        f"elementwise/{name}": task(f"elementwise/{name}", "", forward, SPREAD)
        for name, forward in {
            "tanh": "torch.tanh(x)",
            "gelu": "F.gelu(x)",
            "selu": "torch.selu(x)",
            "softplus": "F.softplus(x)",
        }.items()
    },
    "elementwise/leaky_relu": task(
        "elementwise/leaky_relu", "self.slope = slope", "F.leaky_relu(x, self.slope)", SPREAD, "0.2", "slope"
    ),
    "elementwise/elu": task(
        "elementwise/elu", "self.alpha = alpha", "F.elu(x, self.alpha)", SPREAD, "0.7", "alpha"
    ),
    "elementwise/scaled": task("elementwise/scaled", "", "x * rest[0]", f"{SPREAD}, 3.14"),
    "elementwise/swiglu": task("elementwise/swiglu", "", "F.silu(x) * rest[0]", f"{SPREAD}, {SPREAD}"),
}

ALONG = "self.dim = dim"
CUBE = "torch.randn(3, 35, 131) - 0.5"

CASES |= {
    f"reduction/{name} along {dim}": task(f"reduction/{name}", ALONG, forward, CUBE, dim, "dim")
    for dim in ("1", "2", "0")
    for name, forward in {
        "sum": "x.sum(self.dim)",
        "sum_kept": "x.sum(self.dim, keepdim=True)",
        "mean": "x.mean(self.dim)",
        "max": "x.max(self.dim)[0]",
        "min": "x.min(self.dim)[0]",
        "argmax": "x.argmax(self.dim)",
        "argmin": "x.argmin(self.dim)",
    }.items()
}
CASES |= {
    f"scan/{name} along {dim}": task(f"scan/{name}", ALONG, forward, inputs, dim, "dim")
    for dim in ("1", "0")
    for name, forward, inputs in (
        ("cumsum", "x.cumsum(self.dim)", "torch.rand(3, 9001)"),
        ("cumprod", "x.cumprod(self.dim)", "torch.rand(3, 4600) + 0.5"),
        ("reverse_cumsum", "x.flip(self.dim).cumsum(self.dim).flip(self.dim)", "torch.rand(3, 9001)"),
        (
            "exclusive_cumsum",
            "torch.cat((torch.zeros_like(x.narrow(self.dim, 0, 1)), "
            "x.narrow(self.dim, 0, x.shape[self.dim] - 1).cumsum(self.dim)), self.dim)",
            "torch.rand(3, 9001)",
        ),
        (
            "masked_cumsum",
            "(x * rest[0]).cumsum(self.dim)",
            "torch.rand(3, 9001), torch.rand(3, 9001) < 0.5",
        ),
    )
}
PAIR = "torch.rand(130, 70) * 2, torch.randn(130, 70)"
SHARES = "torch.rand(60, 90).softmax(-1), torch.rand(60, 90).softmax(-1)"
CASES |= {
    "loss/mse": task("loss/mse", "", "torch.mean((x - rest[0]) ** 2)", PAIR),
    "loss/smooth_l1": task("loss/smooth_l1", "", "F.smooth_l1_loss(x, rest[0])", PAIR),
    "loss/hinge": task("loss/hinge", "", "torch.mean(torch.clamp(1 - x * rest[0], min=0))", PAIR),
    "loss/hinge repeated": task(
        "loss/hinge",
        "",
        "torch.mean(torch.clamp(1 - x * rest[0], min=0))",
        "torch.rand(7, 2500), torch.randint(0, 2, (2500,)).float() * 2 - 1",
    ),
    "loss/kl_divergence": task(
        "loss/kl_divergence", "", "F.kl_div(torch.log(x), rest[0], reduction='batchmean')", SHARES
    ),
    "triplet": task(
        "triplet",
        "self.loss = nn.TripletMarginLoss(margin=margin)",
        "self.loss(x, *rest)",
        "torch.rand(9, 3001), torch.rand(9, 3001), torch.rand(9, 3001)",
        "1.5",
        "margin",
    ),
    "log_softmax": task(
        "log_softmax", ALONG, "F.log_softmax(x, self.dim)", "torch.randn(3, 5000) * 9", "1", "dim=1"
    ),
    "log_softmax along 0": task(
        "log_softmax", ALONG, "F.log_softmax(x, self.dim)", "torch.randn(300, 3)", "0", "dim=1"
    ),
}
CASES |= {
    f"pooling/{kind}{rank}d {settings}": task(
        f"pooling/{kind}{rank}d",
        f"self.pool = nn.{layer}{rank}d(*settings)",
        "self.pool(x)",
        f"torch.randn(2, 3, {sizes})",
        settings,
        "*settings",
    )
    for kind, layer, rank, settings, sizes in (
        ("max", "MaxPool", 1, "8, 1, 4, 3", "700"),
        ("max", "MaxPool", 2, "4, 1, 1, 1", "9, 70"),
        ("max", "MaxPool", 2, "(2, 3), None, (1, 0)", "9, 70"),
        ("max", "MaxPool", 3, "3, 2, 1, 3", "11, 12, 14"),
        ("average", "AvgPool", 1, "8, 1, 4", "200"),
        ("average", "AvgPool", 2, "11", "23, 47"),
        ("average", "AvgPool", 3, "3, 2, 1", "7, 8, 21"),
    )
}

PLANES = "torch.randn(3, 6, 7, 11) * 3 + 2"
CASES |= {
    "normalisation/batch2d": task(
        "normalisation/batch2d", "self.bn = nn.BatchNorm2d(n)", "self.bn(x)", PLANES, "6", "n"
    ),
    "normalisation/batch2d known": task(
        "normalisation/batch2d", "self.bn = nn.BatchNorm2d(n)", "self.bn(x)", PLANES, "6", "n", "TRAINING = False"
    ),
    "normalisation/instance2d": task(
        "normalisation/instance2d", "self.inorm = nn.InstanceNorm2d(n)", "self.inorm(x)", PLANES, "6", "n"
    ),
    "normalisation/group": task(
        "normalisation/group", "self.gn = nn.GroupNorm(groups, n)", "self.gn(x)", PLANES, "6, 3", "n, groups"
    ),
    "normalisation/layer": task(
        "normalisation/layer", "self.ln = nn.LayerNorm(shape)", "self.ln(x)", PLANES, "(6, 7, 11)", "shape"
    ),
    "axis_norm/l1": task("axis_norm/l1", "", "x / x.abs().mean(1, keepdim=True)", "torch.randn(3, 9001)"),
    "axis_norm/l2": task("axis_norm/l2", "", "x / x.norm(p=2, dim=1, keepdim=True)", "torch.randn(3, 9001)"),
    "axis_norm/rms": task(
        "axis_norm/rms",
        "self.eps = eps",
        "x / torch.sqrt((x**2).mean(1, keepdim=True) + self.eps)",
        "torch.randn(2, 9, 5, 61)",
        "9, 0.1",
        "n, eps",
    ),
    "axis_norm/rms of many": task(
        "axis_norm/rms",
        "self.eps = eps",
        "x / torch.sqrt((x**2).mean(1, keepdim=True) + self.eps)",
        "torch.randn(1, 300, 5)",
        "300, 0.1",
        "n, eps",
    ),
    "frobenius": task("frobenius", "", "x / torch.norm(x, p='fro')", "torch.randn(7, 1301)"),
}
