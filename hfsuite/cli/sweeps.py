"""`hfsuite sweeps`: all recorded sweeps, from MLflow alone."""

from __future__ import annotations

from rich.console import Console

from hfsuite.cli import rows, settings
from hfsuite.cli.outcome import OK, answer

COLUMNS = ("sweep", "began", "experiment", "state", "over", "planned", "failed", "metric", "best", "worker_hours")
SHOWN = ("sweep", "began", "state", "trials", "failed", "best", "hours")


def sweeps(where: rows.Where = None, sort: rows.Sort = None, json: settings.Json = False) -> int:
    """List the sweeps: when, of what, how they stand, how many trials, the best, hours of workers."""
    from hfsuite.tracking import listing, store

    with answer(json) as say:
        found = rows.chosen(listing.sweeps(store.existing_store()), [*COLUMNS, "run_id"], where, sort)
        if json:
            say({"sweeps": found})
            return OK
    if not found:
        Console().print("No such sweep." if where else "No sweep yet. Run one: hfsuite sweep MODULE", highlight=False)
        return OK
    Console().print(rows.drawn([_told(row) for row in found], SHOWN))
    return OK


def _told(row: rows.Row) -> rows.Row:
    """As few columns as fit a narrow screen."""
    trials = f"{row['over']} of {row['planned']}" if row["planned"] is not None else None
    best = f"{row['metric']} {row['best']:.4g}" if row["best"] is not None else None
    return {**row, "trials": trials, "failed": row["failed"] or None, "best": best, "hours": row["worker_hours"]}
