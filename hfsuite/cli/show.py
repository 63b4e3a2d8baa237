"""`hfsuite show`: the trials of a sweep, or one of them, from MLflow alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hfsuite.cli import completion, rows, settings
from hfsuite.cli.best import find_parent
from hfsuite.cli.of_trial import trial
from hfsuite.cli.outcome import OK, answer
from hfsuite.errors import ConfigurationError

COUNTERS = ("step", "epoch", "training_iteration")
OF_TRIALS = ("trial", "state")
BESIDE = ("step", "seconds", "gpu_share", "workers", "why")


def show(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP[:TRIAL]]",
            help="A sweep; with :3 or :best, a trial of it. By default the newest sweep.",
            autocompletion=completion.runs,
        ),
    ] = None,
    where: rows.Where = None,
    sort: rows.Sort = None,
    json: settings.Json = False,
) -> int:
    """Show the trials of a sweep, or a trial: settings, curves, state, files, failure."""
    from hfsuite.tracking import listing, store

    with answer(json) as say:
        client = store.existing_store()
        if sweep is not None and ":" in sweep:
            if where or sort:
                raise ConfigurationError("--where and --sort are for the trials of a sweep, and this is one trial.")
            found = trial(client, sweep)
            if json:
                say(found)
            else:
                _draw_trial(found)
            return OK
        parent = find_parent(client, sweep)
        trials = listing.trials(client, parent)
        settings_shown = list(trials[0]["config"]) if trials else []
        from hfsuite.tracking import runs

        tags = parent.data.tags
        columns = [*OF_TRIALS, tags[runs.METRIC], *BESIDE, *settings_shown]
        chosen = rows.chosen(trials, [*columns, "warm_start", "run_id"], where, sort)
        if json:
            say({"sweep": tags[runs.SWEEP], "metric": tags[runs.METRIC], "mode": tags[runs.MODE], "trials": chosen})
            return OK
    title = f"{tags[runs.SWEEP]}: {tags.get(runs.STATE)}, {tags[runs.METRIC]} ({tags[runs.MODE]})"
    Console().print(rows.drawn(chosen, columns, title))
    return OK


def _draw_trial(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    why = f" ({found['why']})" if found["why"] else ""
    console.print(f"{found['title']}: {found['state']}{why}", style="bold")
    settings_table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in sorted(found["config"].items(), key=lambda each: each[0] not in found["searched"]):
        settings_table.add_row(name, str(value), style="bold" if name in found["searched"] else "")
    console.print(settings_table)
    curves = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("metric", "", "first", "last", "best"):
        curves.add_column(column, justify="left" if column in ("metric", "") else "right")
    best = found["best"] or {"metrics": {}}
    for name, points in found["curves"].items():
        values = [value for _, value in points]
        if name not in COUNTERS and values:
            at_best = rows.told(name, best["metrics"].get(name))
            style = "bold" if name == found["metric"] else ""
            curves.add_row(
                name,
                rows.sparkline(values),
                rows.told(name, values[0]),
                rows.told(name, values[-1]),
                at_best,
                style=style,
            )
    console.print(curves)
    for name in ("gpu_share", "workers", "warm_start"):
        if name in found:
            console.print(f"{name.replace('_', ' ')} {found[name]}")
    console.print(f"files {found['path']}", soft_wrap=True)
    console.print(f"MLflow run {found['run_id']}")
    if found["failure"]:
        console.print(found["failure"], style="red", markup=False, soft_wrap=True)
