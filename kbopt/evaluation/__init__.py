"""Judges one source against one task, next to the device, and cannot be talked into a better verdict.

The service (`python -m kbopt.evaluation serve`) is made of four kinds of process:

- the supervisor (`service`) queues, compiles, holds the device lease and writes the results;
- the zygote (`zygote`) has imported torch, never touches CUDA, and forks the others in milliseconds;
- a referee per task (`referee`) holds the reference, the secret seed and the clock that is believed;
- a disposable child per candidate (`runner`), in a sandbox of its own (`sandbox`, `warden`).

Only kbopt.core, the standard library, numpy and torch are imported here.
"""
