"""`hfsuite train`: one run of an experiment, tracked as a trial is."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hfsuite.cli import settings
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import OK, answer, show_warning
from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.tracking.declared import Declaration


def train(
    module: settings.Module,
    workers: settings.Workers = None,
    gpu: settings.Gpu = None,
    gpu_share: settings.GpuShare = None,
    set_: settings.Set = None,
    seed: settings.Seed = 0,
    name: settings.Name = None,
    storage: settings.Storage = "results",
    deterministic: settings.Deterministic = None,
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
) -> int:
    """Train an experiment once, with its default settings or with those given by --set."""
    from hfsuite.sweeps.first_step import facts_of
    from hfsuite.sweeps.sweep import run_training

    with answer(json or facts) as say:
        declaration = Declaration(**json_.loads(recorded.read_text(encoding="utf-8"))) if recorded else None
        experiment = load_experiment(module, declaration)
        fixed, faults = settings.parse_settings(experiment, set_ or [], values, by_text or [])
        device, contradictions = settings.gpu_of(gpu, gpu_share)
        faults += contradictions
        if facts:
            if faults:
                raise ConfigurationError(faults)
            found = facts_of(
                experiment, fixed, workers=workers, gpu=device, seed=seed, deterministic=deterministic, storage=storage
            )
            say(found)
            return OK
        trial = run_training(
            experiment,
            fixed=fixed,
            workers=workers,
            gpu=device,
            seed=seed,
            name=name,
            storage=storage,
            deterministic=deterministic,
            reports=reports,
            reproduces=reproduces,
            faults=faults,
        )
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
