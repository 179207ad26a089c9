"""The optional parts of kbopt: which package each needs, and what to say where it is not installed.

`make` installs all of them; `pip install kbopt` none.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from kbopt.core.errors import UserError

Extra = Literal["kernelbench", "llm", "mcp", "modal", "wandb"]

_PACKAGES: dict[Extra, tuple[str, ...]] = {
    "kernelbench": ("huggingface_hub", "pyarrow"),
    "llm": ("litellm",),
    "mcp": ("mcp",),
    "modal": ("modal",),
    "wandb": ("wandb", "wandb_workspaces"),
}


def require(extra: Extra, what: str) -> None:
    """Raises `UserError` where `extra` is not installed; `what` is the option or the thing that needs it."""
    absent = [package for package in _PACKAGES[extra] if importlib.util.find_spec(package) is None]
    if absent:
        raise UserError(
            f"{what} needs {' and '.join(absent)}, which this Python does not have: "
            f"pip install 'kbopt[{extra}]', in a checkout pip install --editable '.[{extra}]'."
        )
