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
REDUCTIONS = {
    "sum": "x.sum(self.dim)",
    "sum_kept": "x.sum(self.dim, keepdim=True)",
    "mean": "x.mean(self.dim)",
    "max": "x.max(self.dim)[0]",
    "min": "x.min(self.dim)[0]",
    "argmax": "x.argmax(self.dim)",
    "argmin": "x.argmin(self.dim)",
}
CASES |= {
    f"reduction/{name} along {dim}": task(f"reduction/{name}", ALONG, REDUCTIONS[name], inputs, dim, "dim")
    for dim, inputs, names in (
        ("1", "torch.randn(2, 35, 131) - 0.5", REDUCTIONS),
        ("2", "torch.randn(1, 3, 4500) - 0.5", ("sum", "argmin")),
        ("0", "torch.randn(35, 3, 7)", ("mean", "max")),
    )
    for name in names
}
SCANS = {
    "cumsum": "x.cumsum(self.dim)",
    "cumprod": "x.cumprod(self.dim)",
    "reverse_cumsum": "x.flip(self.dim).cumsum(self.dim).flip(self.dim)",
    "exclusive_cumsum": "torch.cat((torch.zeros_like(x.narrow(self.dim, 0, 1)), "
    "x.narrow(self.dim, 0, x.shape[self.dim] - 1).cumsum(self.dim)), self.dim)",
    "masked_cumsum": "(x * rest[0]).cumsum(self.dim)",
}
CASES |= {
    f"scan/{name} along {dim}": task(f"scan/{name}", ALONG, SCANS[name], f"{inputs}{mask}", dim, "dim")
    for dim, inputs, mask, names in (
        ("1", "torch.rand(2, 9001)", "", ("cumsum", "reverse_cumsum", "exclusive_cumsum")),
        ("1", "torch.rand(2, 4600) + 0.5", "", ("cumprod",)),
        ("1", "torch.rand(2, 9001)", ", torch.rand(2, 9001) < 0.5", ("masked_cumsum",)),
        ("-1", "torch.rand(2, 901)", ", (torch.rand(2, 901) < 0.5).float()", ("masked_cumsum",)),
        ("0", "torch.rand(40, 3)", "", ("cumsum", "exclusive_cumsum")),
    )
    for name in names
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
        "torch.rand(3, 3001), torch.rand(3, 3001), torch.rand(3, 3001)",
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
        f"torch.randn(1, 3, {sizes})",
        settings,
        "*settings",
    )
    for kind, layer, rank, settings, sizes in (
        ("max", "MaxPool", 1, "8, 1, 4, 3", "300"),
        ("max", "MaxPool", 2, "4, 1, 1, 1", "5, 70"),
        ("max", "MaxPool", 2, "(2, 3), None, (1, 0)", "9, 70"),
        ("max", "MaxPool", 3, "3, 2, 1, 3", "11, 12, 14"),
        ("average", "AvgPool", 1, "8, 1, 4", "200"),
        ("average", "AvgPool", 2, "11", "23, 25"),
        ("average", "AvgPool", 3, "3, 2, 1", "7, 8, 21"),
    )
}

