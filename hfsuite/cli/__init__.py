"""The command line: one file a verb."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hfsuite.cli import (
    best,
    clean,
    compare,
    confirm,
    diff,
    export,
    list_,
    new,
    register,
    reproduce,
    resume,
    show,
    sweep,
    sweeps,
    sync,
    train,
    ui,
)
from hfsuite.cli.outcome import run_command
from hfsuite.version import __version__

if TYPE_CHECKING:
    from hfsuite.declaration import Declaration


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hfsuite {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="hfsuite",
    help="Hyperparameter sweeps over distributed Hugging Face training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("sweep")(sweep.sweep)
app.command("resume")(resume.resume)
app.command("train")(train.train)
app.command("sweeps")(sweeps.sweeps)
app.command("show")(show.show)
app.command("compare")(compare.compare)
app.command("best")(best.best)
app.command("confirm")(confirm.confirm)
app.command("diff")(diff.diff)
app.command("export")(export.export)
app.command("reproduce")(reproduce.reproduce)
app.command("register")(register.register)
app.command("sync")(sync.sync)
app.command("list")(list_.list_)
app.command("new")(new.new)
app.command("clean")(clean.clean)
app.command("ui")(ui.ui)


@app.callback()
def hfsuite(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Hyperparameter sweeps over distributed Hugging Face training."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its code: see `hfsuite.cli.outcome`."""
    sys.exit(run_command(app, arguments))


def run_module(experiment: Declaration) -> None:
    """What `python -m experiments.NAME` does: `hfsuite sweep` on that module, with the same options.

    The module is imported again by its own name, so that workers find its functions where they are.
    """
    from hfsuite.sweeps.launching import launch

    if launch(experiment) is None:
        sys.argv = ["hfsuite", "sweep", experiment.module, *sys.argv[1:]]  # so it is recorded
        main(sys.argv[1:])
