"""The report: one HTML page that opens from disk, holds everything, and loads nothing.

Kernels, prompts and logs are data in it: compressed JSON that the page's script puts into text nodes.
The Content-Security-Policy allows exactly two scripts, by their hashes: the page's own and Plotly.
"""

from __future__ import annotations

import base64
import errno
import functools
import gzip
import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pygments.formatters import HtmlFormatter

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.reporting.comparison import compare
from kbopt.reporting.history import fold
from kbopt.reporting.page_data import CANDIDATES_SHOWN, details, run_data
from kbopt.reporting.run import Run
from kbopt.reporting.summary import summarize_history

SCRIPTS = ("elements.js", "charts.js", "frame.js", "candidates.js", "comparison.js", "run.js", "main.js")
LIGHT_STYLE, DARK_STYLE = "friendly", "github-dark"


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write the page of `runs` to `out` and return it. A run's entries are read once.

    Raises `UserError` for no runs and for a path that cannot be written, and `InfraError` for a full disk.
    """
    return write_page(render_page(report_data(runs)), out)


def write_page(page: str, out: Path) -> Path:
    """Write a rendered page to `out` and return it: whole, or not at all. Raises as `write_report` does."""
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
        partial.replace(out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InfraError(
                f"cannot write the report to {out}: {error}. Make room; the same command goes on, and judges "
                "nothing twice."
            ) from None
        raise UserError(
            f"cannot write the report to {out}: {error}. Choose another path with --out."
        ) from None
    return out


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """The page's data: every run with the candidates it shows, and their comparison if there are several."""
    if not runs:
        raise UserError("a report needs at least one run. `kbopt runs` lists the runs.")
    shown_per_run = max(20, CANDIDATES_SHOWN // len(runs))
    pages, summaries = [], []
    for run in runs:
        history = fold(run.entries, texts_kept=shown_per_run)
        shown = history.shown(shown_per_run)
        page = run_data(run, history, shown=shown)
        pages.append({**page, "details": details(run, history, shown)})
        summaries.append(summarize_history(run, history))
    comparison = codec.encode(compare(summaries)) if len(runs) > 1 else None
    return {"made": time.time(), "live": False, "runs": pages, "comparison": comparison}


def render_page(data: dict[str, Any]) -> str:
    """The page that shows `data` of runs, as HTML."""
    names = [run["name"] for run in data["runs"]]
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    return render(data, title, SCRIPTS, connects=data["live"])


def render(data: dict[str, Any], title: str, scripts: tuple[str, ...], *, connects: bool = False) -> str:
    """The page that `scripts`, files of the folder `page`, draw from `data`, as HTML."""
    script = _script(scripts)
    plotly, plotly_hash = _plotly()
    connect = "'self'" if connects else "'none'"
    policy = (
        f"default-src 'none'; script-src 'sha256-{_sha256(script)}' 'sha256-{plotly_hash}'; "
        f"style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        title=title,
        policy=policy,
        style=Markup(_style()),
        script=Markup(script),
        plotly=plotly,
        data=_packed(json.dumps(data, separators=(",", ":")).encode()),
    )


def _template() -> Template:
    loader = PackageLoader("kbopt.reporting", "page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("page.html")


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


@functools.cache
def _plotly() -> tuple[str, str]:
    """Plotly packed, and the hash by which the page's policy lets it run."""
    source = get_plotlyjs()
    return _packed(source.encode()), _sha256(source)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def _script(scripts: tuple[str, ...]) -> str:
    folder = files("kbopt.reporting") / "page"
    parts = "\n".join((folder / name).read_text(encoding="utf-8") for name in scripts)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@functools.cache
def _style() -> str:
    page = (files("kbopt.reporting") / "page" / "page.css").read_text(encoding="utf-8")
    light = HtmlFormatter(style=LIGHT_STYLE).get_style_defs(":root[data-theme=light] .code")
    dark = HtmlFormatter(style=DARK_STYLE).get_style_defs(":root[data-theme=dark] .code")
    return f"{light}\n{dark}\n{page}"
