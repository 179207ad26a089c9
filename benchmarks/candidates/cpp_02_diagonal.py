import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = """
#include <torch/extension.h>

at::Tensor scale_rows(const at::Tensor& a, const at::Tensor& b) {
    auto out = torch::empty_like(b);
    const auto rows = b.size(0), columns = b.size(1);
    AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "scale_rows", [&] {
        const auto* s = a.data_ptr<scalar_t>();
        const auto* x = b.data_ptr<scalar_t>();
        auto* y = out.data_ptr<scalar_t>();
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) y[i * columns + j] = s[i] * x[i * columns + j];
    });
    return out;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("scale_rows", &scale_rows, "diag(a) times b");
}
"""

ext = load_inline(name="scale_rows_cpu", cpp_sources=[source], extra_cflags=["-O3"])


class ModelNew(nn.Module):
    def forward(self, A, B):
        return ext.scale_rows(A, B.contiguous())
