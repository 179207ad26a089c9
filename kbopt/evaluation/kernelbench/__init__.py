"""KernelBench's task format and its own protocol."""
