"""Building candidates before the GPU lease: what is compiled, how fast, and where it is kept.

`store` keeps finished builds by content, `builder` compiles one, `inline` stands in for
`torch.utils.cpp_extension.load_inline` inside the children, `gpu_code` does the same for Triton and
NVRTC, and `bridge` is the small library that lets a candidate compile without torch's headers.

Nothing here imports torch at import time.
"""
