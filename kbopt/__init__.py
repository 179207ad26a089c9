"""kbopt searches for faster GPU kernels: many explorers, one warm GPU, an evaluator that cannot be fooled."""

__version__ = "0.1.0"
