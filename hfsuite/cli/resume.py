"""`hfsuite resume`: take an interrupted sweep up again."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hfsuite.cli import completion, settings
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import answer
from hfsuite.cli.sweep import finish


def resume(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP]",
            help="A sweep's name or directory; by default the newest interrupted one.",
            autocompletion=completion.sweeps,
        ),
    ] = None,
    storage: settings.Storage = "results",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again, too.")] = False,
    json: settings.Json = False,
) -> int:
    """Take an interrupted sweep up again: finished trials stay, others go on from their last checkpoint."""
    from hfsuite.sweeps.finding import find_directory
    from hfsuite.sweeps.sweep import resume_sweep
    from hfsuite.tracking import provenance
    from hfsuite.tracking.state import TrialState

    with answer(json) as say:
        directory, found = find_directory(sweep, storage)
        record = directory.read_sweep()
        experiment = load_experiment(record.module, provenance.declaration(record.experiment, record.provenance))
        if record.state is TrialState.COMPLETED:
            print(f"The sweep {record.name} had completed: nothing is left to be taken up.", file=sys.stderr)
        result = resume_sweep(experiment, directory, found, retry_failed=retry_failed)
        if json:
            say(result.as_json())
    return finish(result, list(experiment.progress), json=json)
