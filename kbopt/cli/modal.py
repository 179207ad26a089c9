"""`kbopt modal`: warm the container ahead, see it, shut it down."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from kbopt.cli import options as shared

gpu_options = shared.options(
    click.option("--gpu", default=shared.BACKEND.gpu, show_default=True, help="L4, L40S, H100, ..."),
    click.option("--lane", default=shared.BACKEND.lane, show_default=True),
    click.option("--warm-minutes", type=float, default=shared.BACKEND.warm_minutes, show_default=True),
)


@click.group()
def modal() -> None:
    """The warm Modal container that all runs share: deploy, status, stop."""


@modal.command()
@click.option("--warm-minutes", type=float, default=shared.BACKEND.warm_minutes, show_default=True)
def deploy(warm_minutes: float) -> None:
    """Build the image and deploy the app ahead of the first run. Starts no container and costs nothing."""
    from kbopt.backends.modal_deploy import deploy as deploy_app

    name = deploy_app(warm_minutes=warm_minutes, on_output=lambda line: click.echo(line, err=True))
    click.echo(f"deployed {name}")


@modal.command()
@gpu_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
def status(gpu: str, lane: str, warm_minutes: float, as_json: bool) -> None:
    """Say whether the app is deployed and a container is up: its boot, age, last use and backlog."""
    from kbopt.backends.modal_client import container_status

    found = container_status(gpu, lane=lane, warm_minutes=warm_minutes)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"app {found.app}: {'deployed' if found.is_deployed else 'not deployed'}")
    click.echo(f"{found.gpu}, lane {found.lane}: {found.num_containers} containers, backlog {found.backlog}")
    if found.info is not None:
        for name, value in asdict(found.info).items():
            click.echo(f"  {name}: {value}")


@modal.command()
@gpu_options
@click.option("--all", "everything", is_flag=True, help="Stop the app with every container, at once.")
def stop(gpu: str, lane: str, warm_minutes: float, everything: bool) -> None:
    """Shut the container down now, after the batches it holds, instead of after its warm time."""
    from kbopt.backends.modal_client import stop as stop_container

    stopped = stop_container(None if everything else gpu, lane=lane, warm_minutes=warm_minutes)
    click.echo("stopped" if stopped else "there was nothing to stop")
