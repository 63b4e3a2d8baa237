"""`hfsuite export`: a folder that needs nothing of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli.outcome import OK


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id or its first letters, SWEEP:best, or SWEEP:3 for a trial.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="To be made, or empty.")],
) -> int:
    """Write a trial's model, its training and its numbers into a folder that needs neither hfsuite nor Ray."""
    from hfsuite.reproduce.export import export as export_run
    from hfsuite.tracking import store

    exported = export_run(store.open_store(), run, folder)
    console = Console()
    console.print(f"{exported.title} is in {folder}:", markup=False, highlight=False)
    for path in sorted(folder.iterdir()):
        console.print(f"  {path.name}{'/' if path.is_dir() else ''}", markup=False, highlight=False)
    return OK
