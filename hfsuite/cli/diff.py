"""`hfsuite diff`: two recorded runs, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfsuite.cli import settings
from hfsuite.cli.outcome import OK, answer
from hfsuite.cli.reproduce import show_plan
from hfsuite.tracking.names import mlflow_name

if TYPE_CHECKING:
    from hfsuite.reproduce.comparison import Best


def diff(one: settings.Run, other: settings.Run, json: settings.Json = False) -> int:
    """Show what differs between two recorded runs: settings, code, environment, data, and what they reported."""
    from hfsuite.reproduce import recorded as records
    from hfsuite.reproduce.comparison import best_of, side_by_side
    from hfsuite.reproduce.plan import differences
    from hfsuite.reproduce.surroundings import as_texts, counting, recorded
    from hfsuite.tracking import store

    with answer(json) as say:
        client = store.existing_store()
        first, second = (records.read(client, records.find(client, each), whole=False) for each in (one, other))
        ours, theirs = recorded(first), recorded(second)
        ours, theirs = replace(ours, config=counting(first)), replace(theirs, config=counting(second))
        if first.missing or second.missing:
            ours, theirs = (replace(each, config=as_texts(each.config)) for each in (ours, theirs))
        found, metrics = differences(ours, theirs), side_by_side(first, second)
        bests = best_of(first), best_of(second)
        if json:
            say({
                "runs": [first.run_id, second.run_id],
                "missing": [first.missing, second.missing],
                "differences": [each.as_json() for each in found],
                "best": [vars(best) if best is not None else None for best in bests],
                "metrics": [vars(each) for each in metrics],
            })  # fmt: skip
            return OK
    console = Console()
    for run in (first, second):
        if run.missing:
            console.print(f"Not recorded of {run.title}: {', '.join(run.missing)}.", markup=False, soft_wrap=True)
    show_plan(console, f"{first.title} and {second.title}", found, columns=(first.title, second.title))
    with_last = any(each.ends_elsewhere for each in metrics)
    columns = [_column(run.title, best) for run, best in zip((first, second), bests, strict=True)]
    last = [_column(run.title, None) for run in (first, second)] if with_last else []
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("metric", no_wrap=True)
    for column in (*columns, *last, "differs\nfrom step"):
        table.add_column(column, overflow="fold")
    for each in metrics:
        apart = str(each.apart_from) if each.apart_from is not None else "equal" if each.common else "no common step"
        ends = (_shown(each.last_one), _shown(each.last_other)) if with_last else ()
        optimised = any(best is not None and mlflow_name(best.metric) == each.name for best in bests)
        row = (each.name, _shown(each.one), _shown(each.other), *ends, apart)
        table.add_row(*map(escape, row), style="bold" if optimised else "")
    console.print("\nReported", style="bold")
    console.print(table)
    return OK


def _column(title: str, best: Best | None) -> str:
    return escape(f"{title}\nlast" if best is None else f"{title}\nbest {best.metric},\nstep {best.step}")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
