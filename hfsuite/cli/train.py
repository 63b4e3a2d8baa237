"""`hfsuite train`: one run of an experiment, tracked as a trial is."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hfsuite.cli import settings
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import OK, answer, show_warning
from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.sweeps.request import OF_TRAINING
from hfsuite.tracking.declared import Program


@settings.asks("set", *OF_TRAINING)
def train(
    module: settings.Module,
    values: settings.Values = None,
    reports: Annotated[
        int | None, typer.Option(min=1, help="End after so many reports.", show_default="no end")
    ] = None,
    by_text: Annotated[
        list[str] | None, typer.Option(hidden=True, help="A setting of which the file holds a text instead.")
    ] = None,
    reproduces: Annotated[str | None, typer.Option(hidden=True, help="The run that this one repeats.")] = None,
    recorded: Annotated[
        Path | None, typer.Option(hidden=True, help="What is recorded of a program that declares it, as JSON.")
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts", help="Only say what it would be given and where it would run, as JSON.")
    ] = False,
    json: settings.Json = False,
    **asked: Any,
) -> int:
    """Train an experiment once, with its default settings or with those given by --set."""
    with answer(json or facts) as say:
        declaration = Program(**json_.loads(recorded.read_text(encoding="utf-8"))) if recorded else None
        experiment = load_experiment(module, declaration)  # first: a module that does not exist needs no Ray
        from hfsuite.sweeps.first_step import facts_of
        from hfsuite.sweeps.sweep import run_training

        request, faults = settings.requested(experiment, asked, file=values, unwritten=by_text or [])
        if facts:
            if faults:
                raise ConfigurationError(faults)
            say(facts_of(experiment, request))
            return OK
        trial = run_training(experiment, request, reports=reports, reproduces=reproduces, faults=faults)
        if json:
            say(trial.as_json())
    if trial.tracking_fault:
        show_warning(trial.tracking_fault)
    if trial.failure is not None:
        raise TrialFailed(trial.failure)
    if json:
        return OK
    console = Console()
    for metric in dict.fromkeys([experiment.metric, *experiment.progress]):
        if metric in trial.metrics:
            console.print(f"{metric} {trial.metrics[metric]:.4g}")
    if trial.run_id:
        console.print(f"MLflow run {trial.run_id}")
    if trial.checkpoint:
        console.print(f"checkpoint {trial.checkpoint_path}", soft_wrap=True)
    return OK
