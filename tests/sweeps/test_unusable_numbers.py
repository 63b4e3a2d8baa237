"""What is optimised may be anything that a training function reports: a sweep goes on, and says what became of it."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
import ray.train
import torch
from ray import tune
from ray.train import ScalingConfig
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler

from hfsuite import AccelerateTrainer, Experiment
from hfsuite.errors import MetricNotReported
from hfsuite.tracking import store
from hfsuite.tracking.state import TrialState

VALUES: dict[str, Any] = {
    "none": None, "text": "low", "list": [0.1], "dict": {"all": 0.1}, "true": True, "nan": math.nan,
    "endless": -math.inf, "plain": 0.5, "decimal": Decimal("0.65"), "complex": 1j, "large": 10**400,
    "halves": torch.tensor(0.66, dtype=torch.bfloat16),
}  # fmt: skip


def loop(settings: dict[str, Any]) -> None:
    """The second report is what is asked for, and so is the first, in one trial; others are no better."""
    value = VALUES[settings["what"]]
    for step, each in enumerate((value if settings["what"] == "none" else 0.6, value, 0.7), start=1):
        ray.train.report({"loss": each, "other": value, "step": step, "training_finished": step == 3})


def only(settings: dict[str, Any]) -> None:
    ray.train.report({"loss": VALUES[settings["what"]], "step": 1})


def experiment(function: Any, *what: str) -> Experiment:
    return Experiment(
        name="odd",
        trainer=AccelerateTrainer(function, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
        space={"what": tune.grid_search(list(what))},
        metric="loss",
        mode="min",
        defaults={"what": "plain"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_what_is_no_number_neither_ends_a_sweep_nor_wins_it(scheduler: str) -> None:
    result = experiment(loop, *VALUES).sweep(searcher="grid", trial_scheduler=scheduler, name=f"odd_{scheduler}")
    ended = {trial.config["what"]: trial for trial in result.trials}
    assert set(ended) == set(VALUES)
    assert all(trial.state in (TrialState.COMPLETED, TrialState.PRUNED) for trial in ended.values())
    assert not any("by the user" in trial.why for trial in ended.values())
    assert result.best.config["what"] == "plain"
    assert result.best.metrics["loss"] == 0.5
    if (text := ended["text"]).iterations > 1:
        assert store.open_store().get_run(text.run_id).data.tags["reported.loss"] == "low"


def test_a_sweep_without_any_number_says_what_was_reported_instead() -> None:
    with pytest.raises(MetricNotReported, match="Its value was 'low', not a number"):
        experiment(only, "text").sweep(searcher="grid", name="odd")
    client = store.open_store()
    found = client.search_runs([client.get_experiment_by_name("odd").experiment_id])
    states = {run.data.tags["hfsuite.kind"]: run.data.tags for run in found}
    assert states["trial"]["hfsuite.state"] == "stopped", "a text will be no number later"
    assert states["trial"]["reported.loss"] == "low"
    assert "MetricNotReported" in states["sweep"]["hfsuite.error"]


class Breaks(FIFOScheduler):
    """As a scheduler with a fault of its own."""

    def on_trial_result(self, *_: Any) -> str:
        raise ArithmeticError("a fault in the loop")


@pytest.mark.slow
def test_what_ray_tunes_own_loop_raises_is_not_called_the_users_doing() -> None:
    with pytest.raises(TuneError, match="a fault in the loop"):
        experiment(loop, "plain", "nan").sweep(searcher="grid", trial_scheduler=Breaks(), name="broken")
    client = store.open_store()
    runs = client.search_runs([client.get_experiment_by_name("odd").experiment_id], "tags.`hfsuite.kind` = 'trial'")
    assert runs
    assert {run.data.tags["hfsuite.state"] for run in runs} == {"lost"}
    assert all("a fault in the loop" in run.data.tags["hfsuite.why"] for run in runs)
