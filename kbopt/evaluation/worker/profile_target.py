"""The process whose kernels ncu counts: makes one call between two marks, once it may go on."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from kbopt.core import codec
from kbopt.evaluation.messages import CallBoth
from kbopt.evaluation.worker.profile_process import GO, JOB, READY
from kbopt.evaluation.worker.profiled_call import ProfiledCall

_LOOK_S = 0.02
"""Seconds between two looks for the file `GO`."""


def main() -> None:
    """Wait for the file `GO`, and make the call. Without that file it waits until it is killed."""
    job = codec.loads(CallBoth, Path(JOB).read_text())
    call = ProfiledCall(job)
    Path(READY).touch()
    while not Path(GO).exists():
        time.sleep(_LOOK_S)
    call.prepare()
    torch.cuda.cudart().cudaProfilerStart()
    call.run()
    torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    main()
