"""Packages that kernels of some languages need, and what is said where they are missing."""

import pytest

from kbopt.core.languages import PACKAGES, Language, missing, remedy_of


@pytest.mark.parametrize(
    ("language", "here", "named"),
    [
        ("cuda", set(), ""),
        ("tilelang", {"cutlass"}, "TileLang"),
        ("tilelang", {"tilelang"}, ""),
        ("cutedsl", {"cutlass"}, "CuTe DSL"),
        ("cutedsl", {"cutlass", "tvm_ffi"}, ""),
        ("cutlass", {"cutlass"}, "CUTLASS"),
    ],
)
def test_a_language_names_the_package_that_is_missing(language: Language, here: set[str], named: str) -> None:
    package = missing(language, here.__contains__)

    assert (package.name if package else "") == named


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "ModuleNotFoundError: No module named 'tilelang'",
            "TileLang is not installed: pip install 'tilelang==",
        ),
        ("ModuleNotFoundError: No module named 'cutlass.cute'", "CuTe DSL is not installed: pip install "),
        ("ModuleNotFoundError: No module named 'cutlass_library'", "CUTLASS is not installed: pip install "),
        ("ModuleNotFoundError: No module named 'numby'", ""),
        ("ValueError: tilelang", ""),
    ],
)
def test_an_import_that_failed_has_a_remedy_if_it_is_a_languages(error: str, said: str) -> None:
    assert remedy_of(error).startswith(said)
    assert bool(remedy_of(error)) == bool(said)


def test_a_package_may_be_installed_beside_the_others() -> None:
    versions: dict[str, set[str]] = {}
    for package in PACKAGES.values():
        for requirement in package.requirements:
            name, _, version = requirement.partition("==")
            versions.setdefault(name, set()).add(version)

    assert all(len(found) == 1 and "" not in found for found in versions.values())
