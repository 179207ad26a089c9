"""Results by content: the same source is never measured twice under the same conditions.

The conditions are the task's source, the normalised source of the candidate, the device and the
protocol. `repeat` is part of the key, so that a contender for the best is truly measured again.
"""

from __future__ import annotations

import ast
import hashlib
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from kbopt.core import codec
from kbopt.core.errors import UNPARSABLE, InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result

_SCHEMA = """
create table if not exists evaluations (
    key text primary key, time real not null, result text not null
) strict;
"""

_REMEDY = "Results are kept there to save time: delete the file to measure again."


def normalised(source: str) -> str:
    """`source` without Python comments and formatting; unchanged where it does not parse.

    Code inside strings (CUDA, C) is kept to the letter.
    """
    try:
        return ast.unparse(ast.parse(source))
    except UNPARSABLE:
        return source


def request_key(request: EvalRequest, device: str, scope: str = "") -> str:
    """The content hash under which the result of `request` on `device` is kept.

    Results are shared within one `scope`.
    """
    parts = [request.task.key, normalised(request.source), device, request.protocol.id, str(request.repeat)]
    if scope:
        parts.append(scope)
    if request.kernelbench or request.baselines:  # The result holds more than one without.
        parts.append(f"kernelbench={request.kernelbench}, baselines={request.baselines}")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class EvaluationCache:
    """A SQLite file of results. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.DatabaseError) as error:
            raise UserError(f"cannot use {path} as the evaluation cache: {error}. {_REMEDY}") from None

    def get(self, key: str) -> Result | None:
        """The result kept under `key`, None for none. Raises `InfraError` for a file that cannot be read."""
        query = "select result from evaluations where key = ?"
        try:
            row = self._connection.execute(query, (key,)).fetchone()
            return codec.loads(Result, row[0]) if row else None
        except (sqlite3.Error, codec.CodecError) as error:
            raise InfraError(f"cannot read {self._path}: {error}. {_REMEDY}") from error

    def put(self, results: Mapping[str, Result]) -> None:
        """Commit `results` at once; a key that is there already keeps its first result.

        Raises `InfraError` when the disk is full or gone, or a result is no JSON.
        """
        now = time.time()
        try:
            rows = [(key, now, codec.dumps(result)) for key, result in results.items()]
            with self._connection:
                self._connection.executemany("insert or ignore into evaluations values (?, ?, ?)", rows)
        except (sqlite3.Error, codec.CodecError) as error:
            raise InfraError(f"cannot write {self._path}: {error}") from error

    def forget(self, key: str) -> None:
        """Drop the result under `key`, which is to be measured again. Raises `InfraError` as `put` does."""
        try:
            with self._connection:
                self._connection.execute("delete from evaluations where key = ?", (key,))
        except sqlite3.Error as error:
            raise InfraError(f"cannot write {self._path}: {error}") from error

    def __len__(self) -> int:
        return int(self._connection.execute("select count(*) from evaluations").fetchone()[0])

    def close(self) -> None:
        self._connection.close()
