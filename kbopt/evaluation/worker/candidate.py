"""Loads a candidate's source, and describes its exceptions by the lines of that source."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from kbopt.core.errors import place_of
from kbopt.evaluation.kernelbench.loading import load_module, parsed
from kbopt.evaluation.messages import Raised, SourceRefused

FILE_NAME = "candidate.py"
"""The name of the candidate's file, by which a traceback's frames are told."""
_MAX_FRAMES = 8
"""Frames of a traceback that are kept, the innermost ones."""
_MAX_TEXT = 2000
"""Characters of an exception's text, and of its frames, that are kept."""


class CandidateError(Exception):
    """The source defines no model: a syntax error, or no `ModelNew`. The message is for the proposer."""

    def __init__(self, text: str, *, is_syntax: bool = False) -> None:
        super().__init__(text)
        self.is_syntax = is_syntax


def check_syntax(source: str) -> None:
    """Raise CandidateError for a source that does not parse. It does not run the source."""
    try:
        parsed(source, FILE_NAME)
    except SyntaxError as error:
        line = f"\n    {error.text.strip()}" if error.text else ""
        at = " at" if error.lineno else ":"
        raise CandidateError(f"SyntaxError{at} {place_of(error)}{line}", is_syntax=True) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CandidateError(f"the source cannot be parsed: {type(error).__name__}: {error}") from None


def load_candidate(source: str) -> Any:
    """Write `source` to a file in the working directory and import it. Raises CandidateError."""
    check_syntax(source)
    module = load_module("candidate", source, Path.cwd())
    if not callable(getattr(module, "ModelNew", None)):
        raise CandidateError(
            "the source defines no ModelNew; it has to define `class ModelNew(torch.nn.Module)`"
        )
    return module


def failure_of(error: BaseException, *, lasting: bool = False) -> Raised | SourceRefused:
    """Return the message that tells of an exception, see `messages.Raised`. Its texts are limited in size."""
    if isinstance(error, CandidateError):
        return SourceRefused(reason=str(error), lasting=error.is_syntax)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == FILE_NAME and frame.filename != __file__
    ]
    lines = [f"  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-_MAX_FRAMES:]]
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the sandbox's edge: an exception may refuse to be printed
        text = "an exception that cannot be printed"
    frame_lines = "\n".join(lines)[:_MAX_TEXT]
    return Raised(kind=name[:100], text=text[:_MAX_TEXT], frames=frame_lines, lasting=lasting)
