"""Calls of one process on a GPU by another's clock: is their end said by a message, or by the device?

A child's stream waits at a gate and calls a source; the judge opens the gate, looks at an output, and reads
the time between two events of its own stream. Interleaved, in one run: `message`, where the child writes to a
pipe once its stream is idle; `device`, where its stream writes a number that the judge's stream waits for;
and `early`, which writes that number before its calls. Needs a GPU and torch.

    python -m benchmarks.gpu_batches [--repeats 12] [--busy 16]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from kbopt.evaluation.transport import cuda_api

SLOTS = 128
SLOT_BYTES = 2**20
SPARE_BYTES = 256
DONE_AT = 128
FLUSH_BYTES = 256 * 2**20
LOOKED_AT = 32 * 1024
SOURCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copy": torch.clone,
    "tanh": torch.tanh,
    "four kernels": lambda x: torch.tanh(x) * 1.5 + torch.sin(x),
}
PLAN = [("copy", 4), ("copy", 32), ("four kernels", 4), ("four kernels", 32), ("tanh", 128)]
ARMS = ("message", "device", "early")


def child(pipe: Connection) -> None:
    """Play batches until the pipe closes."""
    device = torch.device("cuda")
    torch.cuda.init()
    driver, runtime = cuda_api.driver(), cuda_api.runtime()
    torch.empty(1, device=device)
    address = cuda_api.open_handle(runtime, pipe.recv())
    memory = cuda_api.tensor_at(address, SLOTS * SLOT_BYTES, device)
    inputs = [part.view(torch.float32) for part in memory.split(SLOT_BYTES)]
    gate = address + SLOTS * SLOT_BYTES
    for source in SOURCES.values():
        for x in inputs:
            source(x)
    torch.cuda.synchronize()
    while True:
        try:
            arm, source_name, length, number = pipe.recv()
        except EOFError:
            return
        stream = torch.cuda.current_stream().cuda_stream
        cuda_api.check(driver.cuStreamWaitValue32_v2(stream, gate, number, 0), "cuStreamWaitValue32")
        if arm == "early":
            driver.cuStreamWriteValue32_v2(stream, gate + DONE_AT, number, 0)
        outputs = [SOURCES[source_name](x) for x in inputs[:length]]
        if arm == "device":
            driver.cuStreamWriteValue32_v2(stream, gate + DONE_AT, number, 0)
        base, _ = cuda_api.segment_of(driver, outputs[-1].data_ptr())
        pipe.send((cuda_api.export(runtime, base), outputs[-1].data_ptr() - base))
        torch.cuda.synchronize()
        pipe.send("done")
        pipe.recv()
        del outputs


class Judge:
    """Opens the gate and looks."""

    def __init__(self) -> None:
        torch.cuda.init()
        self._device = torch.device("cuda")
        self._driver, self._runtime = cuda_api.driver(), cuda_api.runtime()
        torch.empty(1, device=self._device)
        address = ctypes.c_void_p()
        total_bytes = SLOTS * SLOT_BYTES + SPARE_BYTES
        cuda_api.check(self._runtime.cudaMalloc(ctypes.byref(address), total_bytes), "cudaMalloc")
        self._gate = int(address.value or 0) + SLOTS * SLOT_BYTES
        everything = cuda_api.tensor_at(int(address.value or 0), total_bytes, self._device)
        everything.zero_()
        self._inputs = everything[: SLOTS * SLOT_BYTES]
        torch.cuda.synchronize()
        self._fresh = torch.randn(SLOTS * SLOT_BYTES // 4, device=self._device).view(torch.uint8)
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self._device)
        self._places = torch.randint(SLOT_BYTES, (LOOKED_AT,), device=self._device)
        self._number = 0
        self._opened: dict[str, torch.Tensor] = {}
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=child, args=(theirs,), daemon=True)
        self._child.start()
        self._pipe.send(cuda_api.export(self._runtime, int(address.value or 0)))

    def batch(self, arm: str, source: str, length: int) -> tuple[float, bool]:
        """Milliseconds between the judge's events; whether it saw what was there in the end."""
        self._number += 1
        self._pipe.send((arm, source, length, self._number))
        handle, offset = self._pipe.recv()
        output = self._segment(handle)[offset : offset + SLOT_BYTES]
        torch.cuda.synchronize()
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream().cuda_stream
        for _ in range(4):
            self._flush.zero_()
        begun.record()
        size_bytes = length * SLOT_BYTES
        self._inputs[:size_bytes].copy_(self._fresh[:size_bytes])
        self._flush.zero_()
        self._driver.cuStreamWriteValue32_v2(stream, self._gate, self._number, 0)
        if arm == "message":
            self._pipe.recv()
        else:
            self._driver.cuStreamWaitValue32_v2(stream, self._gate + DONE_AT, self._number, 0)
        seen = output[self._places]
        done.record()
        if arm != "message":
            self._pipe.recv()
        done.synchronize()
        is_right = torch.equal(seen, output[self._places])
        self._pipe.send("free")
        return begun.elapsed_time(done), is_right

    def _segment(self, handle: str) -> torch.Tensor:
        if handle not in self._opened:
            address = cuda_api.open_handle(self._runtime, handle)
            _, size_bytes = cuda_api.segment_of(self._driver, address)
            self._opened[handle] = cuda_api.tensor_at(address, size_bytes, self._device)
        return self._opened[handle]


def spread(samples: list[float]) -> float:
    low, _, high = statistics.quantiles(samples, n=4)
    return high - low


def measure(judge: Judge, repeats: int, label: str) -> list[dict[str, Any]]:
    todo = [(arm, source, length) for arm in ARMS for source, length in PLAN] * repeats
    random.Random(0).shuffle(todo)
    found: dict[tuple[str, str, int], list[tuple[float, bool]]] = {}
    for key in [*dict.fromkeys(todo), *todo]:
        found.setdefault(key, []).append(judge.batch(*key))
    rows = []
    for source, length in PLAN:
        times = {arm: [ms for ms, _ in found[arm, source, length][1:]] for arm in ARMS}
        medians = {arm: statistics.median(samples) for arm, samples in times.items()}
        spreads = {arm: spread(samples) for arm, samples in times.items()}
        rows.append({"label": label, "batch": f"{length} x {source}", "medians": medians, "spreads": spreads})
        figures = ", ".join(
            f"{arm} {medians[arm]:.3f} ms (quartiles {spreads[arm]:.4f} apart)" for arm in ARMS
        )
        print(
            f"{label}: {length} x {source}: {figures}; message / device: "
            f"{spreads['message'] / max(spreads['device'], 1e-4):.0f} of the spread; early / device: "
            f"{medians['early'] / medians['device']:.4f} of the time; all seen: "
            f"{all(right for samples in found.values() for _, right in samples)}",
            flush=True,
        )
    return rows


def burn() -> None:
    os.nice(10)
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=12, help="batches of each kind (default 12)")
    parser.add_argument("--busy", type=int, default=16, help="processes that burn a core (default 16)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    judge = Judge()
    rows = measure(judge, arguments.repeats, "quiet")
    burners = [
        multiprocessing.get_context("spawn").Process(target=burn, daemon=True) for _ in range(arguments.busy)
    ]
    for process in burners:
        process.start()
    rows += measure(judge, arguments.repeats, f"{arguments.busy} busy cores")
    for process in burners:
        process.kill()
    if arguments.json:
        found = {"device": torch.cuda.get_device_name(), "rows": rows}
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
