"""What crosses processes: nested values, raw buffers, messages."""

import json
import os
import threading
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch

from kbopt.core import codec
from kbopt.evaluation.transport.channel import Channel, ChannelClosed, WireError
from kbopt.evaluation.transport.layout import (
    LayoutError,
    TensorSpec,
    dense,
    flatten,
    has_form,
    is_dense,
    unflatten,
    view,
)

WANTED = {"tuple": [{"tensor": 0}, {"list": [{"tensor": 1}]}, {"dict": {"a": {"value": None}}}]}


def test_a_list_has_the_form_of_a_tuple():
    seen = {"list": [{"tensor": 0}, {"tuple": [{"tensor": 1}]}, {"dict": {"a": {"value": None}}}]}
    assert has_form(WANTED, WANTED)
    assert has_form(seen, WANTED)


@pytest.mark.parametrize(
    "junk", [None, 7, 0.5, "tuple", True, [], {}, {"list": 3}, {"tuple": None}, {"dict": []}]
)
def test_what_is_no_skeleton_has_no_form(junk: object):
    """Wherever it stands: a worker can send anything."""
    assert not has_form(junk, WANTED)
    for place in range(3):
        items = list(WANTED["tuple"])
        items[place] = junk
        assert not has_form({"tuple": items}, WANTED)
    assert not has_form({"tuple": [*WANTED["tuple"][:2], {"dict": {"a": junk}}]}, WANTED)
    assert not has_form({"tuple": WANTED["tuple"], "list": junk}, WANTED)


def test_a_nested_value_comes_back_around_other_tensors():
    value = ([torch.ones(2), 3], {"a": (torch.zeros(1), None), "b": "text"}, torch.float16)

    skeleton, tensors = flatten(value)
    rebuilt = unflatten(skeleton, [t + 1 for t in tensors])

    assert rebuilt[0][1] == 3
    assert rebuilt[0][0].tolist() == [2.0, 2.0]
    assert rebuilt[1]["a"][0].tolist() == [1.0]
    assert rebuilt[1]["a"][1] is None
    assert rebuilt[2] is torch.float16


def test_a_subclass_of_tensor_does_not_cross():
    class Lazy(torch.Tensor):
        pass

    with pytest.raises(LayoutError, match="Lazy"):
        flatten([torch.ones(1).as_subclass(Lazy)])


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.ones(3, 4), True),
        (torch.ones(3, 4).T, True),
        (torch.ones(2, 3, 4).permute(2, 0, 1), True),
        (torch.ones(3, 1).expand(3, 4), False),
        (torch.ones(3, 8)[:, ::2], False),
        (torch.ones(()), True),
        (torch.ones(0, 3), True),
    ],
)
def test_dense_means_that_every_element_has_its_own_place_without_gaps(tensor, expected):
    assert is_dense(tensor.shape, tensor.stride()) is expected
    assert torch.equal(dense(tensor), tensor)


def test_a_view_of_raw_bytes_has_the_tensors_values_and_strides():
    tensor = torch.arange(12, dtype=torch.int32).reshape(3, 4).T
    buffer = torch.zeros(256, dtype=torch.uint8)

    copy = view(buffer, TensorSpec.of(tensor), 64)
    copy.copy_(tensor)

    assert torch.equal(view(buffer, TensorSpec.of(tensor), 64), tensor)
    assert copy.stride() == tensor.stride()


@pytest.mark.parametrize(
    ("dtype", "shape", "stride"),
    [
        ("float32", (-1,), (1,)),
        ("float32", (1,), (-1,)),
        ("float32", (2**48,), (1,)),
        ("nonsense", (1,), (1,)),
        ("float32", (1, 2), (1,)),
        ("float32", (1,) * 65, (1,) * 65),
    ],
)
def test_a_spec_that_no_tensor_has_is_refused(dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]):
    with pytest.raises(LayoutError):
        TensorSpec(dtype=dtype, shape=shape, stride=stride).require_possible()


def test_messages_and_descriptors_arrive():
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    read, write = os.pipe()

    # More than a socket's buffer holds, so the writer needs a reader at the same time.
    sender = threading.Thread(target=ours.send, args=({"text": "x" * 2_000_000}, [write]))
    sender.start()
    message = other.receive_json(5)
    sender.join()

    (fd,) = other.take_fds()
    os.write(fd, b"here")
    assert os.read(read, 4) == b"here"
    assert len(message["text"]) == 2_000_000
    for one in (read, write, fd):
        os.close(one)
    ours.close()
    with pytest.raises(ChannelClosed):
        other.receive_json(5)
    other.close()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x7f\xff\xff\xff", "2147483647 bytes"),
        (b"\x00\x00\x00\x02[]", "not a JSON object"),
        (b"\x00\x00\x00\x02{x", "not JSON"),
    ],
)
def test_what_is_no_message_is_refused(raw, words):
    ours, theirs = Channel.pair()
    theirs.sendall(raw)

    with pytest.raises(WireError, match=words):
        ours.receive_json(5)
    ours.close()
    theirs.close()


def test_silence_ends_in_a_timeout():
    ours, theirs = Channel.pair()

    with pytest.raises(TimeoutError):
        ours.receive_json(0.05)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("spin_s", [0.0, 0.01, 10.0])
def test_a_message_arrives_however_long_it_was_spun_for(spin_s: float):
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    other.spin_s = spin_s
    sender = threading.Timer(0.05, ours.send, args=({"late": True},))
    sender.start()

    assert other.receive_json(5) == {"late": True}
    sender.join()
    ours.close()
    with pytest.raises(ChannelClosed):
        other.receive_json(5)
    other.close()


class Point(NamedTuple):
    x: torch.Tensor
    y: int


def test_named_tuples_cross_as_tuples_and_ordered_dicts_as_dicts():
    ones = torch.ones(2, 2)

    assert flatten(Point(ones, 3))[0] == flatten((ones, 3))[0]
    assert flatten(torch.max(ones, 1))[0] == {"tuple": [{"tensor": 0}, {"tensor": 1}]}
    assert flatten(ones.shape)[0] == {"tuple": [{"value": 2}, {"value": 2}]}
    assert flatten(OrderedDict(a=ones))[0] == flatten({"a": ones})[0]
    assert flatten([ones])[0] != flatten((ones,))[0]


def test_a_tuple_of_its_own_kind_crosses_with_what_it_holds():
    class Late(tuple):
        def __iter__(self):
            raise AssertionError("computed only when it is looked at")

    assert flatten(Late([torch.ones(1)]))[0] == {"tuple": [{"tensor": 0}]}


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(3).to_sparse(), "layout sparse_coo"),
        (torch.empty(3, dtype=torch.bits8), "dtype bits8"),
    ],
)
def test_tensors_that_are_more_than_memory_with_strides_do_not_cross(tensor: torch.Tensor, words: str):
    with pytest.raises(LayoutError, match=words):
        flatten(tensor)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64", "complex64"])
def test_every_dtype_with_values_crosses(name: str):
    tensor = torch.tensor([1, 2, 3]).to(getattr(torch, name))
    buffer = torch.zeros(256, dtype=torch.uint8)
    spec = codec.decode(TensorSpec, json.loads(codec.packed(TensorSpec.of(tensor))))

    view(buffer, spec, 0).copy_(tensor)

    assert view(buffer, spec, 0).to(torch.complex128).real.tolist() == [1.0, 2.0, 3.0]
