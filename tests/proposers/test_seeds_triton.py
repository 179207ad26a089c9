"""The seed kernels in Triton, on the device: as right as PyTorch for sizes that no block divides."""

import pytest

from kbopt.proposers.seeds import seeds_for
from kbopt.tasks import list_tasks, load_task
from tests.support.seed_kernels import errors, load_module, with_sizes

pytestmark = pytest.mark.gpu

SIZES = [{}, {"TOKENS": 3, "FEATURES": 9001, "CLASSES": 5000, "M": 300, "K": 1031, "N": 270, "SIDE": 333}]


@pytest.mark.parametrize("sizes", SIZES, ids=["small", "odd"])
@pytest.mark.parametrize("name", [info.name for info in list_tasks()])
def test_every_seed_of_a_task_is_as_right_as_pytorch_on_the_device(name, sizes, tmp_path):
    task = load_task(name)
    reference = load_module(with_sizes(task.source, sizes), tmp_path)

    found = seeds_for(task.family, "cuda")

    assert found
    for seed in found:
        reference_error, kernel_error = errors(reference, load_module(seed.source, tmp_path), "cuda")
        assert kernel_error <= 4.0 * max(reference_error, 1.2e-7), seed.name
