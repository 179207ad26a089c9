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

BIAS = "self.bias = nn.Parameter(torch.randn(b))"
IMAGES = "torch.randn(2, 5, 11, 10)"
VOLUMES = "torch.randn(2, 3, 5, 7, 6)"
CASES |= {
    "convolution_tail in three dimensions": task(
        "convolution_tail/conv3d_leakyrelu_sum_clamp_gelu",
        "self.conv = nn.Conv3d(i, o, k); self.sum_tensor = nn.Parameter(torch.randn(b))",
        "F.gelu(torch.clamp(F.leaky_relu(self.conv(x), 0.2) + self.sum_tensor, -1.0, 1.0))",
        VOLUMES,
        "3, 20, 3, (20, 1, 1, 1)",
        "i, o, k, b",
    ),
    "convolution_tail in two dimensions": task(
        "convolution_tail/conv2d_relu_biasadd",
        f"self.conv = nn.Conv2d(i, o, k); {BIAS}",
        "torch.relu(self.conv(x)) + self.bias",
        IMAGES,
        "5, 6, 3, (6, 1, 1)",
        "i, o, k, b",
    ),
    "convolution_tail of a transposed one in two dimensions": task(
        "convolution_tail/convtranspose2d_mish_add_hardtanh_scaling",
        "self.conv_transpose = nn.ConvTranspose2d(*n[:6]); self.n = n",
        "F.hardtanh(F.mish(self.conv_transpose(x)) + self.n[6]) * self.n[7]",
        IMAGES,
        "5, 6, 3, 2, 1, 1, 0.5, 2",
        "*n",
    ),
    "convolution_tail with a second input": task(
        "convolution_tail/convtranspose3d_add_hardswish",
        f"self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p, e); {BIAS}",
        "(self.conv_transpose(x) + rest[0]) * F.hardswish(self.conv_transpose(x) + rest[0])",
        f"{VOLUMES}, torch.randn(2, 18, 10, 14, 12)",
        "3, 18, 3, 2, 1, 1, (18, 1, 1, 1, 1)",
        "i, o, k, s, p, e, b",
    ),
    "convolution_norm of groups": task(
        "convolution_norm/convtranspose3d_swish_groupnorm_hardswish",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p); self.group_norm = nn.GroupNorm(g, o, eps)",
        "F.hardswish(self.group_norm(F.silu(self.conv_transpose(x))))",
        VOLUMES,
        "3, 6, 3, 2, 1, 3, 1e-5",
        "i, o, k, s, p, g, eps",
    ),
    "convolution_norm of images": task(
        "convolution_norm/conv2d_add_scale_sigmoid_groupnorm",
        f"self.conv = nn.Conv2d(i, o, k); {BIAS}; self.scale = nn.Parameter(torch.randn(b)); "
        "self.group_norm = nn.GroupNorm(g, o)",
        "self.group_norm(torch.sigmoid((self.conv(x) + self.bias) * self.scale))",
        IMAGES,
        "5, 6, 3, 2, (6, 1, 1), (6, 1, 1)",
        "i, o, k, g, b, c",
    ),
    **{
        f"convolution_norm of a batch{which}": task(
            "convolution_norm/conv2d_activation_batchnorm",
            "self.conv = nn.Conv2d(i, o, k); self.bn = nn.BatchNorm2d(o)",
            "self.bn(F.mish(self.conv(x)))",
            IMAGES,
            "5, 6, 3",
            "i, o, k",
            before,
        )
        for which, before in (("", ""), (" known", "TRAINING = False"))
    },
    "convolution_norm of instances": task(
        "convolution_norm/conv2d_instancenorm_divide",
        "self.conv = nn.Conv2d(i, o, k); self.instance_norm = nn.InstanceNorm2d(o); self.d = d",
        "self.instance_norm(self.conv(x)) / self.d",
        IMAGES,
        "5, 6, 3, 2.0",
        "i, o, k, d",
    ),
    "convolution_norm beside its values": task(
        "convolution_norm/conv2d_groupnorm_tanh_hardswish_residualadd_logsumexp",
        "self.conv = nn.Conv2d(i, o, k); self.group_norm = nn.GroupNorm(g, o)",
        "torch.logsumexp((y := self.conv(x)) + F.hardswish(torch.tanh(self.group_norm(y))), 1, True)",
        IMAGES,
        "5, 6, 3, 2",
        "i, o, k, g",
    ),
    "convolution_pool of volumes": task(
        "convolution_pool/convtranspose3d_scaling_avgpool_biasadd_scaling",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p); "
        "self.scale1 = nn.Parameter(torch.tensor(c)); "
        f"{BIAS}; self.scale2 = nn.Parameter(torch.tensor(d))",
        "(F.avg_pool3d(self.conv_transpose(x) * self.scale1, 2) + self.bias) * self.scale2",
        VOLUMES,
        "3, 6, 3, 2, 1, 0.5, 1.5, (6, 1, 1, 1)",
        "i, o, k, s, p, c, d, b",
    ),
    "convolution_pool of images": task(
        "convolution_pool/conv2d_subtract_hardswish_maxpool_mish",
        "self.conv = nn.Conv2d(i, o, k); self.d = d",
        "F.mish(F.max_pool2d(F.hardswish(self.conv(x) - self.d), 2))",
        IMAGES,
        "5, 6, 3, 0.5, 2",
        "i, o, k, d, w",
    ),
    "convolution_plane_mean of volumes": task(
        "convolution_plane_mean/conv3d_divide_max_globalavgpool_biasadd_sum",
        f"self.conv = nn.Conv3d(i, o, k); {BIAS}; self.d = d",
        "(F.adaptive_avg_pool3d(F.max_pool3d(self.conv(x) / self.d, 2), 1) + self.bias).sum(1)",
        VOLUMES,
        "3, 6, 2, 2.0, 2, (6, 1, 1, 1), 1",
        "i, o, k, d, w, b, dim",
    ),
    "convolution_plane_mean of images": task(
        "convolution_plane_mean/conv2d_avgpool_sigmoid_sum",
        "self.conv = nn.Conv2d(i, o, k)",
        "torch.sigmoid(F.avg_pool2d(self.conv(x), 4)).sum((1, 2, 3))",
        IMAGES,
        "5, 6, 3, 4",
        "i, o, k, w",
    ),
    "convolution_channels, largest of a softmax": task(
        "convolution_channels/convtranspose3d_maxpool_softmax_subtract_swish_max",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p, e); "
        "self.subtract = nn.Parameter(torch.randn(o))",
        "F.silu(torch.softmax(F.max_pool3d(self.conv_transpose(x), 2), 1) "
        "- self.subtract.view(1, -1, 1, 1, 1)).max(1)[0]",
        VOLUMES,
        "3, 6, 3, 2, 1, 1, 2, 2, 0",
        "i, o, k, s, p, e, *w",
    ),
    "convolution_channels, softmax of means": task(
        "convolution_channels/convtranspose3d_mean_add_softmax_tanh_scaling",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p); "
        "self.bias = nn.Parameter(torch.randn(1, o, 1, 1, 1)); self.d = d",
        "torch.tanh(torch.softmax(self.conv_transpose(x).mean(2, True) + self.bias, 1)) * self.d",
        VOLUMES,
        "3, 6, 3, 1, 1, 2.0",
        "i, o, k, s, p, d",
    ),
    "convolution_channels, softmax of minima": task(
        "convolution_channels/conv3d_min_softmax",
        "self.conv = nn.Conv3d(i, o, k)",
        "torch.softmax(self.conv(x).min(2)[0], 1)",
        VOLUMES,
        "3, 6, 3, 2",
        "i, o, k, dim",
    ),
    "convolution_channels, minimum": task(
        "convolution_channels/conv2d_min_tanh_tanh",
        "self.conv = nn.Conv2d(i, o, k)",
        "torch.tanh(torch.tanh(self.conv(x).min(1, True)[0]))",
        IMAGES,
        "5, 6, 3",
        "i, o, k",
    ),
    "convolution_channels, logarithm of a sum": task(
        "convolution_channels/conv3d_max_logsumexp_relu",
        "self.conv = nn.Conv3d(*n)",
        "torch.relu(torch.logsumexp(F.max_pool3d(self.conv(x), 2), 1, True))",
        VOLUMES,
        "3, 6, 3, 1, 1",
        "*n",
    ),
    "convolution_channels, sum": task(
        "convolution_channels/convtranspose3d_max_max_sum",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p)",
        "F.max_pool3d(F.max_pool3d(self.conv_transpose(x), 2), 3).sum(1, True)",
        VOLUMES,
        "3, 6, 5, 2, 2",
        "i, o, k, s, p",
    ),
}
CASES |= {
    "convolution_channels, pool of a softmax": task(
        "convolution_channels/conv3d_softmax_maxpool_maxpool",
        "self.conv = nn.Conv3d(i, o, k)",
        "F.max_pool3d(F.max_pool3d(torch.softmax(self.conv(x), 1), 2), 2)",
        "torch.randn(1, 3, 6, 11, 10)",
        "3, 6, 3, 2",
        "i, o, k, w",
    ),
    "convolution_last_norm with windows": task(
        "convolution_last_norm/convtranspose3d_sum_layernorm_avgpool_gelu",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p, e); self.norm = nn.LayerNorm(n); "
        "self.sum_weight = nn.Parameter(torch.tensor(c))",
        "F.gelu(F.avg_pool3d(self.norm(self.conv_transpose(x) + self.sum_weight), 2))",
        VOLUMES,
        "3, 6, 3, 2, 1, 1, 1.5, (12,), 2",
        "i, o, k, s, p, e, c, n, w",
    ),
    "convolution_last_norm": task(
        "convolution_last_norm/convtranspose3d_layernorm_gelu_scaling",
        "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p, bias=b); "
        "self.layer_norm = nn.LayerNorm(o, eps); self.d = d",
        "F.gelu(self.layer_norm(self.conv_transpose(x))) * self.d",
        VOLUMES,
        "3, 12, 4, 2, 1, True, 1e-5, 1.5",
        "i, o, k, s, p, b, eps, d",
    ),
    "convolution_plane_norm of groups": task(
        "convolution_plane_norm/conv3d_hardswish_groupnorm_mean",
        "self.conv = nn.Conv3d(i, o, k); self.group_norm = nn.GroupNorm(g, o)",
        "self.group_norm(F.hardswish(self.conv(x))).mean((2, 3, 4))",
        VOLUMES,
        "3, 6, 3, 2",
        "i, o, k, g",
    ),
    **{
        f"convolution_plane_norm of a batch{which}": task(
            "convolution_plane_norm/convtranspose3d_batchnorm_subtract",
            "self.conv_transpose = nn.ConvTranspose3d(i, o, k, s, p); self.batch_norm = nn.BatchNorm3d(o)",
            "(y := self.batch_norm(self.conv_transpose(x))) - y.mean((2, 3, 4), True)",
            VOLUMES,
            "3, 6, 3, 2, 1",
            "i, o, k, s, p",
            before,
        )
        for which, before in (("", ""), (" known", "TRAINING = False"))
    },
}
ROWS = "torch.rand(5, 50)"
LINEAR = "self.linear = nn.Linear(i, o)"
CASES |= {
    "linear_tail": task(
        "linear_tail/matmul_subtract_multiply_relu",
        f"{LINEAR}; self.n = (c, d)",
        "torch.relu((self.linear(x) - self.n[0]) * self.n[1])",
        ROWS,
        "50, 70, 0.1, 1.5",
        "i, o, c, d",
    ),
    "linear_tail with a number among the parameters": task(
        "linear_tail/matmul_min_subtract",
        f"{LINEAR}; self.constant = nn.Parameter(torch.tensor(c))",
        "torch.min(self.linear(x), self.constant) - self.constant",
        ROWS,
        "50, 70, 0.1",
        "i, o, c",
    ),
    "linear_tail without a bias": task(
        "linear_tail/gemm_add_relu",
        f"self.gemm = nn.Linear(i, o, bias=False); {BIAS}",
        "torch.relu(self.gemm(x) + self.bias)",
        "torch.rand(3, 1, 1100)",
        "1100, 70, (70,)",
        "i, o, b",
    ),
    "linear_group_norm": task(
        "linear_group_norm/gemm_biasadd_hardtanh_mish_groupnorm",
        f"self.gemm = nn.Linear(i, o); {BIAS}; self.groupnorm = nn.GroupNorm(g, o)",
        "self.groupnorm(F.mish(F.hardtanh(self.gemm(x) + self.bias)))",
        ROWS,
        "50, 72, (72,), 6",
        "i, o, b, g",
    ),
    "linear_group_norm and a minimum": task(
        "linear_group_norm/gemm_groupnorm_min_biasadd",
        f"self.gemm = nn.Linear(i, o); self.group_norm = nn.GroupNorm(g, o); {BIAS}",
        "self.group_norm(self.gemm(x)).min(1, True)[0] + self.bias",
        ROWS,
        "50, 72, 6, (1, 72, 1, 1)",
        "i, o, g, b",
    ),
    "linear_batch_norm and a softmax": task(
        "linear_batch_norm/gemm_batchnorm_scaling_softmax",
        "self.gemm = nn.Linear(i, o); self.bn = nn.BatchNorm1d(o, eps, momentum); "
        "self.scale = nn.Parameter(torch.ones(b))",
        "torch.softmax(self.scale * self.bn(self.gemm(x)), 1)",
        "torch.rand(150, 50)",
        "50, 70, 1e-5, 0.1, (1,)",
        "i, o, eps, momentum, b",
    ),
    "linear_group_norm of rows with a second input": task(
        "linear_group_norm/bmm_instancenorm_sum_residualadd_multiply",
        "self.bmm = nn.Linear(i, o); self.instance_norm = nn.InstanceNorm2d(o)",
        "(self.instance_norm(self.bmm(x)[:, None, None])[:, 0, 0] + rest[0]) * rest[0]",
        f"{ROWS}, torch.rand(5, 70)",
        "50, 70",
        "i, o",
    ),
    **{
        f"linear_batch_norm{which}": task(
            "linear_batch_norm/matmul_batchnorm_biasadd_divide_swish",
            f"self.matmul = nn.Linear(i, o); self.bn = nn.BatchNorm1d(o, eps, momentum); {BIAS}; self.d = d",
            "F.silu((self.bn(self.matmul(x)) + self.bias) / self.d)",
            "torch.rand(150, 50)",
            "50, 70, 1e-5, 0.1, (1,), 1.5",
            "i, o, eps, momentum, b, d",
            before,
        )
        for which, before in (("", ""), (" known", "TRAINING = False"))
    },
    "linear_rows, softmax": task(
        "linear_rows/matmul_gelu_softmax",
        LINEAR,
        "torch.softmax(F.gelu(self.linear(x)), 1)",
        ROWS,
        "50, 70",
        "i, o",
    ),
    "linear_rows, sum": task(
        "linear_rows/matmul_maxpool_sum_scale",
        "self.matmul = nn.Linear(i, o); self.d = d",
        "F.max_pool1d(self.matmul(x)[:, None], 2)[:, 0].sum(1) * self.d",
        ROWS,
        "50, 70, 2, 0.5",
        "i, o, w, d",
    ),
    "linear_rows, maximum": task(
        "linear_rows/matmul_avgpool_gelu_scale_max",
        "self.matmul = nn.Linear(i, o); self.d = d",
        "(F.gelu(F.avg_pool1d(self.matmul(x)[:, None], 16)[:, 0]) * self.d).max(1)[0]",
        ROWS,
        "50, 80, 16, 2.0",
        "i, o, w, d",
    ),
    "linear_rows, logarithm of a sum": task(
        "linear_rows/gemm_sigmoid_logsumexp",
        "self.linear1 = nn.Linear(i, m); self.linear2 = nn.Linear(m, o)",
        "torch.logsumexp(self.linear2(torch.sigmoid(self.linear1(x))), 1)",
        ROWS,
        "50, 70, 40",
        "i, m, o",
    ),
    "linear_sum": task(
        "linear_sum/gemm_divide_sum_scaling",
        "self.weight = nn.Parameter(torch.randn(o, i)); self.d = d",
        "(x @ self.weight.T / 2).sum(1, True) * self.d",
        ROWS,
        "50, 1100, 1.5",
        "i, o, d",
    ),
    "linear_sum added to the input": task(
        "linear_sum/gemm_subtract_globalavgpool_logsumexp_gelu_residualadd",
        "self.gemm = nn.Linear(i, o); self.subtract = nn.Parameter(torch.randn(o))",
        "F.gelu(torch.logsumexp((self.gemm(x) - self.subtract).mean(1, True), 1, True)) + x",
        ROWS,
        "50, 70",
        "i, o",
    ),
    "linear_chain": task(
        "linear_chain",
        "self.network = nn.Sequential(nn.Linear(i, n[0]), nn.ReLU(), nn.Linear(n[0], o))",
        "self.network(x)",
        ROWS,
        "50, [70], 40",
        "i, n, o",
    ),
}
CAUSAL = """
class Causal(nn.Module):
    def __init__(self, n, heads, length, weighted):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.register_buffer("bias", torch.tril(torch.ones(length, length)).view(1, 1, length, length))
        self.heads, self.weighted = heads, weighted

    def mixed(self, x):
        length = x.shape[1]
        q, k, v = self.c_attn(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, -torch.inf)
        return (self.weighted(scores) @ v).transpose(1, 2).flatten(2)

    def forward(self, x):
        return self.c_proj(self.mixed(x))


def softmax(scores):
    return scores.softmax(-1)
"""
GELU = "F.gelu(self.mlp.c_fc(self.ln_2(y)), approximate='tanh')"
PLACES = "torch.randn(2, 70, 48)"


