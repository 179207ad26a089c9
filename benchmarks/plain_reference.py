"""Times of KernelBench's references by a plain loop that imports nothing of kbopt, beside those of a run of
kernelbench_identity.

python3 benchmarks/plain_reference.py --kernelbench DIR --identity results.jsonl level1/62 level1/71 ...

Each call is timed by a pair of CUDA events on inputs drawn on the device, after the L2 was filled with other
data; the median of up to forty calls counts. PyTorch's own defaults hold: TF32 in convolutions, not in
products.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

import torch

_NUM_CALLS = 40
_ENOUGH_MS = 400.0


def plain_ms(source: str) -> float:
    """The median milliseconds of a call of `Model` of a task's source."""
    context: dict = {}
    exec(source, context)
    torch.manual_seed(1)
    model = context["Model"](*context["get_init_inputs"]()).cuda()
    with torch.device("cuda"):
        inputs = [x.cuda() if isinstance(x, torch.Tensor) else x for x in context["get_inputs"]()]
    flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    times: list[float] = []
    with torch.no_grad():
        for _ in range(3):
            model(*inputs)
        while len(times) < _NUM_CALLS and (len(times) < 10 or sum(times) < _ENOUGH_MS):
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            torch.cuda._sleep(400_000)  # So that launching is not in the time of short calls.
            start.record()
            model(*inputs)
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernelbench", type=Path, required=True)
    parser.add_argument("--identity", type=Path, required=True)
    parser.add_argument("tasks", nargs="+")
    arguments = parser.parse_args()
    seen = {row["task"]: row for row in map(json.loads, arguments.identity.read_text().splitlines())}
    for name in arguments.tasks:
        level, number = name.split("/")
        (file,) = (arguments.kernelbench / "KernelBench" / level).glob(f"{number}_*.py")
        source = file.read_text()
        ms = plain_ms(source)
        ours = seen.get(name, {}).get("reference_ms", 0.0)
        kind = "convolution" if "nn.Conv" in source else ""
        print(f"{name:10} plain {ms:9.4f} ms, kbopt {ours:9.4f} ms, ratio {ours / ms:.3f} {kind}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
