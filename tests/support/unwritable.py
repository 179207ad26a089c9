"""A folder that the test itself may not write to, also where the tests are root's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65_534


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Meanwhile this process may not write to the folder. Root may everywhere, so it is nobody then.

    Others may pass the folders above it from now on: tests in other processes may need that too.
    """
    for above in folder.parents:
        if not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(above.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
