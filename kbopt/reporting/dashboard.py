"""The Weights & Biases workspace of a project: best-so-far by algorithm, fast_p, cost, busy share.

Needs the package `wandb-workspaces`, from kbopt's extra `wandb`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kbopt.core.errors import InfraError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "kbopt"


def workspace(project: str, entity: str = "") -> Workspace:
    """The workspace as an object that has not been saved. Its metrics are those that `WandbLog` logs."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def lines(title: str, *metrics: str, by: str | None = None, percent: bool = False) -> panels.LinePlot:
        return panels.LinePlot(
            title=title,
            x="evaluations",
            y=list(metrics),
            groupby=by,
            groupby_aggfunc="mean" if by else None,
            groupby_rangefunc="minmax" if by else None,
            range_y=(0, 1) if percent else (None, None),
        )

    outcomes = ("measured", "wrong_answer", "compile_failed", "crashed", "timed_out", "rejected")
    sections = {
        "Best so far": (
            lines("best speedup by algorithm", "best/speedup", by="search.algorithm"),
            lines("best speedup, every search", "best/speedup"),
            lines("speedup of each result", "current/speedup"),
        ),
        "fast_p": (
            lines("fast_1.0 over the sweep", "fast_p/1.0", percent=True),
            lines("fast_1.05 over the sweep", "fast_p/1.05", percent=True),
        ),
        "Cost": (
            lines("dollars", "usd"),
            lines("tokens", "tokens"),
            lines("minutes", "minutes"),
        ),
        "Evaluator": (
            lines("busy share of the device", "busy_fraction", percent=True),
            lines("outcomes", *(f"outcomes/{name}" for name in outcomes)),
        ),
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=name, panels=list(drawn), is_open=True)
            for name, drawn in sections.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="evaluations", max_runs=100),
    )


def specification(project: str, entity: str = "") -> str:
    """The workspace as the JSON that would be saved; needs no network."""
    model = workspace(project, entity)._to_model()  # the package offers no public way to see it
    return json.dumps(json.loads(model.model_dump_json(by_alias=True)), indent=2, sort_keys=True)


def save_dashboard(project: str, entity: str = "") -> str:
    """Save the workspace to W&B and return its address. Raises `InfraError` where W&B cannot be reached."""
    import requests
    import wandb.errors

    unsaved = workspace(project, entity)
    try:
        return str(unsaved.save().url)
    except (wandb.errors.Error, requests.RequestException, OSError, ValueError) as error:
        raise InfraError(
            f"cannot save the workspace of project {project!r}: {error}. "
            "Log in with `wandb login`, or print the specification with --offline."
        ) from None
