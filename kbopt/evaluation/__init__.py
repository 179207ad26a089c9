"""Judges one source against one task, on the machine with the device, without trust in the source.

The service (`python -m kbopt.evaluation serve`) has four kinds of process, each with its own folder or
module:

- `server`: the supervisor. It has the queue, the builds, the device lease and the memory budget.
- `fork_server` has imported torch, never uses CUDA, and forks the others in milliseconds.
- `judge`: one process for each task, with the reference, the secret seed and the clock that counts.
- `worker`: one disposable process for each candidate, in its own `sandbox`.

`timing` has the clocks and the statistics, `transport` the exchange between processes, `build` the builds of
candidates, `kernelbench` that project's format and protocol, `profile` the readers of profiling tools, and
`spool` the folder by which machines without a network are asked. `worker` imports nothing of `judge` or
`server`, and `judge` nothing of `server`; CI checks this.

Apart from the standard library this package needs only kbopt.core, kbopt.leanbuild, numpy and torch.
"""
