"""`kbopt modal`: warm containers ahead, see them, shut them down."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kbopt.cli.grouped import options
from kbopt.cli.options.backend import BACKEND
from kbopt.cli.output import json_option, to_stderr
from kbopt.cli.values import Number
from kbopt.core.extras import require
from kbopt.core.text import plural

if TYPE_CHECKING:
    from kbopt.backends.modal_client import ContainerStatus, ModalBackend

warm_option = click.option(
    "--warm-minutes", type=Number(0), default=BACKEND.warm_minutes, show_default=True,
    help="As the runs have it: another warm time is another app with containers of its own.",
)  # fmt: skip
lane_options = options(
    click.option("--gpus", type=click.IntRange(1, 64), default=BACKEND.gpus, help="How many containers."),
    click.option(
        "--lane", default=BACKEND.lane, show_default=True, help="A name for containers of one's own."
    ),
    warm_option,
)
gpu_options = options(
    click.option("--gpu", default=BACKEND.gpu, show_default=True, help="L4, L40S, H100, ..."),
    lane_options,
)


@click.group(short_help="Warm containers: deploy, status, stop.")
def modal() -> None:
    """The warm Modal containers that all runs share: deploy, status, stop."""
    require("modal", "kbopt modal")


@modal.command(short_help="Build the image and deploy the app ahead of a run.")
@click.option("--gpu", help="Also start a container with this GPU: L4, L40S, H100, ... Default: none.")
@lane_options
@click.option(
    "--start-timeout", type=Number(1), default=BACKEND.start_timeout_s, show_default=True,
    help="Seconds to wait for a GPU.",
)  # fmt: skip
def deploy(gpu: str | None, gpus: int, lane: str, warm_minutes: float, start_timeout: float) -> None:
    """Build the image and deploy the app ahead of the first run, and with --gpu warm a container too.

    Without --gpu it starts no container and costs nothing.

    \b
    kbopt modal deploy
    kbopt modal deploy --gpu L40S
    """
    from kbopt.backends.modal_client import ModalBackend
    from kbopt.backends.modal_client import deploy as deploy_app

    backend = None
    if gpu is not None:  # first, because it refuses a wrong name before the build
        backend = ModalBackend(
            gpu, lane=lane, gpus=gpus, warm_minutes=warm_minutes, start_timeout_s=start_timeout
        )
    click.echo(f"deployed {deploy_app(warm_minutes=warm_minutes, on_output=to_stderr)}")
    if backend is not None:
        asyncio.run(_warm(backend))


@modal.command(short_help="Say whether a container is up, and how busy it is.")
@gpu_options
@json_option
def status(gpu: str, gpus: int, lane: str, warm_minutes: float, as_json: bool) -> None:
    """Say whether the app is deployed and a container is up: its boot, age, last use and backlog.

    Starts no container, but asking one that is up begins its warm time anew.
    """
    from kbopt.backends.modal_client import container_status, lane_names

    names = lane_names(lane, gpus)
    found = [container_status(gpu, lane=name, warm_minutes=warm_minutes) for name in names]
    if as_json:
        documents = [asdict(one) for one in found]
        click.echo(json.dumps(documents[0] if gpus == 1 else documents))
        return
    click.echo(f"app {found[0].app}: {'deployed' if found[0].is_deployed else 'not deployed'}")
    for one in found:
        click.echo(_described(one))


@modal.command(short_help="Shut containers down now.")
@gpu_options
@click.option("--all", "everything", is_flag=True, help="Stop the app with every container, at once.")
def stop(gpu: str, gpus: int, lane: str, warm_minutes: float, everything: bool) -> None:
    """Shut the container down now, after the batches it holds, instead of after its warm time."""
    from kbopt.backends.modal_client import lane_names
    from kbopt.backends.modal_client import stop as stop_container

    if everything:
        stopped = [stop_container(warm_minutes=warm_minutes)]
    else:
        names = lane_names(lane, gpus)
        stopped = [stop_container(gpu, lane=name, warm_minutes=warm_minutes) for name in names]
    click.echo("stopped" if any(stopped) else "there was nothing to stop")


async def _warm(backend: ModalBackend) -> None:
    from kbopt.backends.opening import open_aloud

    status = await open_aloud(backend, backend.open_all(), to_stderr)
    click.echo(f"warm: {status.device}, boot {status.boot}, up {status.age_s:.0f} s")
    click.echo(f"if nobody uses it, at most ${status.idle_usd:.2f} more; `kbopt modal stop` ends it now")
    await backend.close()


def _described(found: ContainerStatus) -> str:
    where = f"{found.gpu}, lane {found.lane}"
    if found.info is None:
        return f"{where}: no container, backlog {found.backlog}"
    info = found.info
    facts = [
        f"boot {info.boot} on {info.device}",
        f"up {info.age_s:.0f} s",
        f"last used {info.idle_s:.0f} s ago",
        plural(info.num_evaluations, "evaluation"),
        info.isolation,
        f"backlog {found.backlog}",
    ]
    return f"{where}: " + ", ".join(filter(None, [*facts, info.failure]))
