"""`hfsuite list`: what there is to run."""

from __future__ import annotations

import json as json_

import typer
from rich.console import Console
from rich.table import Table

from hfsuite.cli import settings
from hfsuite.cli.here import experiments_here, spaces_here
from hfsuite.cli.new import shipped


def list_(json: settings.Json = False) -> int:
    """List the experiments and search spaces that can be imported from here."""
    found = {"experiments": experiments_here(), "search_spaces": spaces_here()}
    if json:
        typer.echo(json_.dumps(found))
        return 0
    console = Console()
    for kind, entries in found.items():
        console.print(kind.replace("_", " "), style="italic", highlight=False)
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, summary in entries.items():
            table.add_row(name, summary, style=None)
        console.print(table if entries else f"There are no {kind.replace('_', ' ')} here.")
        console.print()
    others = [name for name in shipped("experiments") if f"experiments.{name}" not in found["experiments"]]
    if others:
        console.print(f"Shipped, to be copied: hfsuite new NAME --from {'|'.join(others)}", highlight=False)
    return 0
