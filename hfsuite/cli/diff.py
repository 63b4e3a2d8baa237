"""`hfsuite diff`: two recorded runs, side by side."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.table import Table

from hfsuite.cli import settings
from hfsuite.cli.outcome import OK, answer
from hfsuite.cli.reproduce import show_plan


def diff(one: settings.Run, other: settings.Run, json: settings.Json = False) -> int:
    """Show what differs between two recorded runs: settings, code, environment, data, and what they reported."""
    from hfsuite.reproduce import recorded as records
    from hfsuite.reproduce.comparison import side_by_side
    from hfsuite.reproduce.plan import differences
    from hfsuite.reproduce.surroundings import as_texts, counting, recorded
    from hfsuite.tracking import store

    with answer(json) as say:
        client = store.open_store()
        first, second = (records.read(client, records.find(client, each), whole=False) for each in (one, other))
        ours, theirs = recorded(first), recorded(second)
        ours, theirs = replace(ours, config=counting(first)), replace(theirs, config=counting(second))
        if first.missing or second.missing:
            ours, theirs = (replace(each, config=as_texts(each.config)) for each in (ours, theirs))
        found, metrics = differences(ours, theirs), side_by_side(first, second)
        if json:
            say({
                "runs": [first.run_id, second.run_id],
                "missing": [first.missing, second.missing],
                "differences": [each.as_json() for each in found],
                "metrics": [vars(each) for each in metrics],
            })  # fmt: skip
            return OK
    console = Console()
    for run in (first, second):
        if run.missing:
            console.print(f"Not recorded of {run.title}: {', '.join(run.missing)}.", markup=False, soft_wrap=True)
    show_plan(console, f"{first.title} and {second.title}", found, columns=(first.title, second.title))
    table = Table(
        "metric", first.title, second.title, "differs from step", box=None, pad_edge=False, header_style="dim"
    )
    for each in metrics:
        apart = str(each.apart_from) if each.apart_from is not None else "equal" if each.common else "no common step"
        table.add_row(each.name, _shown(each.one), _shown(each.other), apart)
    console.print("\nLast values", style="bold")
    console.print(table)
    return OK


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
