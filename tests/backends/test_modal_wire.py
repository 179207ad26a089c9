from __future__ import annotations

import secrets
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.backends.modal_wire import MAX_UNPACKED_BYTES, PAGE_BYTES, WireError, pack, unpack

STRINGS = tuple[str, ...]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text()).map(tuple))
def test_unpacking_gives_back_what_was_packed(value):
    assert unpack(STRINGS, pack(value)) == value


@pytest.mark.parametrize(("num_bytes", "num_pages"), [(0, 1), (5_000, 1), (50_000, 8), (500_000, 71)])
def test_pages_stay_within_the_inline_limit(num_bytes, num_pages):
    pages = pack((secrets.token_bytes(num_bytes).hex(),))
    assert all(0 < len(page) <= PAGE_BYTES for page in pages)
    assert len(pages) == pytest.approx(num_pages, rel=0.2, abs=0.5)


def test_a_missing_page_is_noticed():
    pages = pack((secrets.token_hex(50_000),))
    for damaged in (pages[:-1], pages[1:], [], [*pages[:-2], pages[-1]]):
        with pytest.raises(WireError):
            unpack(STRINGS, damaged)


def test_what_would_fill_the_memory_is_refused():
    bomb = zlib.compress(b" " * (MAX_UNPACKED_BYTES + 1))
    with pytest.raises(WireError, match="over 67108864 bytes"):
        unpack(STRINGS, [bomb])


def test_another_type_than_the_one_asked_for_is_refused():
    with pytest.raises(WireError, match="expected str, not 1"):
        unpack(STRINGS, pack((1, 2)))
