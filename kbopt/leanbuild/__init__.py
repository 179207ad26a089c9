"""Fast builds of candidates' extensions, and a store of them.

`store` keeps finished builds by content, `builder` compiles one extension, `inline` replaces
`torch.utils.cpp_extension.load_inline` in a candidate's processes, `gpu_code` does the same for Triton and
NVRTC, and `bridge` is a small library with which a candidate compiles without torch's headers.

No module imports torch when it is imported.
"""
