"""`kbopt wandb-dashboard`: the W&B workspace for kbopt's runs."""

from __future__ import annotations

import click

from kbopt.core.extras import require


@click.command("wandb-dashboard", short_help="Build a W&B workspace for kbopt's runs.")
@click.option(
    "--project",
    "--project-name",
    "project",
    required=True,
    help="The W&B project that the searches were logged to.",
)
@click.option("--entity", default="", help="Default: W&B's own default for the account.")
@click.option("--offline", is_flag=True, help="Print the workspace as JSON instead of saving it.")
def wandb_dashboard(project: str, entity: str, offline: bool) -> None:
    """Build the workspace: best so far by algorithm, fast_p curves, cost, evaluator busy share."""
    require("wandb", "kbopt wandb-dashboard")
    from kbopt.reporting.dashboard import save_dashboard, specification

    click.echo(specification(project, entity) if offline else save_dashboard(project, entity))
