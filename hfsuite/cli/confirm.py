"""`hfsuite confirm`: whether the winner of a sweep is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hfsuite.cli import completion, settings
from hfsuite.cli.best import find_parent
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import OK, answer
from hfsuite.errors import ConfigurationError
from hfsuite.sweeps.request import OF_CONFIRMATION

if TYPE_CHECKING:
    from hfsuite.sweeps.confirm import Confirmation


@settings.asks(*OF_CONFIRMATION, whose="the sweep's")
def confirm(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's name or MLflow run id.", autocompletion=completion.sweeps)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many of the best trials.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds at most.")] = 5,
    json: settings.Json = False,
    **asked: Any,
) -> int:
    """Train a sweep's finalists with the same fresh seeds, test them on unseen data, and pick the winner."""
    from hfsuite.reproduce import recorded as records
    from hfsuite.sweeps.confirm import confirm as confirm_sweep
    from hfsuite.tracking import runs, store

    with answer(json) as say:
        client = store.existing_store()
        parent = find_parent(client, sweep)
        experiment = load_experiment(parent.data.tags[runs.MODULE], records.declaration(client, parent))
        request, faults = settings.requested(experiment, asked)
        if faults:
            raise ConfigurationError(faults)
        done = confirm_sweep(client, parent, experiment, request, top=top, seeds=seeds)
        if json:
            say(done.as_json())
    if not json:
        show(Console(), done)
    return OK


def show(console: Console, done: Confirmation) -> None:
    """The table of finalists, and what it says."""
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left", title_style="bold")
    table.title = f"Finalists of {done.sweep}: {done.metric} on the test part, {len(done.winner.values)} seeds"
    for column in ("trial", "mean", "deviation", "at selection", "optimism", "winner's lead"):
        table.add_column(column, justify="right")
    for place, each in enumerate(done.finalists):
        lead = ""
        if place:
            compared = done.against[place - 1]
            limits = f" ({compared.low:.3g} to {compared.high:.3g})" if math.isfinite(compared.low) else ""
            lead = f"{compared.mean:.3g}{limits}"
        deviation = "" if math.isnan(each.deviation) else f"{each.deviation:.3g}"
        table.add_row(
            f"{each.number:03d}", f"{each.mean:.4g}", deviation, f"{each.selected:.4g}",
            f"{done.optimism(each):+.3g}", lead, style="" if place else "bold",
        )  # fmt: skip
    console.print(table)
    for sentence in conclusions(done):
        console.print(sentence, highlight=False, soft_wrap=True)


def conclusions(done: Confirmation) -> list[str]:
    """What the table says, in sentences."""
    said = [f"\nThe winner is trial {done.winner.number:03d}, by its mean."]
    rivals = [f"{each.number:03d}" for each, at in zip(done.finalists[1:], done.against, strict=True) if not at.apart]
    if not done.against:
        said.append("It had no rival.")
    elif rivals:
        said.append(
            f"It cannot be told apart from trial {' and '.join(rivals)}: with {len(done.winner.values)} seeds the "
            "interval of its lead has zero in it. More seeds may tell."
        )
    else:
        said.append(
            f"It can be told apart from all others, at {100 * done.against[0].level:.1f} % each and 95 % in all."
        )
    if done.tried_seeds < done.planned_seeds:
        said.append(f"Settled after {len(done.winner.values)} of {done.planned_seeds} seeds.")
    said += [
        f"Trial {each.number:03d} failed with {each.failures} seeds, which are left out for all."
        for each in done.finalists
        if each.failures
    ]
    said += [f"Trial {each.number:03d} failed with every seed." for each in done.failed]
    return said
