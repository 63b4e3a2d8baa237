"""`hfsuite sweep`: search, and show what was found."""

from __future__ import annotations

import json as json_
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hfsuite.checkpoints.base_model import FOLDER as BUNDLED
from hfsuite.cli import settings
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.outcome import answer, show_error, show_warning
from hfsuite.tracking.adapters import ADAPTER_CONFIG, CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.train import Checkpoint

    from hfsuite.sweeps.result import SweepResult, TrialResult


@settings.asks(*settings.OPTIONS)
def sweep(module: settings.Module, json: settings.Json = False, **asked: Any) -> int:
    """Search for the best settings of an experiment."""
    with answer(json) as say:
        experiment = load_experiment(module)  # first: a module that does not exist needs no Ray
        from hfsuite.sweeps.job import Job
        from hfsuite.sweeps.sweep import run

        request, faults = settings.requested(experiment, asked)
        result = run(Job(experiment, request), faults)
        if json:
            say(result.as_json())
    return finish(result, list(experiment.progress), json=json)


def finish(result: SweepResult, progress: list[str], *, json: bool) -> int:
    """Shows what came of a sweep, and returns the exit code."""
    if not json:
        show(result, progress)
    if result.tracking_fault:
        show_warning(f"{result.tracking_fault} The results themselves are in {result.path}.")
    for trial in [each for each in result.trials if each.failure][:1]:
        show_error(f"{trial.failure}")
    return int(result.exit_code)


def show(result: SweepResult, progress: list[str]) -> None:
    """The table of trials, the best one, and what to type next."""
    from hfsuite.report import FAILURE_FILE
    from hfsuite.sweeps.display import Display, shortest
    from hfsuite.sweeps.result import best_so_far, best_trial

    console = Console()
    display = Display(
        title=f"{result.experiment} · {result.name}",
        metric=result.metric,
        mode=result.mode,
        progress=progress,
        total=result.planned,
    )
    console.print(display.table(result.trials))
    for trial in result.trials:
        if trial.workers_lost:
            console.print(f"Trial {trial.number:03d} got new workers {trial.workers_lost}", markup=False)
    for trial in result.trials:
        if trial.failure:
            why = trial.failure.splitlines()[0].removeprefix(f"Trial {Path(trial.path).name}, ")
            console.print(f"Trial {trial.number:03d} failed: {why}", markup=False, soft_wrap=True)
            console.print(f"  {shortest(trial.path)}/{FAILURE_FILE}", style="dim", markup=False, soft_wrap=True)
    best = best_trial(result.trials, result.metric, result.mode)
    so_far = best_so_far(result.trials, result.metric, result.mode) if result.interrupted else best
    if best is None:
        if so_far is None:
            console.print("\nNo trial has succeeded.", style="bold red")
        else:
            said = "\nNo trial had ended when the sweep was interrupted. Best so far:"
            console.print(f"{said} trial {_rated(so_far, result.metric)}", highlight=False)
        return
    console.print(f"\n[bold]Best:[/] trial {_rated(best, result.metric)}")
    for name, value in best.searched.items():
        console.print(f"  {name} = {value!r}", markup=False)
    if so_far is not None and so_far is not best:
        console.print(f"Better so far, but interrupted: trial {_rated(so_far, result.metric)}", highlight=False)
    console.print("\nNext, open the runs in MLflow, or load the best model:")
    if not result.tracking_fault:
        console.print(f"  {_command('hfsuite')} ui", style="bold", soft_wrap=True)
    if best.checkpoint is not None:
        path = shortest(str(best.checkpoint_path))
        console.print(f"  {load_command(best.checkpoint, path)}", style="bold", markup=False, soft_wrap=True)


def _rated(trial: TrialResult, metric: str) -> str:
    return f"{trial.number:03d}, {metric} {trial.metrics[metric]:.4g}"


def load_command(checkpoint: Checkpoint, path: str) -> str:
    """A command line that loads the model of a checkpoint, by the class that it was saved from."""
    if (adapters := _read_json(checkpoint, ADAPTER_CONFIG)) is not None:  # of PEFT
        is_bundled = _read_json(checkpoint, f"{BUNDLED}/config.json") is not None
        return f"""{_command("python")} -c "{_load_adapters(adapters, path, is_bundled=is_bundled)}\""""
    model = ((_read_json(checkpoint, "config.json") or {}).get("architectures") or ["AutoModel"])[0]
    return (
        f'{_command("python")} -c "from hfsuite import TransformersCheckpoint; from transformers import {model}; '
        f"print(TransformersCheckpoint('{path}').get_model({model}))\""
    )


def _load_adapters(adapters: Mapping[str, Any], path: str, *, is_bundled: bool) -> str:
    """With the model that they belong to, if it lies beside them or has a name."""
    task, base = adapters.get("task_type") or "", adapters.get("base_model_name_or_path")
    model = CLASSES.get(task, "AutoModel")
    if is_bundled:
        below = f"{model}.from_pretrained('{path}/{BUNDLED}')"
        return (
            f"from peft import PeftModel; from transformers import {model}; "
            f"print(PeftModel.from_pretrained({below}, '{path}'))"
        )
    own = "AutoPeftModelForFeatureExtraction" if task == "FEATURE_EXTRACTION" else f"AutoPeft{model[4:]}"
    how = f"{own}.from_pretrained" if base else "load_peft_weights"
    return f"from peft import {how.partition('.')[0]}; print({how}('{path}'))"


def _read_json(checkpoint: Checkpoint, name: str) -> dict[str, Any] | None:
    path = f"{checkpoint.path}/{name}"
    if not checkpoint.filesystem.get_file_info(path).is_file:
        return None
    with checkpoint.filesystem.open_input_stream(path) as stream:
        found: dict[str, Any] = json_.loads(stream.read())
        return found


def _command(name: str) -> str:
    """How to call a program of this environment from here: by its name alone only if that finds it."""
    from hfsuite.sweeps.display import shortest

    own = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(own) else shortest(str(own))
