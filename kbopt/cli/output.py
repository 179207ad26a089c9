"""What commands print: sentences on stderr, one JSON document on stdout."""

from __future__ import annotations

import json

import click

from kbopt.cli.grouped import option
from kbopt.core import codec

json_option = option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")


def to_stderr(line: str) -> None:
    """Say something without touching stdout. Control characters in it are shown as escapes."""
    from kbopt.reporting.text import printable

    click.echo(printable(line), err=True)


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(codec.encode(document), ensure_ascii=False))
