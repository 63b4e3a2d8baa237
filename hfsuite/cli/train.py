"""`hfsuite train`: one run of an experiment, tracked as a trial is."""

from __future__ import annotations

from rich.console import Console

from hfsuite.cli import settings
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import OK, answer, show_warning
from hfsuite.errors import TrialFailed


def train(
    module: settings.Module,
    workers: settings.Workers = None,
    gpu: settings.Gpu = None,
    set_: settings.Set = None,
    seed: settings.Seed = 0,
    name: settings.Name = None,
    storage: settings.Storage = "results",
    json: settings.Json = False,
) -> int:
    """Train an experiment once, with its default settings or with those given by --set."""
    from hfsuite.sweeps.sweep import run_training

    with answer(json) as say:
        experiment = load_experiment(module)
        fixed, faults = settings.parse_settings(experiment, set_ or [])
        trial = run_training(
            experiment,
            fixed=fixed,
            workers=workers,
            gpu=gpu,
            seed=seed,
            name=name,
            storage=storage,
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
