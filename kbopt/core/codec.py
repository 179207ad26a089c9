"""The only conversion between kbopt's dataclasses and JSON.

`encode` gives plain JSON values, `decode` gives back an equal object. A dataclass becomes an object
whose `"type"` is the class name where the declared type is a union, so that a reader can tell its
members apart. Infinite and not-a-number floats are refused: JSON has none. No string is: lone surrogates,
which UTF-8 cannot hold, are spelt out in both directions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Union

from kbopt.core.text import encodable

T = TypeVar("T")
Decoder = Callable[[Any], Any]


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


def _plain(value: object) -> dict[str, Any]:
    kind = type(value)
    if not dataclasses.is_dataclass(kind):
        raise CodecError(f"cannot encode {kind.__name__}")
    return {"type": kind.__name__, **{name: getattr(value, name) for name in _fields(kind)}}


_PACKER = json.JSONEncoder(default=_plain, separators=(",", ":"), check_circular=False)


def packed(message: object) -> bytes:
    """JSON of what `encode` would give, in a third of the time and without its checks.

    It is for messages between processes, on which timed calls wait. Numbers in it may be infinite or not a
    number, and a lone surrogate is spelt out only when the message is decoded.
    """
    return _PACKER.encode(message).encode()


def decode(kind: Any, raw: Any) -> Any:
    """`raw` as a `kind`: a dataclass, a union of them, `tuple[...]`, `Mapping`, `Literal` or a scalar.

    A named tuple is the array of its fields: it is shorter than an object, and quicker to read and to write.
    """
    try:
        return _decoder(kind)(raw)
    except _Misfit as misfit:
        raise CodecError(f"${misfit.at}: {misfit.what}") from None
    except RecursionError:  # To print a value that is nested deeply takes as much again.
        raise CodecError("$: the value is nested too deeply") from None


class _Misfit(Exception):
    """What does not fit, and `at` which place below the value that is decoded."""

    def __init__(self, what: str, at: str = "") -> None:
        self.what = what
        self.at = at

    def below(self, place: str) -> _Misfit:
        return _Misfit(self.what, place + self.at)


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """Return the function that decodes a `kind`. Types are looked at once, because timed calls decode."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_decoder(members)
    if origin is typing.Literal:
        return functools.partial(_decode_literal, members)
    if origin is tuple and members[1:] == (Ellipsis,):
        return functools.partial(_decode_items, members[0], _decoder(members[0]))
    if origin is tuple:
        return functools.partial(_decode_tuple, tuple(map(_decoder, members)))
    if origin is Mapping or origin is dict:
        return functools.partial(_decode_mapping, _decoder(members[1]))
    if kind in (object, Any):
        return lambda raw: raw
    if isinstance(kind, type) and issubclass(kind, tuple):
        return functools.partial(_decode_named_tuple, kind)
    if dataclasses.is_dataclass(kind):
        return functools.partial(_decode_dataclass, kind)
    return functools.partial(_decode_scalar, kind)


@functools.cache
def _field_decoders(kind: Any) -> dict[str, Decoder]:
    return {name: _decoder(hint) for name, hint in _fields(kind).items()}


def _decode_literal(members: tuple[Any, ...], raw: Any) -> Any:
    if raw not in members:
        raise _Misfit(f"{raw!r} is none of {members}")
    return raw


def _decode_mapping(decoder: Decoder, raw: Any) -> dict[str, Any]:
    _expect(raw, dict)
    keys, values = map(encodable, raw), _decode_each(itertools.repeat(decoder), raw.items(), ".{}")
    return dict(zip(keys, values, strict=True))


def _decode_scalar(kind: type, raw: Any) -> Any:
    if kind is float and type(raw) is int:
        try:
            return float(raw)
        except OverflowError:
            raise _Misfit(f"expected float, not a number of {len(str(raw))} digits") from None
    if type(raw) is not kind:
        _expect(raw, kind)
    return encodable(raw) if isinstance(raw, str) else raw


def _decode_dataclass(kind: Any, raw: Any) -> Any:
    _expect(raw, dict)
    if raw.get("type", kind.__name__) != kind.__name__:
        raise _Misfit(f"expected {kind.__name__}, not {raw['type']!r}")
    decoders = _field_decoders(kind)
    values = {}
    for name, value in raw.items():
        if name in decoders:
            try:
                values[name] = decoders[name](value)
            except _Misfit as misfit:
                raise misfit.below(f".{name}") from None
        elif name != "type":
            raise _Misfit(f"{kind.__name__} has no field {sorted(raw.keys() - decoders.keys() - {'type'})}")
    try:
        return kind(**values)
    except TypeError as error:
        raise _Misfit(str(error)) from None


def _union_decoder(members: tuple[Any, ...]) -> Decoder:
    classes: list[Any] = [member for member in members if dataclasses.is_dataclass(member)]
    named: dict[str, Decoder] = {kind.__name__: _decoder(kind) for kind in classes}
    others = [member for member in members if member is not type(None) and member not in classes]
    other = _decoder(others[0]) if len(others) == 1 else None

    def decode_union(raw: Any) -> Any:
        if isinstance(raw, dict) and "type" in raw:
            name = raw["type"]
            if type(name) is str and name in named:
                return named[name](raw)
            raise _Misfit(f"no {name!r} among {[m.__name__ for m in members]}")
        if raw is None and type(None) in members:
            return None
        if other is None:
            raise _Misfit(f"{raw!r} does not say which of {members} it is")
        return other(raw)

    return decode_union


def _decode_items(member: Any, decoder: Decoder, raw: Any) -> tuple[Any, ...]:
    _expect(raw, list)
    if member in (float, int) and set(map(type, raw)) <= {member}:
        return tuple(raw)  # a result holds hundreds of samples: one by one they cost half its decoding
    return tuple(_decode_each(itertools.repeat(decoder), enumerate(raw), "[{}]"))


def _decode_tuple(decoders: tuple[Decoder, ...], raw: Any) -> tuple[Any, ...]:
    _expect(raw, list)
    if len(decoders) != len(raw):
        raise _Misfit(f"expected {len(decoders)} items, not {len(raw)}")
    return tuple(_decode_each(decoders, enumerate(raw), "[{}]"))


def _decode_named_tuple(kind: Any, raw: Any) -> Any:
    return kind._make(_decode_tuple(_item_decoders(kind), raw))


@functools.cache
def _item_decoders(kind: Any) -> tuple[Decoder, ...]:
    return tuple(map(_decoder, typing.get_type_hints(kind).values()))


def _decode_each(decoders: Iterable[Decoder], items: Iterable[tuple[Any, Any]], place: str) -> list[Any]:
    values = []
    for decoder, (key, raw) in zip(decoders, items, strict=False):
        try:
            values.append(decoder(raw))
        except _Misfit as misfit:
            raise misfit.below(place.format(key)) from None
    return values


def _expect(raw: Any, kind: type) -> None:
    if not isinstance(raw, kind) or (kind is not bool and isinstance(raw, bool)):
        raise _Misfit(f"expected {kind.__name__}, not {raw!r}"[:500])


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise CodecError(f"JSON keys are strings, not {key!r}")
    return encodable(key)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
