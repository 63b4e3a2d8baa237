"""A warm trial equals a cold one, bit for bit, whatever ran in its workers before."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tests.experiments.varied import TRAINERS

OTHER = {"seed": 7, "deterministic": True, "precision": "bf16"}


class StopWhereAsked(FIFOScheduler):
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        asked = any(settings.get("stop") for settings in trial.config.values())
        return TrialScheduler.STOP if asked else TrialScheduler.CONTINUE


def trials_of(
    path: Path, experiment: str, configurations: list[dict[str, Any]], isolation: str
) -> list[dict[str, Any]]:
    trainer = TRAINERS[experiment]
    results = tune.Tuner(
        trainer.as_trainable(isolation=isolation),
        param_space={trainer.config_argument: tune.grid_search(configurations)},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", max_concurrent_trials=1, reuse_actors=True, scheduler=StopWhereAsked()
        ),
        run_config=tune.RunConfig(storage_path=str(path), name=isolation, verbose=0),
    ).fit()
    assert not results.errors
    return [outcome(result) for result in results]


def outcome(result: Any) -> dict[str, Any]:
    """Every reported number, and the weights by their hash."""
    table = result.metrics_dataframe
    weights = Path(result.checkpoint.path, "model.safetensors").read_bytes()
    return {
        "numbers": table[[name for name in ("loss", "eval_loss", "eval_accuracy") if name in table]].to_dict("list"),
        "reports": len(table),
        "weights": hashlib.sha256(weights).hexdigest(),
        "warm": bool(table["warm_start"].iloc[0]),
        "said": Path(result.path, "rank_0.log").read_text(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(TRAINERS))
def test_a_warm_trial_equals_a_cold_one_bit_for_bit(tmp_path: Path, experiment: str) -> None:
    (cold,) = trials_of(tmp_path, experiment, [{}], "process")
    bf16 = {"precision": "bf16"}
    first, other, after_other, halved, stopped, after_stopped = trials_of(
        tmp_path, experiment, [{}, OTHER, {}, bf16, {"stop": True, "seed": 3}, {}], "warm"
    )
    every = [first, other, after_other, halved, stopped, after_stopped]
    assert [each["warm"] for each in every] == [False, *[True] * 5]
    assert "left: deterministic=True precision=bf16" in other["said"]
    assert halved["weights"] != cold["weights"], "the precision takes effect"
    assert other["weights"] != cold["weights"]
    assert (stopped["reports"], cold["reports"]) == (1, 2)
    for warm in every:
        assert "found: deterministic=False precision=no" in warm["said"]
    for warm in (first, after_other, after_stopped):
        assert warm["numbers"] == cold["numbers"]
        assert warm["weights"] == cold["weights"]
