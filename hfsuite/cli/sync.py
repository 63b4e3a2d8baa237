"""`hfsuite sync`: fill the tracking store from a sweep's directory."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli import completion, settings
from hfsuite.cli.outcome import OK, SOME_FAILED, answer, show_warning


def sync(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP]",
            help="A sweep's name or directory; by default the newest.",
            autocompletion=completion.sweeps,
        ),
    ] = None,
    storage: settings.Storage = "results",
    json: settings.Json = False,
) -> int:
    """Write to MLflow whatever it lacks of a sweep, from the sweep's own files; close what a dead driver left."""
    from hfsuite.sweeps.finding import find_directory
    from hfsuite.tracking.sync import sync as sync_directory

    with answer(json) as say:
        directory, _ = find_directory(sweep, storage, unfinished=False)
        synced = sync_directory(directory)
        if json:
            say(asdict(synced))
    for fault in synced.faults:
        show_warning(f"MLflow refuses: {fault}")
    if not json:
        lost = f", {synced.lost} of them lost" if synced.lost else ""
        count = "1 trial" if synced.trials == 1 else f"{synced.trials} trials"
        Console().print(f"{synced.name} is in {synced.tracking_uri}: {count}{lost}", soft_wrap=True)
    return SOME_FAILED if synced.faults else OK
