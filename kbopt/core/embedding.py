"""A local embedder: where two kernels lie apart is a matter of their tokens, not of names or layout.

A source is read as tokens (Python outside, C inside its multi-line strings), without comments and white
space. Identifiers that the source defines are replaced by the order of their appearance *within each
n-gram*, and by how recently each was used: renaming changes nothing at all, and an inserted line changes
little beyond the n-grams around it.
The vector has two parts of fixed weight, one for structure and one for the numbers with the tokens
before them: a changed tile size stays visible however long the kernel is.
"""

from __future__ import annotations

import hashlib
import keyword
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

STRUCTURE_DIM = 192
NUMBERS_DIM = 64
NUMBERS_WEIGHT = 0.2
"""Share of the squared length that the numbers have: one of m equally weighted constants changed
moves the vector by sqrt(2 * NUMBERS_WEIGHT / m)."""

CONSTANT_WEIGHT = 4.0
"""How much more a number counts that is given a name (`BLOCK = 64`, `#define BLOCK 64`)."""

NGRAM_LENGTHS = (1, 3, 5)
BUCKETS_PER_FEATURE = 4

_PYTHON_TOKEN = re.compile(
    r"""(?P<code>[rRbBfFuU]{0,2}(?P<quote>'{3}|"{3})(?P<body>.*?)(?P=quote))"""
    r"""|(?P<comment>\#[^\n]*)"""
    r"""|(?P<string>[rRbBfFuU]{0,2}(?:'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))"""
    r"""|(?P<number>(?:0[xX][0-9a-fA-F]+|\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?))"""
    r"""|(?P<name>[^\W\d]\w*)|(?P<operator>\*\*=?|//=?|->|:=|[-+*/%&|^=<>!]=|<<|>>|\S)""",
    re.DOTALL | re.VERBOSE,
)
_C_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")"""
    r"""|(?P<number>(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)[uUlLfF]*)"""
    r"""|(?P<name>[^\W\d]\w*)|(?P<operator>->|\+\+|--|&&|\|\||::|[-+*/%&|^=<>!]=|<<|>>|\S)""",
    re.DOTALL | re.VERBOSE,
)
_C_WORDS = (
    "auto bool break case char const constexpr continue default define do double else endif enum extern "
    "float for half if ifdef ifndef include inline int int64_t long namespace pragma restrict return short "
    "signed size_t sizeof static struct switch template typedef typename uint32_t undef unsigned using void "
    "volatile while __global__ __device__ __shared__ __restrict__ __launch_bounds__ threadIdx blockIdx "
    "blockDim gridDim"
)
_KEPT = frozenset(keyword.kwlist) | frozenset(_C_WORDS.split()) | {"self", "True", "False", "None"}
_DEFINES_NEXT = frozenset({"def", "class"})
_NOT_A_TYPE = frozenset({"return", "else", "case", "in", "not", "and", "or", "if", "while", "for", "await"})

Token = tuple[str, str]
"""Kind (`name`, `own`, `number`, `string`, `operator`) and text; `own` names are renamed."""


class LocalEmbedder:
    """Hashed n-grams over normalised tokens, as unit vectors; needs no key, no model, no network."""

    name = "local-1"
    waits = False
    dim = STRUCTURE_DIM + NUMBERS_DIM

    def embed(self, sources: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(sources), self.dim), dtype=np.float32)
        for row, source in zip(vectors, sources, strict=True):
            tokens = normalise(source)
            structure = _hashed(_ngrams(tokens), STRUCTURE_DIM)
            numbers = _hashed(_numbers(tokens), NUMBERS_DIM)
            both = np.concatenate(
                [structure * math.sqrt(1.0 - NUMBERS_WEIGHT), numbers * math.sqrt(NUMBERS_WEIGHT)]
            )
            row[:] = both / (np.linalg.norm(both) or 1.0)
        return vectors


def normalise(source: str) -> list[Token]:
    """The tokens that matter, names that the source defines marked `own`."""
    tokens = list(_tokens(source, _PYTHON_TOKEN))
    own = _own_names(tokens)
    return [("own", text) if kind == "name" and text in own else (kind, text) for kind, text in tokens]


