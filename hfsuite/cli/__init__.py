"""The command line: one file a verb."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from hfsuite.cli import best, confirm, diff, export, list_, register, reproduce, resume, sweep, sync, train, ui
from hfsuite.cli.outcome import run_command

if TYPE_CHECKING:
    from hfsuite.sweeps.experiment import Experiment

app = typer.Typer(
    name="hfsuite",
    help="Hyperparameter sweeps over distributed Hugging Face training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("sweep")(sweep.sweep)
app.command("resume")(resume.resume)
app.command("train")(train.train)
app.command("best")(best.best)
app.command("confirm")(confirm.confirm)
app.command("diff")(diff.diff)
app.command("export")(export.export)
app.command("reproduce")(reproduce.reproduce)
app.command("register")(register.register)
app.command("sync")(sync.sync)
app.command("list")(list_.list_)
app.command("ui")(ui.ui)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its code: see `hfsuite.cli.outcome`."""
    sys.exit(run_command(app, arguments))


def run_module(experiment: Experiment) -> None:
    """What `python -m experiments.NAME` does: `hfsuite sweep` on that module, with the same options.

    The module is imported again by its own name, so that workers find its functions where they are.
    """
    from hfsuite.sweeps.launching import launch

    launch(experiment)
    main(["sweep", experiment.module, *sys.argv[1:]])
