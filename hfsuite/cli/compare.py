"""`hfsuite compare`: several runs, what differs between them, and their curves under one another. From MLflow alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfsuite.cli import completion, rows, settings
from hfsuite.cli.of_trial import trial
from hfsuite.cli.outcome import OK, answer

COUNTERS = ("step", "epoch", "training_iteration", "samples")
OWN = ("run", "state", "why", "step", "gpu_share", "workers", "warm_start")


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN ...",
            help="Ids of runs or their first letters, SWEEP:best, SWEEP:3.",
            autocompletion=completion.runs,
        ),
    ],
    where: rows.Where = None,
    sort: rows.Sort = None,
    json: settings.Json = False,
) -> int:
    """Compare runs: only what differs, and their curves under one another. For two, `diff` says why they differ."""
    from hfsuite.tracking import store

    with answer(json) as say:
        client = store.existing_store()
        found = [trial(client, name) for name in dict.fromkeys(runs)]
        columns = _columns(found)
        chosen = rows.chosen([_row(each) for each in found], columns, where, sort)
        shown = [each["trial"] for each in chosen]
        differing = _differing(shown)
        if json:
            say({"differs": differing, "runs": shown})
            return OK
    console = Console(highlight=False)
    console.print(rows.drawn(chosen, [*OWN[:2], *_metrics(shown), *OWN[2:], *differing]))
    console.print(_curves(shown))
    return OK


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: settings in `config`, and the numbers of the best report."""
    best = found["best"] or {"metrics": {}, "step": None}
    own = {name: found.get(name) for name in OWN if name not in ("run", "step")}
    metric = found["metric"]
    return {
        "run": found["title"], **own, "step": best["step"], metric: best["metrics"].get(metric),
        "config": found["config"], "trial": found,
    }  # fmt: skip


def _metrics(found: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(each["metric"] for each in found))


def _columns(found: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in found for name in each["config"])
    return list(dict.fromkeys([*OWN, *_metrics(found), *names]))


def _differing(found: list[dict[str, Any]]) -> list[str]:
    """The settings that do not have the same value everywhere, or do not count everywhere."""
    names = dict.fromkeys(name for each in found for name in each["config"])
    return [name for name in names if len({repr(each["config"].get(name)) for each in found}) > 1]


def _curves(found: list[dict[str, Any]]) -> Table:
    """A line for each run and metric that at least one has reported more than once."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column, justify in (("metric", "left"), ("run", "left"), ("", "left"), ("first", "right"), ("last", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    names = dict.fromkeys(name for each in found for name in each["curves"])
    optimised = _metrics(found)
    for name in sorted(names, key=lambda each: each not in optimised):
        curves = {each["title"]: [value for _, value in each["curves"].get(name, [])] for each in found}
        if name in COUNTERS or not any(len(values) > 1 for values in curves.values()):
            continue
        low_high = [value for values in curves.values() for value in values]
        for place, (title, values) in enumerate(curves.items()):
            ends = (rows.told(name, values[0]), rows.told(name, values[-1])) if values else ("", "")
            line = rows.sparkline(values, among=low_high)
            table.add_row(
                "" if place else escape(name), escape(title), line, *ends, style="bold" if name in optimised else ""
            )
    return table
