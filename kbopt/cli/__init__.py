"""The command line. Each command's module is imported only when it is used, and heavy packages later."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
import tempfile
import traceback
from typing import NoReturn

import click

from kbopt import __version__
from kbopt.core.errors import InfraError, UserError

COMMANDS = {
    "run": "kbopt.cli.run:run",
    "resume": "kbopt.cli.run:resume",
    "sweep": "kbopt.cli.sweep:sweep",
    "bench": "kbopt.cli.bench:bench",
    "eval": "kbopt.cli.eval:evaluate",
    "profile": "kbopt.cli.profile:profile",
    "mcp": "kbopt.cli.mcp:mcp",
    "serve": "kbopt.cli.serve:serve",
    "audit": "kbopt.cli.audit:audit",
    "tasks": "kbopt.cli.tasks:tasks",
    "doctor": "kbopt.cli.doctor:doctor",
    "modal": "kbopt.cli.modal:modal",
    "runs": "kbopt.cli.runs:runs",
    "show": "kbopt.cli.runs:show",
    "export": "kbopt.cli.runs:export",
    "report": "kbopt.cli.runs:report",
    "compare": "kbopt.cli.compare:compare",
    "watch": "kbopt.cli.runs:watch",
    "wandb-dashboard": "kbopt.cli.dashboard:wandb_dashboard",
}

USER_ERROR, INFRA_ERROR, INTERRUPTED, TERMINATED = 2, 3, 130, 143


class LazyGroup(click.Group):
    """A group whose commands are imported by name on first use, so that `--help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "show_default": True,
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.version_option(__version__)
def app() -> None:
    """Search for faster GPU kernels, and know why to believe the speedup.

    \b
    kbopt run                                   the main job on this machine: no key, no GPU, no account
    kbopt run --task matmul/9 --backend modal --gpu L40S --proposer llm --model openai/gpt-5
    kbopt eval --task quick/gelu --kernel my_kernel.py
    kbopt resume runs/NAME                      go on with a run that was stopped

    Exit codes: 0 done; 2 you must change something, the message says what; 3 the infrastructure failed
    after retries and what was measured is on disk; 130 stopped by Ctrl-C, 143 by SIGTERM.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM came: from a batch system, `docker stop` or `timeout`. Handled as Ctrl-C is."""


_terminated = False


def _terminate(*_: object) -> None:
    global _terminated
    _terminated = True
    raise Terminated


def exit_interrupted() -> NoReturn:
    """Leave as a shell expects it of a command that a signal ended."""
    sys.exit(TERMINATED if _terminated else INTERRUPTED)


def main() -> None:
    """The entry point: runs a command and turns every exception into a message and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        click.echo("kbopt: stopped", err=True)
        exit_interrupted()
    except Exception as error:  # noqa: BLE001 - the border of the process
        message, code = explained(error)
        click.echo(f"kbopt: {message}", err=True)
        sys.exit(code)


def explained(error: BaseException) -> tuple[str, int]:
    """What the user is told of `error`, and the exit code. Of a group of exceptions, the first counts."""
    import sqlite3

    from kbopt.core.codec import CodecError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return "stopped", TERMINATED if _terminated else INTERRUPTED
    if isinstance(error, UserError):
        return str(error), USER_ERROR
    if isinstance(error, CodecError | UnicodeDecodeError):
        return (
            f"a file cannot be read: {error}. Another version of kbopt, or another program, wrote it.",
            USER_ERROR,
        )
    is_the_paths = isinstance(
        error, PermissionError | FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError
    ) or (isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS))
    if is_the_paths:
        return f"{error}. Choose a path that you may read and write.", USER_ERROR
    if isinstance(error, InfraError) and not getattr(error, "__notes__", ()):
        return str(error), INFRA_ERROR
    if isinstance(error, OSError | sqlite3.Error):
        return f"the machine failed: {type(error).__name__}: {error}", INFRA_ERROR
    told = str(error) if isinstance(error, InfraError) else f"unexpected {type(error).__name__}: {error}"
    with tempfile.NamedTemporaryFile("w", prefix="kbopt-", suffix=".log", delete=False) as log:
        log.write("".join(traceback.format_exception(error)))
    return f"{told}. The traceback is in {log.name}; please report it.", INFRA_ERROR
