"""Judges one source against one task, next to the device, and cannot be talked into a better verdict.

The service (`python -m kbopt.evaluation serve`) is made of four kinds of process, and the folders show them:

- `server`: the supervisor queues, builds, holds the device lease and the memory budget, and writes results;
- `fork_server` has imported torch, never touches CUDA, and forks the others in milliseconds;
- `judge`: one process per task holds the reference, the secret seed and the clock that is believed;
- `worker`: one disposable process per candidate, in a `sandbox` of its own.

`timing` says what is timed and what the times mean, `transport` what processes exchange, `build` makes a
candidate's extensions, and `kernelbench` is that project's own format and protocol. `worker` imports nothing
of `judge` or `server`, `judge` nothing of `server`: CI checks it.

Only kbopt.core, the standard library, numpy and torch are imported here.
"""
