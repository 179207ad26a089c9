"""The only conversion between kbopt's dataclasses and JSON.

`encode` gives plain JSON values, `decode` gives back an equal object. A dataclass becomes an object
whose `"type"` is the class name where the declared type is a union, so that a reader can tell its
members apart. Infinite and not-a-number floats are refused: JSON has none. No string is: lone surrogates,
which UTF-8 cannot hold, are spelt out in both directions.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from kbopt.core.text import encodable

T = TypeVar("T")


class CodecError(ValueError):
    """The JSON does not describe the type asked for; the message gives the path and the value."""


def dumps(value: object) -> str:
    """Compact JSON of `value`, with sorted keys, so that equal values give equal text."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def loads(kind: type[T], text: str | bytes, where: object = "") -> T:
    """The `kind` that `dumps` wrote. Raises `CodecError`, also for text that is not JSON; `where` begins its
    message, such as the file that has the text.
    """
    begin = f"{where}: " if where else ""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{begin}not JSON: {error}") from None
    try:
        value: T = decode(kind, raw)
    except CodecError as error:
        raise CodecError(f"{begin}{error}") from None
    return value


def encode(value: Any) -> Any:
    """`value` as plain JSON values; every dataclass carries its class name under `"type"`."""
    if isinstance(value, float) and not math.isfinite(value):
        raise CodecError(f"JSON has no {value!r}")
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: encode(getattr(value, name)) for name in _fields(type(value))}
        return {"type": type(value).__name__, **fields}
    raise CodecError(f"cannot encode {type(value).__name__}")


def fields_of(value: object) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, by name."""
    fields: dict[str, Any] = encode(value)
    del fields["type"]
    return fields


def decode(kind: Any, raw: Any, path: str = "$") -> Any:
    """`raw` as a `kind`: a dataclass, a union of them, `tuple[...]`, `Mapping`, `Literal` or a scalar."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(typing.get_args(kind), raw, path)
    if origin is typing.Literal:
        if raw not in typing.get_args(kind):
            raise CodecError(f"{path}: {raw!r} is none of {typing.get_args(kind)}")
        return raw
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), raw, path)
    if origin is Mapping or origin is dict:
        _expect(raw, dict, path)
        item = typing.get_args(kind)[1]
        return {encodable(key): decode(item, value, f"{path}.{key}") for key, value in raw.items()}
    if kind in (object, Any):
        return raw
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, raw, path)
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        try:
            return float(raw)
        except OverflowError:
            raise CodecError(f"{path}: expected float, not a number of {len(str(raw))} digits") from None
    _expect(raw, kind, path)
    return encodable(raw) if isinstance(raw, str) else raw


def _decode_dataclass(kind: Any, raw: Any, path: str) -> Any:
    _expect(raw, dict, path)
    hints = _fields(kind)
    if raw.get("type", kind.__name__) != kind.__name__:
        raise CodecError(f"{path}: expected {kind.__name__}, not {raw['type']!r}")
    unknown = raw.keys() - hints.keys() - {"type"}
    if unknown:
        raise CodecError(f"{path}: {kind.__name__} has no field {sorted(unknown)}")
    values = {name: decode(hints[name], raw[name], f"{path}.{name}") for name in hints if name in raw}
    try:
        return kind(**values)
    except TypeError as error:
        raise CodecError(f"{path}: {error}") from None


def _decode_union(members: tuple[Any, ...], raw: Any, path: str) -> Any:
    if isinstance(raw, dict) and "type" in raw:
        for member in members:
            if getattr(member, "__name__", None) == raw["type"]:
                return _decode_dataclass(member, raw, path)
        raise CodecError(f"{path}: no {raw['type']!r} among {[m.__name__ for m in members]}")
    if raw is None and type(None) in members:
        return None
    plain = [m for m in members if m is not type(None) and not dataclasses.is_dataclass(m)]
    if len(plain) != 1:
        raise CodecError(f"{path}: {raw!r} does not say which of {members} it is")
    return decode(plain[0], raw, path)


def _decode_tuple(members: tuple[Any, ...], raw: Any, path: str) -> tuple[Any, ...]:
    _expect(raw, list, path)
    if len(members) == 2 and members[1] is Ellipsis:
        if members[0] is float and set(map(type, raw)) <= {float}:
            return tuple(raw)  # a result holds hundreds of samples: one by one they cost half its decoding
        return tuple(decode(members[0], item, f"{path}[{i}]") for i, item in enumerate(raw))
    if len(members) != len(raw):
        raise CodecError(f"{path}: expected {len(members)} items, not {len(raw)}")
    pairs = enumerate(zip(members, raw, strict=True))
    return tuple(decode(member, item, f"{path}[{i}]") for i, (member, item) in pairs)


def _expect(raw: Any, kind: type, path: str) -> None:
    wrong_bool = isinstance(raw, bool) and kind is not bool
    if wrong_bool or not isinstance(raw, kind):
        raise CodecError(f"{path}: expected {kind.__name__}, not {raw!r}"[:500])


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise CodecError(f"JSON keys are strings, not {key!r}")
    return encodable(key)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
