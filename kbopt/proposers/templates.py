"""The template files of prompts: which there are, and what may stand in each.

Templates are Python's `string.Template`: `$name` or `${name}`, and `$$` for a dollar sign.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from kbopt.core.errors import UserError, unknown_name
from kbopt.core.languages import Language

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "system.md": frozenset({"device_facts", "kernel_guide", "passes", "fp32_products", "tuning"}),
    **{f"{language}.md": frozenset({"device_facts"}) for language in get_args(Language)},
    "propose.md": frozenset(
        {
            "task_name",
            "task_source",
            "parent_source",
            "parent_result",
            "parent_feedback",
            "others",
            "evidence",
            "exemplars",
            "summary",
            "lessons",
        }
    ),
    "first.md": frozenset(
        {"task_name", "task_source", "evidence", "strategy", "exemplars", "summary", "lessons"}
    ),
    "again.md": frozenset({"reason"}),
    "agent.md": frozenset(
        {
            "task_name",
            "device_facts",
            "kernel_guide",
            "passes",
            "evaluations",
            "minutes",
            "files",
            "strategy",
        }
    ),
    "summary.md": frozenset(
        {
            "task_name",
            "task_source",
            "device_facts",
            "language",
            "passes",
            "fp32_products",
            "trials",
            "previous",
        }
    ),
}
"""The template files, and what may stand in each."""

SHIPPED = Path(__file__).parent / "prompts"


def load_templates(folder: Path | None) -> dict[str, string.Template]:
    """The shipped templates, each replaced by the file of its name in `folder` where there is one.

    Raises `UserError` for a file that is no template, and for a placeholder that is not known.
    """
    return {name: _template(path, name) for name, path in _paths(folder).items()}


def _paths(folder: Path | None) -> dict[str, Path]:
    paths = {name: SHIPPED / name for name in PLACEHOLDERS}
    if folder is None:
        return paths
    if not folder.is_dir():
        raise UserError(f"--prompts {folder} is not a folder. Copy {SHIPPED} there and change what you like.")
    for path in sorted(folder.glob("*.md")):
        if path.name not in PLACEHOLDERS:
            raise unknown_name("prompt file", path.name, PLACEHOLDERS)
        paths[path.name] = path
    return paths


def _template(path: Path, name: str) -> string.Template:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    allowed = PLACEHOLDERS[name]
    for match in string.Template.pattern.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        known = f"Allowed: {', '.join(f'${word}' for word in sorted(allowed))}."
        if match["invalid"] is not None:
            raise UserError(f"{path}:{line}: a lone $. Write $$ for a dollar sign. {known}")
        placeholder = match["named"] or match["braced"]
        if placeholder and placeholder not in allowed:
            raise UserError(f"{path}:{line}: unknown placeholder ${placeholder}. {known}")
    return string.Template(text)
