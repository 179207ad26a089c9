"""A folder that the test itself may not write to, also where the tests are root's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65_534


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Meanwhile this process may not write to the folder. Root may everywhere, so it is nobody then."""
    opened = {one: one.stat().st_mode for one in (folder, *folder.parents[:3])}
    for one in opened:
        one.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        for one, mode in opened.items():
            one.chmod(mode)
