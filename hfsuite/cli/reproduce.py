"""`hfsuite reproduce`: run a recorded trial again, and say whether the same came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfsuite.cli import settings
from hfsuite.cli.outcome import DIVERGED, OK, answer

if TYPE_CHECKING:
    from hfsuite.reproduce.plan import Difference
    from hfsuite.reproduce.reproduction import Reproduction

COLOURS = {"BITWISE": "bold green", "WITHIN TOLERANCE": "bold yellow", "DIVERGED": "bold red"}


def reproduce(
    run: settings.Run,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Only show what is different here; nothing is trained.")
    ] = False,
    restore_code: Annotated[
        bool, typer.Option("--restore-code", help="Run the recorded commit and changes, in a worktree of their own.")
    ] = False,
    lock: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the recorded packages as a requirements file, and end.")
    ] = None,
    to_end: Annotated[
        bool, typer.Option("--to-end", help="Train a trial that was stopped early to its own end.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Another number of workers.", show_default="as recorded")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="How far numbers may be apart, relative.", show_default="what rounding can do"),
    ] = None,
    set_: settings.Set = None,
    storage: settings.Storage = "results",
    json: settings.Json = False,
) -> int:
    """Run a recorded trial again in new processes, compare every number and the weights, and give a verdict."""
    from hfsuite.reproduce import reproduction
    from hfsuite.tracking import store

    client = store.existing_store()
    if lock is not None:
        lock.write_text(reproduction.lock(client, run), encoding="utf-8")
        Console(stderr=json).print(f"Install them with: pip install -r {lock}", highlight=False, markup=False)
        return OK
    changes = settings.assignments(set_ or [])
    console = Console(stderr=json)
    with answer(json) as say:
        if plan_only:
            with reproduction.planned(
                client, run, workers=workers, restore_code=restore_code, changes=changes, storage=storage,
                ask_facts=True,
            ) as (found, code, plan):  # fmt: skip
                show_plan(console, f"{found.title}: {code.origin}", plan)
                if json:
                    say({"run_id": found.run_id, "title": found.title, "plan": [each.as_json() for each in plan]})
            return OK
        done = reproduction.reproduce(
            client, run, workers=workers, restore_code=restore_code, to_end=to_end, tolerance=tolerance,
            storage=storage, changes=changes,
            tell=lambda found, code, plan: show_plan(console, f"{found.title}: {code.origin}", plan, begun=False),
        )  # fmt: skip
        if json:
            say(done.as_json())
        else:
            show_verdict(console, done, to_end=to_end)
    return DIVERGED if done.verdict == "DIVERGED" else OK


def show_verdict(console: Console, done: Reproduction, *, to_end: bool) -> None:
    """What is different, and what came of it."""
    from hfsuite.reproduce import report

    show_plan(console, done.title, done.plan)
    console.print(f"\n[{COLOURS[done.verdict]}]{done.verdict}[/]  {escape(done.title)}", highlight=False)
    for sentence in report.reasons(done.judgement):
        console.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)
    if to_end:
        reached = f", and reached {done.reached:.6g}" if done.reached is not None else ""
        console.print(f"  It went on to step {done.ended_at}{reached}.", markup=False, highlight=False)
    console.print(f"Recorded in both MLflow runs, {done.run_id} and {done.repeated_by}", highlight=False)


def show_plan(
    console: Console, title: str, plan: Sequence[Difference], *, begun: bool = True,
    columns: tuple[str, str] = ("recorded", "here"),
) -> None:  # fmt: skip
    """The table of differences.

    Args:
        console: where.
        title: of what.
        plan: the differences.
        begun: whether the training has begun, so that data, model and threads are known too.
        columns: what is compared.
    """
    console.print(f"\n{title}", markup=False, highlight=False, style="bold")
    if plan:
        table = Table("different", *columns, "what it can do", box=None, pad_edge=False, header_style="dim")
        styles: dict[str, Any] = {"result": "red", "last_bits": "yellow", "nothing": "dim"}
        for each in plan:
            values = (each.subject, each.recorded, each.here, each.effect)
            table.add_row(*map(escape, values), style=styles[each.weight.name.lower()])
        console.print(table)
    else:
        console.print("Nothing is different." if begun else "Nothing is different so far.", style="green")
    if not begun:
        console.print("Data, model and threads are compared when it has been trained.", style="dim")