def _tokens(source: str, pattern: re.Pattern[str]) -> Iterator[Token]:
    for match in pattern.finditer(source):
        kind = match.lastgroup or ""
        if kind == "code":
            # Prose has no semicolons that end a line; what has them is C, compiled when the module loads.
            if re.search(r"[;{}]\s*$", match["body"], re.MULTILINE):
                yield from _tokens(match["body"], _C_TOKEN)
        elif kind == "number":
            yield kind, match[kind].rstrip("uUlLfF") if match[kind][:2].lower() != "0x" else match[kind]
        elif kind != "comment":
            yield kind, match[kind]


def _own_names(tokens: Sequence[Token]) -> set[str]:
    """Names the source may choose freely: all but keywords and what it calls or reads from elsewhere."""
    own: set[str] = set()
    for i, (kind, text) in enumerate(tokens):
        if kind != "name" or text in _KEPT:
            continue
        before = tokens[i - 1] if i else ("", "")
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        typed = before[0] == "name" and before[1] not in _NOT_A_TYPE
        if before[1] in _DEFINES_NEXT or (after == "(" and typed):
            own.add(text)
        elif before[1] == ".":
            if i > 1 and tokens[i - 2][1] == "self":
                own.add(text)
        elif after != "(" and [t for _, t in tokens[max(0, i - 2) : i]] != ["include", "<"]:
            own.add(text)
    return own


def _ngrams(tokens: Sequence[Token]) -> Iterator[tuple[str, float]]:
    plain = [("number", "#") if kind == "number" else (kind, text) for kind, text in tokens]
    for length in NGRAM_LENGTHS:
        for start in range(len(plain) - length + 1):
            yield _local(plain[start : start + length]), 1.0
    texts = _by_recency(plain)
    for i in range(1, len(texts) - 1):
        yield " ".join(texts[i - 1 : i + 2]), 1.0


def _by_recency(tokens: Sequence[Token]) -> list[str]:
    """Every own name as the number of other names used since its last use.

    N-grams alone do not see `x[i * n + j]` become `x[j * n + i]`; this does, whatever the names.
    """
    recent: list[str] = []
    texts: list[str] = []
    for kind, text in tokens:
        if kind != "own":
            texts.append(text)
            continue
        rank = recent.index(text) if text in recent else -1
        texts.append(f"\x01{rank}")
        if rank >= 0:
            del recent[rank]
        recent.insert(0, text)
    return texts


def _numbers(tokens: Sequence[Token]) -> Iterator[tuple[str, float]]:
    for i, (kind, text) in enumerate(tokens):
        if kind == "number":
            before = tokens[max(0, i - 3) : i]
            texts = [item[1] for item in before]
            constant = texts[-1:] == ["="] or "define" in (texts[-2:-1] + texts[-3:-2])
            yield f"{_local(before)} {text}", CONSTANT_WEIGHT if constant else 1.0


def _local(tokens: Sequence[Token]) -> str:
    """One n-gram as text, own names numbered by their first appearance in it."""
    seen: dict[str, str] = {}
    return " ".join(
        [seen.setdefault(text, f"\x00{len(seen)}") if kind == "own" else text for kind, text in tokens]
    )


def _hashed(features: Iterator[tuple[str, float]], dim: int) -> NDArray[np.float64]:
    """A unit vector of `dim` signed buckets; every feature falls into several, so that none hides another."""
    counts: Counter[str] = Counter()
    weights: dict[str, float] = {}
    for feature, weight in features:
        counts[feature] += 1
        weights[feature] = weight
    size = 4 * BUCKETS_PER_FEATURE
    digests = b"".join(hashlib.blake2b(feature.encode(), digest_size=size).digest() for feature in counts)
    words = np.frombuffer(digests, dtype="<u4").reshape(len(counts), BUCKETS_PER_FEATURE)
    values = np.array([weights[feature] * math.sqrt(count) for feature, count in counts.items()])
    signed = np.where(words & 1, values[:, None], -values[:, None])
    vector = np.bincount((words.ravel() >> 1) % dim, weights=signed.ravel(), minlength=dim)
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / (length or 1.0), dtype=np.float64)
