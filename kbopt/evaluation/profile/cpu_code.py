"""Parses `objdump -d -C` of a library for x86-64 or 64-bit ARM: vector width and kinds of instruction."""

from __future__ import annotations

import re

from kbopt.core.profile import KernelCode
from kbopt.evaluation.profile.listing import MOST_KERNELS, Function, kind_of

_FORMAT = re.compile(r"file format elf64-(x86-64|littleaarch64)")
_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+([a-z][\w.]*)(.*)$")
_VECTOR = r"v?(?:add|sub|mul|div|sqrt|max|min|rcp|rsqrt|round|rndscale|dp|range|reduce)(?:14)?"
_X86 = {
    "multiply-add": re.compile(r"vf?n?m(?:add|sub)\w*[ps][sdh]$|vfnm?\w*[ps][sdh]$|vfm\w+[ps][sdh]$"),
    "dot product": re.compile(r"vpdp\w+|tdp\w+|vdpbf16ps"),
    "float": re.compile(rf"{_VECTOR}[ps][sdh]$|v?u?comis[sd]$|v?cmp\w*[ps][sd]$"),
    "convert": re.compile(r"v?cvt\w+"),
    "shuffle": re.compile(
        r"v?(?:shuf|perm|unpck|blend|broadcast|insert|extract|pshuf|punpck|palign|movhl|movlh|movsl?dup|movddup)\w*"
    ),
    "gather": re.compile(r"v?p?(?:gather|scatter)\w+"),
    "vector move": re.compile(
        r"v?mov(?:[au]p[sd]|dq[au]\w*|nt\w+|s[sd]|[hl]p[sd]|[dq])$|v?lddqu|prefetch\w+"
    ),
    "call": re.compile(r"call|jmp\s+\*"),
    "branch": re.compile(r"j\w+|ret|loop"),
    "move": re.compile(r"mov|push|pop|cmov|xchg|lea"),
    "integer": re.compile(
        r"add|sub|imul|mul|idiv|div|inc|dec|neg|not|and|or|xor|sh[lr]|sa[lr]|cmp|test|bt|set|c[dqw]|v?p[a-z]+[bwdq]"
    ),
}
_ARM = {
    "multiply-add": re.compile(r"fml[as]|fn?madd|fn?msub"),
    "float": re.compile(r"f(?:add|sub|mul|div|sqrt|max|min|abs|neg|cmp|rint)\w*"),
    "convert": re.compile(r"fcvt\w*|[su]cvtf"),
    "vector move": re.compile(r"ld[1-4]|st[1-4]|dup|fmov"),
    "shuffle": re.compile(r"zip|uzp|trn|ext|tbl|rev"),
    "call": re.compile(r"blr?$"),
    "branch": re.compile(r"b(?:\.\w+)?$|cbn?z|tbn?z|ret"),
    "move": re.compile(r"ldp|stp|ldr|str|mov"),
    "integer": re.compile(r"add|sub|mul|madd|and|orr|eor|ls[lr]|asr|cmp|csel"),
}
_ARITHMETIC = ("multiply-add", "dot product", "float")
_SCALAR = re.compile(r".*s[sdh]$")
_FEWEST = 4
"""A function with fewer floating-point instructions is no kernel: Python bindings convert arguments."""
_FOREIGN = ("std::", "c10::", "at::", "torch::", "pybind11::", "void std::", "_init", "__")


def kernels(text: str) -> tuple[KernelCode, ...]:
    """Return the functions with the most floating-point instructions, without those of libraries' headers."""
    kind = _FORMAT.search(text)
    if kind is None:
        return ()
    is_x86 = kind.group(1) == "x86-64"
    found: list[Function] = []
    for line in text.splitlines():
        if match := _FUNCTION.match(line):
            found.append(Function(match.group(1)))
        elif found and (match := _INSTRUCTION.match(line)):
            _note(found[-1], match.group(1), match.group(2), is_x86=is_x86)
    mine = [f for f in found if _arithmetic(f) >= _FEWEST and not f.name.startswith(_FOREIGN)]
    return tuple(
        KernelCode(
            name=function.name,
            target="x86-64" if is_x86 else "aarch64",
            instructions=function.instructions,
            vector_bits=function.vector_bits,
            mix=function.mix,
        )
        for function in sorted(mine, key=_arithmetic, reverse=True)[:MOST_KERNELS]
    )


def _note(function: Function, opcode: str, operands: str, *, is_x86: bool) -> None:
    if opcode.startswith(("nop", "endbr")) or (opcode in ("data16", "cs", "xchg") and "%ax,%ax" in operands):
        return
    kind = kind_of(opcode, _X86 if is_x86 else _ARM)
    function.kinds[kind] += 1
    if kind in _ARITHMETIC:
        bits = _x86_bits(opcode, operands) if is_x86 else _arm_bits(operands)
        function.vector_bits = max(function.vector_bits, bits)


def _x86_bits(opcode: str, operands: str) -> int:
    for register, bits in (("%zmm", 512), ("%ymm", 256)):
        if register in operands:
            return bits
    if _SCALAR.match(opcode):
        return {"h": 16, "s": 32}.get(opcode[-1], 64)
    return 128


def _arm_bits(operands: str) -> int:
    if re.search(r"\bz\d+\.", operands):
        return 256  # A guess: each processor has its own width of SVE, of at least 128 bits.
    if re.search(r"\bv\d+\.(?:4s|2d|8h|16b)", operands):
        return 128
    return 64 if re.search(r"\bd\d+", operands) else 32


def _arithmetic(function: Function) -> int:
    return sum(function.kinds[kind] for kind in _ARITHMETIC)
