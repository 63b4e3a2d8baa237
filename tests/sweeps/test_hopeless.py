"""A training function that cannot work, whatever its settings, ends its sweep at the first trial, before it trains."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ray import tune
from ray.train import ScalingConfig
from transformers import TrainerCallback

from hfsuite import Experiment, TransformersTrainer
from hfsuite.errors import WrongFunction
from hfsuite.ranks.transformers_loop import _check_evaluates
from hfsuite.sweeps.reasons import is_hopeless
from hfsuite.tracking.state import TrialState
from tests.tiny import train_function_local_dataset

STEPS = {"logging_strategy": "steps", "logging_steps": 1, "max_steps": 1, "save_strategy": "no"}


class Evaluates(TrainerCallback):
    """Of a user: it may evaluate whenever it likes."""


def forgets_to_return(train_dataset: Any, eval_dataset: Any, **settings: Any) -> None:
    train_function_local_dataset(train_dataset, eval_dataset, **STEPS)


def never_evaluates(train_dataset: Any, eval_dataset: Any, **settings: Any) -> Any:
    return train_function_local_dataset(train_dataset, eval_dataset, eval_strategy="no", **STEPS)


def mixes_strategies(train_dataset: Any, eval_dataset: Any, **settings: Any) -> Any:
    steps = {**STEPS, "save_strategy": "epoch"}
    return train_function_local_dataset(
        train_dataset, eval_dataset, eval_strategy="epoch", load_best_model_at_end=True, **steps
    )


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (forgets_to_return, r"forgets_to_return must return a transformers\.Trainer, got None"),
        pytest.param(
            never_evaluates,
            r"'eval_loss' comes with an evaluation, and none will be made: .* eval_strategy='steps'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            mixes_strategies,
            r"must be the same, .* Got logging_strategy='steps', eval_strategy='epoch', .* Leave out `load_best_model",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_other_trial_is_tried(function: Any, why: str) -> None:
    result = Experiment(
        name="hopeless",
        trainer=TransformersTrainer(function, scaling_config=ScalingConfig(num_workers=4)),
        space={"x": tune.uniform(0, 1)},
        metric="eval_loss",
        mode="min",
        defaults={"x": 0.5},
    ).sweep(trials=6)
    assert result.trials[0].state is TrialState.FAILED
    assert re.search(why, result.trials[0].failure or "")
    assert not any(trial.iterations for trial in result.trials)
    assert len(result.trials) < 3, "its workers take all CPUs, so the second had not begun"


def test_a_refusal_that_two_trials_get_is_everybodys() -> None:
    refused = "Trial trial_00{}, rank 0: ConfigurationError: `save_steps` must be a multiple of 3."
    assert not is_hopeless(refused.format(1), [])
    assert is_hopeless(refused.format(1), ["", refused.format(0)])
    assert not is_hopeless(refused.format(1), [refused.format(0).replace("3", "4")]), "it depends on the settings"
    own = "Trial trial_00{}, rank 0: ValueError: of the user's"
    assert not is_hopeless(own.format(1), [own.format(0)])


def test_only_what_certainly_never_evaluates_is_refused() -> None:
    trainer = never_evaluates(None, None)
    with pytest.raises(WrongFunction):
        _check_evaluates(trainer, "eval_loss")
    _check_evaluates(trainer, "loss")
    trainer.add_callback(Evaluates())
    _check_evaluates(trainer, "eval_loss")
