"""Trials and records have settings in Python's own types, and in those of the defaults, whoever proposed them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train
from ray import tune
from ray.tune.search import Searcher

from hfsuite import AccelerateTrainer, Experiment
from hfsuite.tracking import runs, store
from hfsuite.tracking.recipe import RECIPE_FILE
from tests import toy

DEFAULTS = {"rate": 0.5, "size": 8, "kind": "plain", "is_deep": False, "betas": (0.9, 0.99), "seed": 0}
PROPOSED = {
    "rate": np.int64(1), "size": np.int64(16), "kind": np.str_("fancy"), "is_deep": np.bool_(True),
    "betas": [np.float64(0.9), 0.999],
}  # fmt: skip
OWN = {"rate": 1.0, "size": 16, "kind": "fancy", "is_deep": True, "betas": (0.9, 0.999)}


class OfNumPy(Searcher):
    """Proposes what BOHB and ZOOpt do: NumPy's scalars, and a list where a tuple was."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"train_loop_config": dict(PROPOSED)}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """It learns nothing."""

    def save(self, checkpoint_path: str) -> None:
        """It has nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """And nothing to restore."""


def tell(settings: dict[str, Any]) -> None:
    toy.note(settings["diary"], {"step": 1, "got": repr({name: settings[name] for name in OWN})})
    ray.train.report({"loss": settings["rate"]})


experiment = Experiment(
    name="own",
    trainer=AccelerateTrainer(tell, accelerate_config={}),
    space={"rate": tune.uniform(0, 1), "size": tune.choice([8, 16]), "kind": tune.choice(["plain", "fancy"]),
           "is_deep": tune.choice([True, False]), "betas": tune.choice([(0.9, 0.99), (0.9, 0.999)])},
    metric="loss",
    mode="min",
    defaults={**DEFAULTS, "diary": ""},
)  # fmt: skip


def test_numpys_values_are_pythons_in_trials_and_in_records(own_directory: Path) -> None:
    diary = own_directory / "diary"
    result = experiment.sweep(
        trials=1, workers=1, searcher=OfNumPy(), trial_scheduler="fifo", set={"diary": str(diary)}, name="own"
    )
    (trial,) = result.trials
    assert trial.failure is None
    assert [entry["got"] for entry in toy.read(diary)] == [repr(OWN)]
    assert repr({name: trial.config[name] for name in OWN}) == repr(OWN)
    in_files = {**OWN, "betas": [0.9, 0.999]}
    record = json.loads(Path("results/own/trial_000/trial.json").read_text())
    assert repr({name: record["config"][name] for name in OWN}) == repr(in_files)
    client = store.open_store()
    run = client.get_run(str(trial.run_id))
    assert {name: run.data.params[name] for name in ("rate", "size", "kind", "is_deep")} == {
        "rate": "1.0", "size": "16", "kind": "fancy", "is_deep": "True",
    }  # fmt: skip
    recipe = json.loads(Path(client.download_artifacts(run.info.run_id, RECIPE_FILE)).read_text())
    assert repr({name: recipe["config"][name] for name in OWN}) == repr(in_files)
    assert recipe["not_written"] == []
    assert runs.find_sweep(client, "own") is not None


@pytest.mark.slow
def test_a_fixed_list_is_a_tuple_where_the_default_is_one(own_directory: Path) -> None:
    diary = own_directory / "diary"
    fixed = dataclasses.replace(experiment, space={})
    trial = fixed.train({"betas": [0.9, 0.999], "rate": 1, "diary": str(diary)}, workers=1, name="fixed")
    assert trial.config["betas"] == (0.9, 0.999)
    assert "'rate': 1.0, " in toy.read(diary)[0]["got"]
    assert "'betas': (0.9, 0.999)" in toy.read(diary)[0]["got"]
