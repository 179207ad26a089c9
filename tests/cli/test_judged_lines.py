"""Lines of results that are read back, of which anybody may have written some."""

import json
from pathlib import Path
from typing import Any

import pytest

from kbopt.cli.judged_lines import judged_lines

SPEEDUP = {
    "baseline": "eager",
    "clock": "device",
    "baseline_ms": 2.0,
    "kernel_ms": 1.0,
    "speedup": 2.0,
    "interval": [1.9, 2.1],
    "reason": "",
}
LINE: dict[str, Any] = {
    "key": "a1",
    "task": "quick/gelu",
    "candidate": "k.py",
    "outcome": "measured",
    "reason": None,
    "family": None,
    "speedup": 2.0,
    "speedup_ci": [1.9, 2.1],
    "speedups": [SPEEDUP],
    "kernelbench": {
        "compiled": True,
        "correctness": True,
        "metadata": {},
        "runtime": 1.0,
        "ref_runtime": 2.0,
    },
    "seconds": {"queue": 1.0},
}


def test_whole_lines_count_with_the_fields_that_nobody_computes_with(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    refused = {"key": "b2", "task": "t", "outcome": None, "refused": True, "reason": "no"}
    out.write_text(f"{json.dumps(LINE)}\n\n{json.dumps(refused)}\n")
    assert judged_lines(out) == ([LINE, refused], [])
    assert judged_lines(tmp_path / "none.jsonl") == ([], [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speedup": "abc"}, "$.speedup: expected float, not 'abc'"),
        ({"speedup": -1.0}, "its speedup is -1.0"),
        ({"speedup": 1e308}, "its speedup is 1e+308"),
        ({"speedup": float("nan")}, "its speedup is nan"),
        ({"speedup": None}, "its speedup is None"),
        ({"speedup_ci": [1]}, "expected 2 items, not 1"),
        ({"speedup_ci": "xx"}, "$.speedup_ci: expected list, not 'xx'"),
        ({"kernelbench": "no"}, "$.kernelbench: expected dict, not 'no'"),
        ({"kernelbench": {"correctness": True}}, "missing"),
        ({"speedups": [5]}, "$.speedups[0]: expected dict, not 5"),
        ({"speedups": "zz"}, "$.speedups: expected list, not 'zz'"),
        ({"family": ["a"]}, "$.family"),
        ({"outcome": "foo"}, "$.outcome: 'foo' is none of"),
        ({"key": 3}, "$.key: expected str, not 3"),
    ],
    ids=str,
)
def test_a_line_with_a_field_of_another_kind_does_not_count(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | changed)}\n")
    lines, (fault,) = judged_lines(out)
    assert lines == [LINE]
    assert fault.startswith(f"{out}, line 2 does not count: ")
    assert said in fault


def test_lines_that_are_no_judgement_are_told_and_many_of_them_counted(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    deep = '{"a":' * 100_000
    out.write_bytes(b'{"key": "tor\n[1, 2]\n\xff\xfe\n' + deep.encode() + b"\n{}\n")
    lines, faults = judged_lines(out)
    assert lines == []
    assert len(faults) == 4
    assert "no JSON object" in faults[1]
    assert faults[3] == f"{out} has 2 further lines that cannot be used"
