"""`hfsuite register`: make a sweep's best checkpoint the champion of a registered model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli import completion, settings
from hfsuite.cli.best import find_parent
from hfsuite.cli.outcome import OK, answer


def register(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's name or MLflow run id.", autocompletion=completion.sweeps)
    ],
    name: Annotated[str, typer.Option(help="Of the registered model.")],
    even_if_worse: Annotated[bool, typer.Option(help="Replace a champion that was better.")] = False,
    json: settings.Json = False,
) -> int:
    """Register the best checkpoint of a sweep as a model version, and call it the champion."""
    from hfsuite.tracking import registry, store

    with answer(json) as say:
        client = store.existing_store()
        done = registry.register_best(client, find_parent(client, sweep), name, worse=even_if_worse)
        if json:
            say(asdict(done))
    if not json:
        was = f" (before: {done.was:g})" if done.was is not None else ""
        console = Console()
        console.print(f"{done.name} version {done.version} is the champion: {done.metric} {done.value:g}{was}")
        console.print(f"  models:/{done.name}@{registry.CHAMPION}, from run {done.run_id}", soft_wrap=True)
    return OK
