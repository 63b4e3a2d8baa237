"""`hfsuite list`: what there is to run."""

from __future__ import annotations

import json as json_

import typer
from rich.console import Console
from rich.table import Table

from hfsuite.cli import settings
from hfsuite.cli.loading import EXPERIMENTS, SPACES, modules


def list_(json: settings.Json = False) -> int:
    """List the experiments and search spaces that can be imported from here."""
    found = {package: dict(modules(package)) for package in (EXPERIMENTS, SPACES)}
    if json:
        typer.echo(json_.dumps(found))
        return 0
    console = Console()
    for package, entries in found.items():
        table = Table(
            title=package.replace("_", " "), title_justify="left", show_header=False, box=None, pad_edge=False
        )
        for name, summary in entries.items():
            table.add_row(name, summary, style=None)
        console.print(table if entries else f"There are no {package.replace('_', ' ')} here.")
        console.print()
    return 0
