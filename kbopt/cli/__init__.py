"""The command line. Each command's module is imported only when it is used, and heavy packages later."""

from __future__ import annotations

import importlib
import sys

import click

from kbopt import __version__
from kbopt.core.errors import InfraError, UserError

COMMANDS = {
    "run": "kbopt.cli.run:run",
    "resume": "kbopt.cli.run:resume",
    "sweep": "kbopt.cli.sweep:sweep",
    "bench": "kbopt.cli.bench:bench",
    "eval": "kbopt.cli.eval:evaluate",
    "tasks": "kbopt.cli.tasks:tasks",
    "doctor": "kbopt.cli.doctor:doctor",
    "modal": "kbopt.cli.modal:modal",
    "runs": "kbopt.cli.runs:runs",
    "show": "kbopt.cli.runs:show",
    "export": "kbopt.cli.runs:export",
    "report": "kbopt.cli.runs:report",
    "watch": "kbopt.cli.runs:watch",
    "wandb-dashboard": "kbopt.cli.dashboard:wandb_dashboard",
}

USER_ERROR, INFRA_ERROR, INTERRUPTED = 2, 3, 130


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
    after retries and what was measured is on disk; 130 stopped by Ctrl-C.
    """


def main() -> None:
    """The entry point: runs a command and turns kbopt's errors into messages and exit codes."""
    try:
        app(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except UserError as error:
        click.echo(f"kbopt: {error}", err=True)
        sys.exit(USER_ERROR)
    except InfraError as error:
        click.echo(f"kbopt: {error}", err=True)
        sys.exit(INFRA_ERROR)
