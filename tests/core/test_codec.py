from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbopt.core import codec, costs, evaluations, events, outcomes, proposals, protocol, task
from kbopt.core.settings import Budget, SearchSettings

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=3)


def instances(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: values(hint) for name, hint in codec._fields(kind).items()})


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever the codec must carry for a declared type."""
    if hint is float:
        return FLOATS
    if hint is str:
        return st.text(max_size=12)
    if hint == Mapping[str, object]:
        return OBJECTS
    if getattr(hint, "__origin__", None) is tuple:
        if hint.__args__[-1] is Ellipsis:
            return st.lists(values(hint.__args__[0]), max_size=2).map(tuple)
        return st.tuples(*map(values, hint.__args__))
    if hasattr(hint, "__args__") and not hasattr(hint, "__origin__"):
        return st.one_of(*map(values, hint.__args__))
    return instances(hint) if hint in KINDS else st.from_type(hint)


MODULES = (task, protocol, evaluations, outcomes, proposals, costs, events)
KINDS = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") and kind.__module__ == module.__name__
] + [Budget, SearchSettings]


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS), ids=lambda kind: kind.__name__)
def test_what_is_written_is_read_back_equal(kind):
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(instances(kind))
    def check(value):
        assert codec.loads(kind, codec.dumps(value)) == value

    check()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values(events.Event))
def test_an_event_is_read_back_without_being_told_which_it_is(event):
    assert codec.loads(events.Event, codec.dumps(event)) == event


def test_equal_values_give_equal_text():
    one = evaluations.Seconds(queue=1.0, compile=2.0)
    other = evaluations.Seconds(compile=2.0, queue=1.0)
    assert codec.dumps(one) == codec.dumps(other)
    assert codec.dumps(one) == '{"check":0.0,"compile":2.0,"queue":1.0,"time":0.0,"type":"Seconds"}'


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_has_no_such_float(value):
    with pytest.raises(codec.CodecError, match="JSON has no"):
        codec.dumps(evaluations.Seconds(queue=value))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", r"\$: expected dict, not \[\]"),
        ('{"queue": "soon"}', r"\$\.queue: expected float, not 'soon'"),
        ('{"queue": true}', r"\$\.queue: expected float, not True"),
        ('{"queue": 1' + "0" * 400 + "}", r"\$\.queue: expected float, not a number of 401 digits"),
        ('{"qeue": 1}', r"Seconds has no field \['qeue'\]"),
        ('{"type": "Span"}', "expected Seconds, not 'Span'"),
    ],
)
def test_errors_say_where_and_what(text, complaint):
    with pytest.raises(codec.CodecError, match=complaint):
        codec.loads(evaluations.Seconds, text)


def test_an_unknown_member_of_a_union_is_refused():
    with pytest.raises(codec.CodecError, match="no 'Exploded' among"):
        codec.loads(outcomes.Outcome, '{"type": "Exploded", "reason": "x"}')


def test_a_lone_surrogate_is_spelt_out_when_written_and_when_read():
    result = outcomes.WrongAnswer(reason="lib\udcff.so")
    written = codec.dumps(result)
    assert written.encode() == b'{"reason":"lib\\\\udcff.so","type":"WrongAnswer"}'
    assert codec.loads(outcomes.WrongAnswer, '{"reason": "lib\\udcff.so"}').reason == "lib\\udcff.so"
    assert codec.encode({"\ud800": ["\ud800"]}) == {"\\ud800": ["\\ud800"]}
    assert codec.decode(tuple[str, ...], ["\ud800"]) == ("\\ud800",)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"queue": "soon"}'])
def test_an_error_names_the_file_that_it_is_in(text):
    with pytest.raises(codec.CodecError, match=r"^runs/one\.json: "):
        codec.loads(evaluations.Seconds, text, "runs/one.json")


class Spot(NamedTuple):
    name: str
    at: tuple[int, ...]


def test_a_named_tuple_is_the_array_of_its_fields():
    spot = Spot("a", (1, 2))

    assert codec.encode(spot) == ["a", [1, 2]]
    decoded = codec.decode(Spot, ["a", [1, 2]])
    assert (decoded, type(decoded)) == (spot, Spot)
    with pytest.raises(codec.CodecError, match=r"^\$: expected 2 items, not 1"):
        codec.decode(Spot, ["a"])
    with pytest.raises(codec.CodecError, match=r"^\$\[1\]\[0\]: expected int"):
        codec.decode(Spot, ["a", ["1"]])


def test_a_packed_message_is_decoded_as_it_was():
    message = outcomes.WrongAnswer(reason="it's 2.5 \udc80 of \U0001f600")

    assert codec.loads(outcomes.WrongAnswer, codec.packed(message)) == outcomes.WrongAnswer(
        reason="it's 2.5 \\udc80 of \U0001f600"
    )
    with pytest.raises(codec.CodecError, match="cannot encode set"):
        codec.packed(outcomes.WrongAnswer(reason={1}))  # type: ignore[arg-type]
