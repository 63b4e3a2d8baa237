"""A searcher or a trial scheduler that fails before a trial begins: one sentence, and a record that is whole."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import BasicVariantGenerator

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.state import TrialState
from tests import program, toy


class Broken(FIFOScheduler):
    def choose_trial_to_run(self, *_: Any) -> Any:
        raise ValueError("it cannot be used like this")


class OfAnotherVersion(BasicVariantGenerator):
    def next_trial(self) -> Any:
        raise AttributeError("module 'library' has no attribute 'Gone'")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        pytest.param(
            {"trial_scheduler": Broken()},
            "No trial could begin with the searcher random and the trial scheduler Broken: "
            "ValueError: it cannot be used like this",
        ),
        pytest.param(
            {"searcher": OfAnotherVersion()},
            "No trial could begin with the searcher OfAnotherVersion and the trial scheduler fifo: "
            "AttributeError: module 'library' has no attribute 'Gone'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_first_error_is_the_one_that_is_said(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        toy.experiment.sweep(
            trials=2, workers=1, name="cut", **{"searcher": "random", "trial_scheduler": "fifo", **chosen}
        )
    assert str(failed.value) == said
    directory = SweepDirectory.at("results", "cut")
    record = directory.read_sweep()
    assert (record.state, record.fault) == (TrialState.FAILED, f"ConfigurationError: {said}")
    assert all(each.state.is_over for each in directory.read_trials())
    parent = runs.find_sweep(store.open_store(), "cut")
    assert parent is not None
    assert parent.info.status == "FAILED"
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0