def causal_task(family, weighted, answer, settings, arguments):
    """The task's model is the attention itself, so that its weights have no prefix."""
    name, source = task(family, "pass", answer, PLACES, settings, arguments, CAUSAL)
    source = source.replace("class Model(nn.Module)", "class Model(Causal)")
    return name, source.replace(
        "super().__init__()\n        pass", f"super().__init__(n, heads, length, {weighted})"
    )


CASES |= {
    "self_attention, causal": causal_task(
        "self_attention/mingptcausalattention",
        "softmax",
        "self.c_proj(self.mixed(x))",
        "48, 2, 0.0, 0.0, 100",
        "n, heads, a, r, length",
    ),
    "self_attention, by ReLU": causal_task(
        "self_attention/reluselfattention", "F.relu", "self.mixed(x)", "48, 2, 100", "n, heads, length"
    ),
    "self_attention in a block": task(
        "self_attention/minigptblock",
        "self.ln_1, self.ln_2 = nn.LayerNorm(n), nn.LayerNorm(n); "
        "self.attn = Causal(n, heads, length, softmax); "
        "self.mlp = nn.ModuleDict({'c_fc': nn.Linear(n, 4 * n), 'c_proj': nn.Linear(4 * n, n)})",
        f"(y := x + self.attn(self.ln_1(x))) + self.mlp.c_proj({GELU})",
        PLACES,
        "48, 2, 0.0, 0.0, 100",
        "n, heads, a, r, length",
        CAUSAL,
    ),
    "self_attention of images": task(
        "self_attention/visionattention",
        "self.attn = nn.MultiheadAttention(n, heads); self.norm = nn.LayerNorm(n)",
        "self.norm(self.attn(*[x.flatten(2).permute(2, 0, 1)] * 3)[0] + x.flatten(2).permute(2, 0, 1))"
        ".permute(1, 2, 0).unflatten(2, x.shape[2:])",
        "torch.randn(2, 24, 9, 10)",
        "24, 2",
        "n, heads",
    ),
}
