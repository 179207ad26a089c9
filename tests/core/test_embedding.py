from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.embedding import LocalEmbedder
from kbopt.core.settings import DEFAULT_EPSILON

TRITON = """
import triton
import triton.language as tl

BLOCK = 1024  # tune: 512, 1024, 2048

@triton.jit
def scale_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask)
    tl.store(y_ptr + offsets, 2.0 * x, mask=mask)
"""

C = '''
import ctypes
TILE = 64  # tune: 32, 64
SOURCE = r"""
#include <math.h>
#define UNROLL 4
/* the row sums */
void rows(const float* restrict x, float* restrict y, long n) {
    for (long i = 0; i < n; i++) { // one row
        float total = 0.0f;
        for (long j = 0; j < n; j++) total += x[i * n + j];
        y[i] = total;
    }
}
"""
'''


def distance(a: str, b: str) -> float:
    u, v = LocalEmbedder().embed([a, b])
    return float(np.linalg.norm(u - v))


def rename(source: str, **names: str) -> str:
    for old, new in names.items():
        source = re.sub(rf"\b{old}\b", new, source)
    return source


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (TRITON, {"scale_kernel": "k", "x_ptr": "source", "offsets": "o", "BLOCK": "SIZE"}),
        (C, {"rows": "sums", "total": "accumulator", "i": "row", "j": "column", "TILE": "T"}),
    ],
)
def test_a_renamed_kernel_lies_where_it_lay(source, names):
    renamed = rename(source, **names)
    assert renamed != source
    assert distance(source, renamed) == 0.0


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        (TRITON, "    ", "\t"),
        (TRITON, "\n", "\n\n"),
        (TRITON, "  # tune: 512, 1024, 2048", ""),
        (TRITON, " * ", "*"),
        (C, "/* the row sums */", ""),
        (C, " // one row", ""),
    ],
)
def test_white_space_and_comments_do_not_matter(source, old, new):
    assert old in source
    assert distance(source, source.replace(old, new)) == 0.0


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        (TRITON, "BLOCK = 1024", "BLOCK = 2048"),
        (C, "TILE = 64", "TILE = 32"),
        (C, "UNROLL 4", "UNROLL 8"),
        (TRITON, "2.0 * x", "x * x"),
        (TRITON, "tl.load", "tl.store"),
        (C, "total += x[i * n + j]", "total += x[j * n + i]"),
        (C, "#include <math.h>", "#include <immintrin.h>"),
        (C, "const float* restrict x", "const float* x"),
    ],
)
def test_a_change_of_what_is_computed_or_tuned_is_seen_at_the_default_epsilon(source, old, new):
    assert old in source
    assert distance(source, source.replace(old, new)) > 2.0 * DEFAULT_EPSILON


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4096), st.integers(0, 4096))
def test_no_two_values_of_a_tunable_are_taken_for_the_same(a, b):
    one, other = (TRITON.replace("BLOCK = 1024", f"BLOCK = {value}") for value in (a, b))
    assert (distance(one, other) > DEFAULT_EPSILON) == (a != b)


def test_another_algorithm_is_far():
    assert distance(TRITON, C) > 0.8


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_has_a_unit_vector_or_none(source):
    length = float(np.linalg.norm(LocalEmbedder().embed([source])[0]))
    assert length == pytest.approx(1.0, abs=1e-5) or length == 0.0


def test_vectors_are_the_same_in_another_process():
    program = (
        "import sys; from kbopt.core.embedding import LocalEmbedder\n"
        "sys.stdout.write(LocalEmbedder().embed([sys.stdin.read()]).tobytes().hex())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        input=TRITON,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONHASHSEED": "77"},
    )
    assert other.stdout == LocalEmbedder().embed([TRITON]).tobytes().hex()
