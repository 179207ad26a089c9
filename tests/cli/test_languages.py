"""A language whose package is missing where kernels are judged is told before a search starts."""

from dataclasses import replace

import pytest

from kbopt import doctor
from kbopt.backends import modal_app
from kbopt.compose.checks import check
from kbopt.config import BackendConfig, ProposerConfig
from kbopt.core.errors import UserError
from kbopt.core.languages import PACKAGES, has_module
from tests.cli.test_reproduce import CONFIG

ASKED = replace(CONFIG, proposer=ProposerConfig(name="llm", models="openai/gpt-5", language="tilelang"))


@pytest.mark.skipif(has_module("tilelang"), reason="TileLang is installed")
def test_this_machine_is_looked_at_for_the_local_backend() -> None:
    local = replace(ASKED, backend=BackendConfig(name="local", device="cpu"))

    with pytest.raises(UserError, match=r"tilelang: TileLang is not installed here\. pip install '"):
        check(local)


def test_modals_image_is_looked_at_for_modal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(modal_app.LANGUAGES_VARIABLE, "cutlass")

    with pytest.raises(UserError, match=r"without TileLang\. Set KBOPT_MODAL_LANGUAGES=cutlass,tilelang"):
        check(ASKED)


def test_the_doctor_names_each_package_and_what_brings_it() -> None:
    steps = {step.name: step for step in doctor.examine_machine()}

    for language, package in PACKAGES.items():
        step = steps[package.name]
        assert step.optional
        here = all(map(has_module, package.modules))
        assert step.ok == here
        assert here or f"--language {language}: pip install '{package.requirements[0]}'" in step.remedy
