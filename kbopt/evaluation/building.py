"""Where what a candidate compiles at import is kept: a folder per content, filled once.

A folder counts once its mark beside it exists, which is written last; anything else is from a build that
was killed and is removed by the next one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Build:
    """A build under way; `keep` declares it successful."""

    def __init__(self) -> None:
        self.kept = False

    def keep(self) -> None:
        self.kept = True


class Builder:
    """Build folders under `root`. `flavour` names what a build depends on besides its source."""

    def __init__(self, root: Path, flavour: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._flavour = flavour

    def folder(self, source: str) -> Path:
        content = f"{self._flavour}\0{source}"
        return self._root / hashlib.sha256(content.encode()).hexdigest()[:24]

    def is_built(self, source: str) -> bool:
        return self._mark(source).exists()

    @contextmanager
    def building(self, source: str, uid: int) -> Iterator[Build]:
        """An empty folder that `uid` may write to; kept only if `keep` was called within."""
        folder = self.folder(source)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, uid, uid)
        build = Build()
        try:
            yield build
        finally:
            if build.kept:
                self._mark(source).touch()
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _mark(self, source: str) -> Path:
        return self.folder(source).with_suffix(".built")
