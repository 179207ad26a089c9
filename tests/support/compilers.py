"""Which tests can compile: what this machine lacks for it."""

import shutil
import sysconfig
from pathlib import Path

import pytest

HAS_HEADERS = Path(sysconfig.get_path("include"), "Python.h").exists()

needs_extensions = pytest.mark.skipif(
    shutil.which("g++") is None or not HAS_HEADERS,
    reason="needs g++" if HAS_HEADERS else "needs Python's headers (Debian: python3-dev)",
)
"""For what builds extensions of torch."""
