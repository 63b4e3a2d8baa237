"""`hfsuite export`: a folder that needs nothing of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli import settings
from hfsuite.cli.outcome import OK, answer


def export(
    run: settings.Run,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="To be made, or empty.")],
    json: settings.Json = False,
) -> int:
    """Write a trial's model, its training and its numbers into a folder that needs neither hfsuite nor Ray."""
    from hfsuite.reproduce.export import export as export_run
    from hfsuite.tracking import store

    with answer(json) as say:
        exported = export_run(store.existing_store(), run, folder)
        files = sorted(path.name for path in folder.iterdir())
        if json:
            say({
                "run_id": exported.run.run_id,
                "title": exported.run.title,
                "folder": str(folder),
                "files": files,
                "remarks": exported.remarks,
            })  # fmt: skip
            return OK
    console = Console()
    if "model" not in files:
        console.print("No checkpoint of it was kept, so there is no model/ in it.", style="yellow")
    for remark in exported.remarks:
        console.print(remark, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{exported.run.title} is in {folder}:", markup=False, highlight=False)
    for path in sorted(folder.iterdir()):
        console.print(f"  {path.name}{'/' if path.is_dir() else ''}", markup=False, highlight=False)
    return OK
