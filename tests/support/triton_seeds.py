"""Judges Triton kernels where no GPU is: run as a script, in a process of its own.

    python -m tests.support.triton_seeds interpret|compile < cases.jsonl

`interpret` runs `ModelNew` of each kernel in Triton's interpreter, on the CPU, and prints the errors of the
task's model and of the kernel against float64. `compile` compiles each launch for compute capability 9.0,
without a device, and prints the bytes of shared memory and the instructions for tensor cores of each kernel.
"""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path


def main():
    mode = sys.argv[1]
    if mode == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        for line in sys.stdin:
            case = json.loads(line)
            try:
                answer = (interpreted if mode == "interpret" else compiled)(case, Path(folder))
            except Exception:  # noqa: BLE001 - what a kernel raises is the answer
                answer = {"error": traceback.format_exc()[-3000:]}
            print(json.dumps({"name": case["name"], **answer}), flush=True)


def interpreted(case, folder):
    import torch

    from tests.support.seed_kernels import errors, load_module

    torch.set_num_threads(1)
    _stand_in_for_the_device(torch)
    _loops_with_new_numpy()
    reference, kernel = (load_module(case[part], folder) for part in ("task", "kernel"))
    return {"errors": errors(reference, kernel)}


def compiled(case, folder):
    import torch

    from kbopt.leanbuild import gpu_code
    from tests.support.seed_kernels import load_module

    _stand_in_for_the_device(torch)
    reference, kernel = (load_module(case[part], folder) for part in ("task", "kernel"))
    made = {}
    finish = gpu_code._compile_launcher
    gpu_code._compile_launcher = lambda binary: made.setdefault(binary.metadata.name, []).append(binary)
    try:
        with gpu_code.ahead_of_device("9.0"), torch.no_grad():
            model = kernel.ModelNew(*reference.get_init_inputs())
            for part in model.modules():
                for name, value in [*part.named_parameters(recurse=False)]:
                    moved = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    setattr(part, name, torch.nn.Parameter(moved, requires_grad=False))
                for name, value in [*part.named_buffers(recurse=False)]:
                    setattr(part, name, torch.empty(value.shape, dtype=value.dtype, device="cuda"))
            model(
                *(
                    torch.empty(x.shape, dtype=x.dtype, device="cuda") if isinstance(x, torch.Tensor) else x
                    for x in reference.get_inputs()
                )
            )
    finally:
        gpu_code._compile_launcher = finish
    return {"kernels": [_facts(name, binary) for name, binaries in made.items() for binary in binaries]}


def _facts(name, binary):
    ptx = binary.asm["ptx"]
    instructions = {"wgmma": ptx.count("wgmma.mma_async"), "mma": ptx.count("mma.sync")}
    return {"kernel": name, "shared": binary.metadata.shared, **instructions}


def _stand_in_for_the_device(torch):
    """What seeds ask of a device that is not there: an H200 has 132 multiprocessors."""

    class Properties:
        multi_processor_count = 132

    torch.cuda.get_device_properties = lambda device=None: Properties


def _loops_with_new_numpy():
    """Triton 3.6 makes integers of arrays of one element, which numpy allowed until 2.4."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor
    if getattr(patch, "wrapped", False):
        return

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    patched.wrapped = True
    interpreter._patch_lang_tensor = patched


if __name__ == "__main__":
    main()
