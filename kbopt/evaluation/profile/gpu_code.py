"""Parses the output of `cuobjdump`: the resources of each kernel and its SASS."""

from __future__ import annotations

import re
from collections import defaultdict

from kbopt.core.profile import KernelCode
from kbopt.evaluation.profile.listing import MOST_KERNELS, Function, base_name, kind_of

_ARCH = re.compile(r"^\s*(?:arch = |code for )(sm_\w+)")
_RESOURCES_OF = re.compile(r"^\s*Function\s+(\S+?):\s*$")
_RESOURCE = re.compile(r"\b(REG|STACK|SHARED|LOCAL):(\d+)")
_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T\d]+\s+)?([A-Z][\w.]*)")
_KINDS = {
    "tensor": re.compile(r"(?:H|I|D|Q|O|B)G?MMA|UTC\w*MMA"),
    "fp64": re.compile(r"D(?:ADD|MUL|FMA|SETP|MNMX)"),
    "fp16": re.compile(r"H(?:ADD|MUL|FMA|SET|SETP|MNMX)2?"),
    "fp32": re.compile(r"F(?:ADD|MUL|FMA|SETP|MNMX|SEL|SET|SWZADD|CHK)"),
    "special": re.compile(r"MUFU|RRO"),
    "global load": re.compile(r"LD(?:G|\.)|LD$"),
    "global store": re.compile(r"ST(?:G|\.)|ST$|RED|ATOMG?\b"),
    "async copy": re.compile(r"LDGSTS|UBLKCP|UTMA\w+|LDGDEPBAR"),
    "shared": re.compile(r"LDS|STS|LDSM|STSM|ATOMS"),
    "local": re.compile(r"LDL|STL"),
    "constant": re.compile(r"U?LDC"),
    "convert": re.compile(r"(?:F2F|F2FP|F2I|I2F|I2FP|FRND|I2I|F2IP)"),
    "shuffle": re.compile(r"SHFL|VOTE|MATCH|REDUX"),
    "barrier": re.compile(r"BAR|SYNCS|MEMBAR|DEPBAR|WARPSYNC|FENCE"),
    "control": re.compile(r"BRA|BRX|JMP|EXIT|CALL|RET|BSSY|BSYNC|YIELD|BREAK|NOP|BPT"),
    "integer": re.compile(
        r"U?(?:IADD|IMAD|IMUL|ISETP|IMNMX|ISCADD|LEA|SHF|SHL|SHR|LOP3?|PLOP3|IABS|POPC|FLO|BREV|PRMT|SEL|SGXT|VIADD)"
        r"|VIMNMX"
    ),
    "move": re.compile(r"U?MOV|U?R2UR|S2U?R|CS2R|P2R|R2P|MOVM"),
}
"""Kinds by the beginning of an opcode. `_kind` decides first where two kinds begin alike."""
_ARITHMETIC = ("tensor", "fp32", "fp16", "fp64", "special")
_GLOBAL = re.compile(r"(?:LDG|STG|LD|ST)\.")


def resources(text: str) -> dict[tuple[str, str], dict[str, int]]:
    """Parse `cuobjdump --dump-resource-usage`. Return resources by architecture and mangled name.

    They are registers per thread (`REG`), bytes of static shared memory per block (`SHARED`), and bytes of
    local memory per thread (`STACK` and `LOCAL`). The result is empty for another text.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    target = name = ""
    for line in text.splitlines():
        if match := _ARCH.match(line):
            target = match.group(1)
        elif match := _RESOURCES_OF.match(line):
            name = match.group(1)
        elif name and (figures := dict(_RESOURCE.findall(line))) and "REG" in figures:
            found[target, name] = {what: int(figure) for what, figure in figures.items()}
            name = ""
    return found


def functions(text: str) -> dict[tuple[str, str], Function]:
    """Parse `cuobjdump -sass`. Return functions by architecture and mangled name."""
    found: dict[tuple[str, str], Function] = {}
    target, current = "", None
    for line in text.splitlines():
        if match := _ARCH.match(line):
            target = match.group(1)
        elif match := _FUNCTION.match(line):
            current = found[target, match.group(1)] = Function(match.group(1))
        elif current is not None and (match := _INSTRUCTION.match(line)):
            opcode = match.group(1)
            if opcode == "NOP":  # ptxas fills a kernel's last cache line with these.
                continue
            current.kinds[_kind(opcode)] += 1
            if _GLOBAL.match(opcode):
                current.vector_bits = max(current.vector_bits, _width(opcode))
    return found


def kernels(resource_text: str, sass_text: str) -> tuple[KernelCode, ...]:
    """Join both texts and return the kernels, those with the most arithmetic first.

    A function that has resources but no SASS listing is left out: it is no kernel.
    """
    used, listed = resources(resource_text), functions(sass_text)
    names = defaultdict[str, int](int)
    for _, name in used:
        names[base_name(name)] += 1
    rows = [
        KernelCode(
            name=base_name(name) if names[base_name(name)] == 1 else name,
            target=target,
            instructions=listed[target, name].instructions,
            vector_bits=listed[target, name].vector_bits,
            mix=listed[target, name].mix,
            registers=figures["REG"],
            shared_bytes=figures.get("SHARED", 0),
            local_bytes=figures.get("LOCAL", 0) + figures.get("STACK", 0),
        )
        for (target, name), figures in used.items()
        if (target, name) in listed
    ]
    return tuple(sorted(rows, key=_arithmetic, reverse=True)[:MOST_KERNELS])


def _arithmetic(kernel: KernelCode) -> float:
    return kernel.instructions * sum(part.share for part in kernel.mix if part.kind in _ARITHMETIC)


def _kind(opcode: str) -> str:
    if opcode.startswith(("LDGSTS", "LDGDEPBAR")):
        return "async copy"
    if opcode.startswith("ATOMS"):
        return "shared"
    if opcode == "HFMA2.MMA":  # ptxas writes constants into registers with it.
        return "move"
    return kind_of(opcode, _KINDS)


def _width(opcode: str) -> int:
    """Return the bits that a thread loads or stores: 32 if the instruction names no width."""
    for part in opcode.split("."):
        if part in ("64", "128", "256"):
            return int(part)
        if part in ("U8", "S8"):
            return 8
        if part in ("U16", "S16"):
            return 16
    return 32
