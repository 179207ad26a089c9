"""Backends judge sources: on this machine's devices, in Modal containers, or by jobs behind a folder."""
