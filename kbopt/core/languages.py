"""Languages that kernels are written in, and the packages that some need on the machine that judges them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["c", "cuda", "triton", "nvrtc", "cutlass", "cutedsl", "tilelang", "cublaslt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a language's kernels import: `modules`, which `pip install` of the `requirements` brings."""

    name: str
    modules: tuple[str, ...]
    requirements: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to do where it is missing, as the end of a message."""
        wanted = " ".join(f"'{one}'" for one in self.requirements)
        return f"pip install {wanted} where kernels are judged"


PACKAGES: Mapping[Language, Package] = {
    "cutedsl": Package(
        name="CuTe DSL",
        modules=("cutlass", "tvm_ffi"),
        requirements=("nvidia-cutlass-dsl==4.8.1", "apache-tvm-ffi==0.1.12"),
    ),
    "cutlass": Package(
        name="CUTLASS", modules=("cutlass_library",), requirements=("nvidia-cutlass==4.2.0.0",)
    ),
    "tilelang": Package(
        name="TileLang",
        modules=("tilelang",),
        requirements=("tilelang==0.1.15", "apache-tvm-ffi==0.1.12"),
    ),
}
"""By language. Versions are those that the prompts' examples were compiled with; `tilelang` 0.1.15 allows of
`apache-tvm-ffi` 0.1.11 and 0.1.12 alone. Other languages need torch, Triton and the CUDA toolkit."""

_ABSENT = re.compile(r"No module named '(\w+)")


def missing(language: Language, here: Callable[[str], bool]) -> Package | None:
    """The language's package where one of its modules is absent, by `here`; None where all are there."""
    package = PACKAGES.get(language)
    return package if package and not all(map(here, package.modules)) else None


def has_module(name: str) -> bool:
    """Whether this Python can import the module; nothing is imported."""
    return importlib.util.find_spec(name) is not None


def remedy_of(error: str) -> str:
    """What to do about an import that failed with this text; empty where no language's package is meant."""
    absent = _ABSENT.search(error)
    found = [one for one in PACKAGES.values() if absent and absent[1] in one.modules]
    return f"{found[0].name} is not installed: {found[0].remedy}." if found else ""