PLANES = "torch.randn(3, 6, 7, 11) * 3 + 2"
CASES |= {
    "normalisation/batch2d": task(
        "normalisation/batch2d", "self.bn = nn.BatchNorm2d(n)", "self.bn(x)", PLANES, "6", "n"
    ),
    "normalisation/batch2d known": task(
        "normalisation/batch2d",
        "self.bn = nn.BatchNorm2d(n)",
        "self.bn(x)",
        PLANES,
        "6",
        "n",
        "TRAINING = False",
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


def layers(family, name, layer, rows):
    """A case for each (variant, settings, shape of x): the layer is kept as `name` in the task's model."""
    return {
        f"{family}/{variant} {settings}": task(
            f"{family}/{variant}",
            f"self.{name(variant)} = ({layer(variant)})(*settings)",
            f"self.{name(variant)}(x)",
            f"torch.randn({shape})",
            settings,
            "*settings",
        )
        for variant, settings, shape in rows
    }


def conv_name(variant):
    return {"conv2d_pointwise": "conv1d", "conv2d_alexnet": "conv1"}.get(variant, variant.split("_")[0])


def conv_layer(variant):
    rank = conv_name(variant)[-2] if conv_name(variant) != "conv1" else "2"
    return {
        "conv1d_dilated": "lambda i, o, k, s, d: nn.Conv1d(i, o, k, s, dilation=d)",
        "conv2d_pointwise": "lambda i, o, b: nn.Conv2d(i, o, 1, bias=b)",
        "conv2d_alexnet": "lambda n: nn.Conv2d(3, 96, 11, 4, 2)",
        "conv3d_flat": "lambda i, o, k: nn.Conv3d(i, o, (k, k, 1), bias=False)",
    }.get(
        variant, f"lambda i, o, k, s=1, p=0, d=1, g=1, b=False: nn.Conv{rank}d(i, o, k, s, p, d, g, b)"
    ).replace("dilation=d)", "dilation=d, bias=False)")


def transposed_layer(variant):
    rank = variant[4]
    return {
        "conv1d_dilated": "lambda i, o, k, s=1, p=0, d=1: nn.ConvTranspose1d(i, o, k, s, p, 0, 1, False, d)",
        "conv2d_dilated": "lambda i, o, k, s, p, d, g: nn.ConvTranspose2d(i, o, k, s, p, 0, g, False, d)",
        "conv3d_dilated": "lambda i, o, k, s, p, d: nn.ConvTranspose3d(i, o, k, s, p, 0, 1, False, d)",
        "conv3d_unpadded": "lambda i, o, k, s, p, e: nn.ConvTranspose3d(i, o, k, s, p, bias=False)",
    }.get(
        variant,
        f"lambda i, o, k, s=1, p=0, e=0, g=1, b=False: nn.ConvTranspose{rank}d(i, o, k, s, p, e, g, b)",
    )


CASES |= layers(
    "convolution",
    conv_name,
    conv_layer,
    (
        ("conv1d", "3, 5, 4, 2, 1, 2, 1, True", "2, 3, 150"),
        ("conv1d_dilated", "5, 7, 3, 3, 4", "2, 5, 90"),
        ("conv2d", "6, 10, (3, 5), 1, (1, 2), (2, 1), 2", "1, 6, 9, 17"),
        ("conv2d", "17, 20, 3", "1, 17, 9, 10"),
        ("conv2d_pointwise", "5, 9, True", "2, 5, 7, 19"),
        ("conv2d_alexnet", "10", "1, 3, 31, 35"),
        ("conv3d", "3, 6, (2, 3, 4), 2, 1", "2, 3, 7, 8, 9"),
        ("conv3d_flat", "3, 6, 3", "2, 3, 5, 6, 7"),
    ),
)
CASES |= layers(
    "transposed_convolution",
    lambda variant: f"conv_transpose{variant[4]}d" if variant[4] != "1" else "conv1d_transpose",
    transposed_layer,
    (
        ("conv1d", "3, 5, 3", "1, 3, 150"),
        ("conv1d_dilated", "5, 7, 3, 2, 1, 2", "1, 5, 90"),
        ("conv2d", "6, 4, (3, 5), (2, 3), (1, 2), (1, 0), 2, True", "1, 6, 5, 9"),
        ("conv2d", "18, 20, 3", "1, 18, 9, 10"),
        ("conv2d_dilated", "6, 4, (3, 5), (2, 3), (1, 2), (2, 1), 1", "1, 6, 5, 7"),
        ("conv2d_dilated", "3, 4, 3, 4, 1, 2, 1", "1, 3, 3, 4"),
        ("conv3d", "4, 6, (3, 5, 3), (2, 1, 2), (1, 2, 0), (1, 0, 1), 1", "1, 4, 3, 4, 5"),
        ("conv3d_dilated", "3, 4, 3, 2, 1, 2", "1, 3, 3, 4, 5"),
        ("conv3d_unpadded", "3, 4, 3, 2, 1, 4", "1, 3, 3, 4, 5"),
    ),
)
CASES |= layers(
    "depthwise",
    lambda variant: "conv2d",
    {
        "square": "lambda i, k, s, p, b: nn.Conv2d(i, i, k, s, p, groups=i, bias=b)",
        "column": "lambda i, k, s, p, d: nn.Conv2d(i, i, (k, 1), s, p, d, groups=i, bias=False)",
        "multiplied": "lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p, groups=i, bias=False)",
        "rectangle": "lambda i, o, a, b, c, d, e, f, g, h, j: "
        "nn.Conv2d(i, i, (a, b), (c, d), (e, f), (g, h), groups=i, bias=False)",
    }.__getitem__,
    (
        ("square", "5, 3, 1, 1, True", "2, 5, 9, 40"),
        ("column", "5, 3, 2, 0, 2", "2, 5, 11, 40"),
        ("multiplied", "3, 6, 3, 1, 0", "2, 3, 9, 10"),
        ("rectangle", "3, 3, 3, 7, 2, 1, 1, 3, 1, 2, 3", "2, 3, 9, 30"),
    ),
)
CASES["separable"] = task(
    "separable",
    "self.depthwise = nn.Conv2d(i, i, k, s, p, d, i, bias); self.pointwise = nn.Conv2d(i, o, 1, bias=bias)",
    "self.pointwise(self.depthwise(x))",
    "torch.randn(1, 19, 5, 17)",
    "19, 21, 3, 1, 1, 1, True",
    "i, o, k, s, p, d, bias",
)

PRODUCT = "torch.matmul(x, rest[0])"
CASES |= {
    "matmul/nn": task("matmul/nn", "", PRODUCT, "torch.randn(37, 41), torch.randn(41, 53)"),
    "matmul/nn batched": task("matmul/nn", "", PRODUCT, "torch.randn(2, 37, 41), torch.randn(2, 41, 3)"),
    "matmul/nn with a long sum": task("matmul/nn", "", PRODUCT, "torch.rand(5, 2100), torch.rand(2100, 20)"),
    "matmul/nn with a column": task("matmul/nn", "", PRODUCT, "torch.randn(9, 1500), torch.randn(1500, 1)"),
    "matmul/tt": task("matmul/tt", "", "x.T @ rest[0].T", "torch.randn(41, 37), torch.randn(53, 41)"),
    "triangular/upper": task(
        "triangular/upper",
        "",
        "torch.triu(x @ rest[0])",
        "torch.triu(torch.randn(150, 150)), torch.triu(torch.randn(150, 150))",
    ),
    "triangular/lower": task(
        "triangular/lower",
        "",
        "torch.tril(x @ rest[0])",
        "torch.tril(torch.randn(150, 150)), torch.tril(torch.randn(150, 150))",
    ),
    "attention": task(
        "attention",
        "",
        "F.scaled_dot_product_attention(x, *rest)",
        "torch.randn(1, 2, 21, 40), torch.randn(1, 2, 35, 40), torch.randn(1, 2, 35, 18)",
    ),
}
