"""The strategies that first questions ask for: `strategies.toml` among the prompts, those of one language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from kbopt.core.errors import UserError
from kbopt.core.kernel_strategies import Bound, KernelStrategy
from kbopt.core.languages import Language
from kbopt.core.text import one_line
from kbopt.proposers.templates import SHIPPED

FILE = "strategies.toml"
MAX_CHARS = 1_000
"""Of one strategy's text: it is an idea, and the kernel guide has the rest."""

_KEYS = ("name", "fits", "needs_product", "languages", "text")


def load_strategies(folder: Path | None, language: Language) -> tuple[KernelStrategy, ...]:
    """Those for `language`, in the file's order: from `folder` where it has a file, else the shipped.

    Raises `UserError` for a file in another form, or without a strategy for the language.
    """
    own = folder / FILE if folder else None
    path = own if own and own.is_file() else SHIPPED / FILE
    try:
        return _for_language(tomllib.loads(path.read_text(encoding="utf-8-sig")), language)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the strategies in {path} cannot be used: {error}. {SHIPPED / FILE} shows the form; "
            "--no-strategies leaves them out."
        ) from None


def _for_language(document: Mapping[str, Any], language: Language) -> tuple[KernelStrategy, ...]:
    entries = document.get("strategy")
    found = [_strategy(entry) for entry in entries] if isinstance(entries, list) else []
    chosen = tuple(strategy for strategy, languages in found if not languages or language in languages)
    if not chosen:
        raise ValueError(f"there is no [[strategy]] for {language}")
    names = [strategy.name for strategy in chosen]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"there are two strategies {twice[0]!r} for {language}")
    return chosen


def _strategy(entry: Any) -> tuple[KernelStrategy, tuple[str, ...]]:
    name = one_line(str(entry.get("name", ""))) if isinstance(entry, dict) else ""
    if not name:
        raise ValueError("a [[strategy]] has no name")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"{name!r} has {unknown[0]!r}, and known are {', '.join(_KEYS)}")
    text = entry.get("text", "")
    if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_CHARS:
        raise ValueError(f"the text of {name!r} has to be 1 to {MAX_CHARS} characters")
    fits = _names(entry, "fits", get_args(Bound))
    bounds = tuple(bound for bound in get_args(Bound) if bound in fits)
    needs_product = entry.get("needs_product", False)
    if not isinstance(needs_product, bool):
        raise ValueError(f"needs_product of {name!r} is {needs_product!r}, and has to be true or false")
    strategy = KernelStrategy(name=name, text=text.strip(), fits=bounds, needs_product=needs_product)
    return strategy, _names(entry, "languages", get_args(Language))


def _names(entry: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    given = entry.get(key, [])
    if not isinstance(given, list) or not all(isinstance(one, str) and one in allowed for one in given):
        raise ValueError(
            f"{key} of {entry['name']!r} is {given!r}, and has to be a list of {', '.join(allowed)}"
        )
    return tuple(given)
