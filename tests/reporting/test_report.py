"""The page's file and its data. What it looks like and does is in test_page_in_browser.py."""

from __future__ import annotations

import base64
import gzip
import html
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.task import Task
from kbopt.reporting.history import fold
from kbopt.reporting.page_data import bar_columns, candidate_detail, diff, tokens, tree_places
from kbopt.reporting.report import report_data, write_report
from tests.reporting.conftest import MakeRun
from tests.support.journals import HOSTILE


def page_data(page: str) -> dict:
    packed = re.search(r'id="packed-data">([^<]*)<', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_page_of_a_thousand_candidates_is_under_six_megabytes(make_run: MakeRun, tmp_path: Path):
    path = write_report([make_run(1000)], tmp_path / "report.html")
    assert path.stat().st_size < 6_000_000


def test_it_names_nothing_on_the_network(make_run: MakeRun, tmp_path: Path):
    page = write_report([make_run(5)], tmp_path / "report.html").read_text()
    tags = re.findall(r"<(?:script|link|img|iframe)[^>]*>", page)
    assert not [tag for tag in tags if "http" in tag or "src=" in tag]
    policy = html.unescape(re.search(r'Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_nothing_that_was_written_by_others_stands_in_the_page_as_markup(make_run: MakeRun, tmp_path: Path):
    run = make_run(30, hostile=HOSTILE, name=HOSTILE, task=Task(name=HOSTILE, source=HOSTILE))
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count("</script>") == 3
    assert "window.pwned = 1</script>" not in page
    assert HOSTILE in page_data(page)["runs"][0]["rows"][0]["note"] + page_data(page)["runs"][0]["name"]


def test_a_source_that_cannot_be_encoded_is_still_reported(make_run: MakeRun, tmp_path: Path):
    run = make_run(3, hostile="\ud800 lone surrogate \x00 and a null")
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "lone surrogate" in page_data(page)["runs"][0]["rows"][0]["note"]


def test_transcripts_are_shown_and_bounded(make_run: MakeRun):
    run = replace(make_run(4), transcripts=lambda brief: f"asked {brief}" + "y" * 100_000)
    texts = [detail["transcript"] for detail in report_data([run])["runs"][0]["details"].values()]
    assert all(text.startswith("asked c") for text in texts)
    assert all(len(text) < 41_000 for text in texts)


def test_many_candidates_are_left_out_and_the_page_says_how_many(make_run: MakeRun):
    run = make_run(2500)
    data = report_data([run])["runs"][0]
    candidates = data["summary"]["candidates"]
    assert len(data["rows"]) == len(data["details"]) == 2000
    assert data["left_out"]["candidates"] == candidates - 2000


def test_the_best_kernel_is_shown_against_parent_and_reference_with_its_samples(make_run: MakeRun):
    run = make_run(60)
    history = fold(run.entries)
    detail = candidate_detail(run, history, history.best)
    assert "".join(text for _, text in detail["source"]) == history.best.candidate.source
    assert "-class Model(nn.Module):" in detail["reference_diff"]
    assert len(detail["results"][0]["outcome"]["kernel_ms"]) == 100


def test_the_tree_puts_a_parent_in_the_middle_of_its_children(make_run: MakeRun):
    nodes = fold(make_run(80).entries).shown(100)
    places = tree_places(nodes)
    for node in nodes:
        below = [places[n.candidate.id] for n in nodes if n.candidate.parent == node.candidate.id]
        if below:
            x, depth = places[node.candidate.id]
            assert x == (below[0][0] + below[-1][0]) / 2
            assert {below_depth for _, below_depth in below} == {depth + 1}
    leaves = [x for x, _ in places.values() if x == int(x)]
    assert len(leaves) >= len(set(leaves))


def test_work_at_the_same_time_takes_lanes_of_its_own(make_run: MakeRun):
    columns = bar_columns(fold(make_run(100).entries).bars)
    assert {lane for lane in columns["lane"] if lane.startswith("explorer")} == {
        f"explorer {i}" for i in (1, 2, 3)
    }
    by_lane: dict[str, list[tuple[float, float]]] = {}
    for lane, start, length in zip(columns["lane"], columns["start"], columns["length"], strict=True):
        by_lane.setdefault(lane, []).append((start, start + length))
    for work in by_lane.values():
        assert all(end <= start + 2e-5 for (_, end), (start, _) in itertools.pairwise(work))


def test_colours_change_no_character():
    source = "import torch\n\n\nx = '''\n\tα\n'''  # no line end"
    assert "".join(text for _, text in tokens(source)) == source


def test_c_in_a_string_is_coloured_as_c():
    source = 'C = r"""\n#include <math.h>\nstatic float f(float x) { return x; }\n"""\nNAME = "plain"\n'
    pairs = tokens(source)
    assert "".join(text for _, text in pairs) == source
    assert ["k", "static"] in pairs
    assert ["s2", '"plain"'] in pairs


def test_equal_sources_have_an_empty_diff():
    assert diff("a\nb\n", "a\nb\n") == ""
    assert diff("a\nb\n", "a\nc\n") == "@@ -1,2 +1,2 @@\n a\n-b\n+c"


def test_no_runs_and_a_place_that_cannot_be_written_are_user_errors(make_run: MakeRun, tmp_path: Path):
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_report([make_run(1)], tmp_path / "file" / "report.html")
