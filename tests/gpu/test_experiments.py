"""The shipped experiments on GPUs, with as many for a trial as there may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import digits, language_model, sentiment

DIVERGED = 3  # the exit code
Record = Callable[[str, object], None]
EXPERIMENTS = {
    "sentiment": (sentiment.experiment, {"train_rows": 640, "validation_rows": 200, "num_train_epochs": 1}),
    "digits": (digits.experiment, {"epochs": 3}),
    "language_model": (
        language_model.experiment,
        {"model": "small", "text": "state_of_the_union", "steps": 20, "context": 128, "evaluations": 2},
    ),
}


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains_on_gpus(
    name: str, precision: str, gpus: int, own_directory: Path, record_property: Record
) -> None:
    experiment, settings = EXPERIMENTS[name]
    trials = there() // gpus + 1  # the last one finds workers that have trained
    result = experiment.sweep(
        trials=trials,
        searcher="random",
        trial_scheduler="fifo",
        workers=gpus,
        gpu=1.0,
        keep="all",
        set={**settings, "precision": precision},
    )
    assert [trial.failure for trial in result.trials] == [None] * trials
    assert sum(bool(trial.warm_start) for trial in result.trials) == 1
    for trial in result.trials:
        facts = json.loads(Path(trial.path, "training.json").read_text())
        assert facts["world_size"] == gpus
        assert facts["device"] != "cpu"
        assert facts["precision"] == ("bf16" if precision == "bf16" else "no")
        assert facts["nccl"]
        assert trial.checkpoint is not None
    record_property("metric", f"{result.best.metrics[experiment.metric]:.3f}")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_workers_serve_trial_after_trial(name: str, own_directory: Path, record_property: Record) -> None:
    experiment, settings = EXPERIMENTS[name]
    trials = 12 * there()  # as many at once as there are GPUs
    result = experiment.sweep(
        trials=trials, searcher="random", trial_scheduler="asha", workers=1, gpu=1.0,
        set={**settings, "precision": "bf16"},
    )  # fmt: skip
    cold = [trial for trial in result.trials if not trial.warm_start]
    record_property("new workers", len(cold))
    assert [trial.workers_lost for trial in result.trials] == [None] * trials
    assert len(cold) == there()


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_deterministic_trial_is_reproduced_bit_for_bit(
    name: str, gpus: int, own_directory: Path, record_property: Record
) -> None:
    _, settings = EXPERIMENTS[name]
    fixed = [part for key, value in {**settings, "precision": "bf16"}.items() for part in ("--set", f"{key}={value}")]
    hfsuite(
        "sweep", f"experiments.{name}", "--trials", "2", "--workers", gpus, "--gpu", "--deterministic", "--name", "one",
        "--trial-scheduler", "fifo", *fixed,
    )  # fmt: skip
    verdict = hfsuite("reproduce", "one:1", "--json")
    record_property("verdict", verdict["verdict"])
    assert verdict["verdict"] == "BITWISE", verdict


@pytest.mark.parametrize("name", ["digits"])
def test_a_trial_that_was_not_deterministic_gets_an_honest_verdict(
    name: str, own_directory: Path, record_property: Record
) -> None:
    _, settings = EXPERIMENTS[name]
    fixed = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    hfsuite("sweep", f"experiments.{name}", "--trials", "1", "--workers", 1, "--gpu", "--name", "one", *fixed)
    verdict = hfsuite("reproduce", "one:0", "--json", allowed=(0, DIVERGED))
    record_property("verdict", verdict["verdict"])
    assert (verdict["verdict"] == "DIVERGED") == (verdict["exit"] == DIVERGED)
    record_property("difference", f"from {verdict['began_at']}, at most {verdict['largest']}")
    record_property("weights equal", verdict["weights_equal"])


def there() -> int:
    import torch

    return int(torch.cuda.device_count())


def hfsuite(*arguments: object, allowed: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """A command as a user types it, in processes of its own; the JSON that it prints, if it does."""
    command = [sys.executable, "-W", "ignore", "-m", "hfsuite", *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode in allowed, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return {"exit": done.returncode, **(json.loads(done.stdout) if "--json" in arguments else {})}
