"""`hfsuite clean`: what sweeps have left, and its end."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli import completion, settings
from hfsuite.cli.outcome import OK
from hfsuite.errors import ConfigurationError


def clean(
    sweeps: Annotated[
        list[str],
        typer.Argument(
            metavar="SWEEP...", help="Names of sweeps, or of single trainings.", autocompletion=completion.sweeps
        ),
    ],
    storage: settings.Storage = "results",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove sweeps for good: checkpoints, records, and their runs and models in MLflow. Their names are free then."""
    from hfsuite.sweeps.finding import find_directory
    from hfsuite.tracking import store
    from hfsuite.tracking.removal import remove, runs_of, size_of

    console = Console()
    found = [find_directory(sweep, storage)[0] for sweep in sweeps]
    records = [directory.read_sweep() for directory in found]
    clients = [store.open_store(record.tracking_uri) for record in records]
    its_runs = [runs_of(client, record.sweep_id) for client, record in zip(clients, records, strict=True)]
    for directory in found:
        console.print(f"{directory.path}: {size_of(directory) / 1e6:,.0f} MB", highlight=False, soft_wrap=True)
    if not yes and not _is_sure():
        return OK
    for directory, record, client, each in zip(found, records, clients, its_runs, strict=True):
        remove(directory, client, each)
        console.print(f"{record.name} is gone, with {len(each)} runs of MLflow's.", highlight=False)
    return OK


def _is_sure() -> bool:
    try:
        return typer.confirm("Remove all of it, and the runs and models in MLflow?")
    except typer.Abort:
        raise ConfigurationError(
            "Nothing was removed, since nobody answered. To remove without asking: --yes"
        ) from None
