"""Inputs in memory that another process maps."""

import random

import torch

from kbopt.evaluation.transport.input_buffer import CpuInputBuffer, attach
from kbopt.evaluation.transport.layout import TensorSpec, view


def test_sets_of_mixed_tensors_arrive_where_they_were_chosen_to_lie():
    sets = [
        (torch.randn(3, 5), torch.randint(0, 9, (7,)), torch.empty(0), torch.rand(4) > 0.5) for _ in range(6)
    ]
    specs = [TensorSpec.of(tensor) for tensor in sets[0]]
    input_buffer = CpuInputBuffer([specs], 6, 0, 0, torch.device("cpu"))
    rng = random.Random(0)

    places = [input_buffer.choose(slot, rng) for slot in range(6)]
    input_buffer.fill(places, sets)
    seen = attach(input_buffer.fds)
    input_buffer.fds = ()  # `attach` has closed them, as it does in the process that they are sent to.

    for offsets, tensors in zip(places, sets, strict=True):
        for spec, offset, tensor in zip(specs, offsets, tensors, strict=True):
            assert torch.equal(view(seen, spec, offset), tensor)
    assert places[0] != input_buffer.choose(0, rng)
    input_buffer.close()


def test_nothing_to_fill_is_nothing():
    input_buffer = CpuInputBuffer([[]], 2, 0, 0, torch.device("cpu"))

    input_buffer.fill([input_buffer.choose(0, random.Random(0))], [()])

    input_buffer.close()


def test_workloads_share_the_memory_of_the_largest_one_at_a_time():
    small, large = ([TensorSpec.of(torch.zeros(size))] for size in (1000, 8000))
    input_buffer = CpuInputBuffer([small, large], 3, 0, 0, torch.device("cpu"))
    rng, inputs = random.Random(0), [torch.rand(8000) for _ in range(3)]

    input_buffer.turn_to(1)
    places = [input_buffer.choose(slot, rng) for slot in range(3)]
    input_buffer.fill(places, [(one,) for one in inputs])

    assert input_buffer.size_bytes < 3 * (4 * 8000 + 2**15)
    for offsets, tensor in zip(places, inputs, strict=True):
        assert torch.equal(input_buffer.views(offsets)[0], tensor)
    input_buffer.turn_to(0)
    assert input_buffer.views(input_buffer.choose(2, rng))[0].shape == (1000,)
    input_buffer.close()
