"""At a prompt, an experiment and what comes of it say what they are in a few lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ray import tune
from ray.train import Checkpoint

from hfsuite.sweeps.confirm import Confirmation, Finalist
from hfsuite.sweeps.sequential import compare
from hfsuite.tracking.state import TrialState
from tests import toy
from tests.sweeps.test_tables import sweep, trial


def test_an_experiment_says_what_it_searches_in_words() -> None:
    depends = replace(toy.experiment, only_where={"x": {"kind": ["fancy"]}})
    assert repr(depends).splitlines() == [
        "Experiment 'toy' of tests.toy: loss (min), 11 settings, 2 searched",
        "  x: 0.5 to 2, where kind is fancy",
        "  kind: one of plain, fancy",
    ]
    defaults = {f"x{n}": 0.5 for n in range(40)}
    wide = replace(toy.experiment, space={name: tune.uniform(0, 1) for name in defaults}, defaults=defaults)
    assert len(repr(wide).splitlines()) < 20


def test_a_trial_says_how_it_went() -> None:
    done = trial(5, 0.1, checkpoint=Checkpoint("/results/made/trial_005/checkpoint_1"))
    assert repr(done).splitlines() == [
        "Trial 005: completed, 3 reports",
        "  learning_rate = 0.1",
        "  reported loss 0.9, learning_rate 0, step 30",
        "  checkpoint /results/made/trial_005/checkpoint_1",
    ]
    failed = trial(6, 0.1, state=TrialState.FAILED, metrics={}, failure="rank 1: ArithmeticError\n" + "line\n" * 90)
    assert repr(failed).splitlines()[0] == "Trial 006: failed (rank 1: ArithmeticError), 3 reports"


def test_a_sweep_names_its_best_trial_and_the_states_of_all() -> None:
    trials = [trial(0, 0.1), trial(1, 0.3), trial(2, 0.2, state=TrialState.PRUNED)]
    said = repr(sweep(*trials, planned=4, interrupted=True))
    assert said.splitlines() == [
        "Sweep 'made' of things: 2 completed, 1 pruned of 4, interrupted",
        "  best: trial 001, loss (min) 0.7",
        "  learning_rate = 0.3",
    ]
    nothing = sweep(trial(0, 0.1, state=TrialState.FAILED, metrics={}))
    assert "no trial has a result for loss (min)" in repr(nothing)
    assert len(repr(sweep(*[trial(n, 0.1) for n in range(200)]))) < 500


def test_a_confirmation_names_its_finalists() -> None:
    values: Any = [[0.1, 0.11, 0.12], [0.3, 0.31, 0.33]]
    finalists = [
        Finalist(number, f"run{number}", {"x": 1.0}, 0.1, each) for number, each in zip((4, 2), values, strict=True)
    ]
    against = [compare(*values, looks=1, rivals=1, sign=-1)]
    done = Confirmation("made", "loss", "min", finalists, against, 5, 3, [replace(finalists[1], number=9)], sweep())
    assert repr(done).splitlines() == [
        "Confirmation of 'made': loss (min) on the test part, 3 of 5 seeds",
        "  trial 004: 0.11, deviation 0.01 (the winner, told apart)",
        "  trial 002: 0.313, deviation 0.0153",
        "  trial 009: failed with every seed",
    ]
