"""Options in groups: `--help` of a command with many options says first what most users need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

BASIC, BUDGET, MODEL, AGENT, DEVICE, EXPERT = GROUPS = (
    *("Basic", "Budget", "Model", "Agent", "Device", "Expert"),
)


class Option(click.Option):
    """An option with a place in `--help`; its default is shown there."""

    def __init__(self, *args: Any, group: str = BASIC, **attributes: Any) -> None:
        super().__init__(*args, **{"show_default": True, **attributes})
        self.group = group


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order in which `--help` shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def option(*names: str, group: str = BASIC, **attributes: Any) -> Callable[[F], F]:
    """An option in one of the groups of `--help`."""
    return click.option(*names, cls=Option, group=group, **attributes)


class Grouped(click.Command):
    """A command whose `--help` lists its options by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_groups(self, ctx, formatter)


class Command(Grouped):
    """The same for a command that takes no arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True  # reported below, with the option that was meant
        rest = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            ctx.fail(stray(self, ctx.args[0]))
        return rest


class Group(click.Group):
    """The same for a command that has subcommands."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_groups(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"{stray(self, args[0])} Subcommands: {', '.join(self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


def stray(command: click.Command, word: str) -> str:
    """What to say of a word that stands alone where options are expected."""
    known = {name for param in command.params for name in param.opts}
    wanted = ("--kernel", "--tasks", "--task") if word.endswith(".py") else ("--tasks", "--task")
    for option in wanted:
        if option in known:
            return f"{word!r} stands alone. Did you mean {option} {word}?"
    return f"{word!r} stands alone: this command takes options, see --help."


def write_groups(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The options of `command` under the names of their groups, each group in the order of declaration."""
    records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            records[param.group if isinstance(param, Option) else BASIC].append(record)
    for group, rows in records.items():
        if rows:
            with formatter.section(f"{group} options"):
                formatter.write_dl(rows)
