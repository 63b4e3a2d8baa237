"""Trials that are expected to take long begin first, where a searcher leaves the order open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray import cloudpickle, tune
from ray.tune.experiment import Experiment as TuneExperiment
from ray.tune.search import BasicVariantGenerator

from hfsuite.search.searchers import in_any_order, make_searcher
from hfsuite.search.trial_schedulers import Budget
from hfsuite.search.variants import LongFirstVariants
from hfsuite.search.work import expected_work, tells_work

DEFAULTS = {"lr": 1e-3, "epochs": 3, "batch_size": 16}
SPACE = {"lr": tune.loguniform(1e-5, 1e-2), "epochs": tune.randint(1, 9), "batch_size": tune.choice([8, 16, 32])}


def searcher_of(name: str, folder: Path, trials: int, *, tries_defaults: bool = True) -> Any:
    searcher = make_searcher(
        name, seed=3, study_name="study", directory=folder, budget=Budget(None), defaults=DEFAULTS,
        tries_defaults=tries_defaults, free=in_any_order(name, SPACE, trials),
    )  # fmt: skip
    searcher.set_search_properties("loss", "min", {"settings": SPACE})
    return searcher


def proposed(searcher: Any, count: int, begin: int = 0) -> list[dict[str, Any]]:
    return [searcher.suggest(f"trial {number}")["settings"] for number in range(begin, begin + count)]


def work_of(settings: list[dict[str, Any]]) -> list[float]:
    return [expected_work(each) for each in settings]


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_after_the_defaults_the_longest_come_first(name: str, tmp_path: Path) -> None:
    first, *others = proposed(searcher_of(name, tmp_path, 12), 12)
    assert first == DEFAULTS
    assert work_of(others) == sorted(work_of(others), reverse=True)
    assert len({each["lr"] for each in others}) == 11


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_of_those_that_learn_the_ones_that_they_draw_at_random(name: str, tmp_path: Path) -> None:
    searcher = searcher_of(name, tmp_path, 30)
    others = proposed(searcher, 10)[1:]
    assert work_of(others) == sorted(work_of(others), reverse=True)
    for number in range(10):
        searcher.on_trial_complete(f"trial {number}", {"loss": 1.0, "training_iteration": 1, "training_finished": True})
    assert not searcher.works_ahead, "the next one is proposed by what was learnt"
    assert proposed(searcher, 1, 10)


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_one_that_is_asked_for_before_anything_is_learnt_is_no_repetition(name: str, tmp_path: Path) -> None:
    searcher = searcher_of(name, tmp_path, 30)
    assert len({each["lr"] for each in proposed(searcher, 14)}) == 14
    assert len(searcher._ot_study.get_trials(deepcopy=False)) == 14


def test_random_draws_are_those_of_any_order(tmp_path: Path) -> None:
    """The same numbers, in another order; and one that is asked for beyond them is another one."""
    lined_up = proposed(searcher_of("random", tmp_path / "a", 6, tries_defaults=False), 8)
    as_drawn = proposed(searcher_of("random", tmp_path / "b", 0, tries_defaults=False), 8)

    def in_order(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(settings, key=lambda each: each["lr"])

    assert in_order(lined_up[:6]) == in_order(as_drawn[:6])
    assert lined_up[6:] == as_drawn[6:]


def test_what_was_in_line_is_so_after_an_interruption(tmp_path: Path) -> None:
    undisturbed = proposed(searcher_of("random", tmp_path / "undisturbed", 8), 8)
    searcher = searcher_of("random", tmp_path, 8)
    before = proposed(searcher, 3)
    searcher.save(str(tmp_path / "saved"))
    lost = proposed(searcher, 1, 3)  # Ray Tune never came to know of it
    again = searcher_of("random", tmp_path, 8)
    again.restore(str(tmp_path / "saved"))
    after = proposed(again, 5, 3)
    assert before + after == undisturbed
    assert after[0] == lost[0]
    states = [each.state for each in again._ot_study.get_trials(deepcopy=False)]
    assert (states.count(TrialState.WAITING), states.count(TrialState.FAIL)) == (0, 1)


def test_few_are_drawn_ahead_of_many_trials(tmp_path: Path) -> None:
    searcher = searcher_of("random", tmp_path, 100_000)
    assert proposed(searcher, 1) == [DEFAULTS]
    assert len(searcher.works_ahead) == 999


def test_where_settings_say_nothing_of_it_searchers_draw_as_ever() -> None:
    assert in_any_order("random", {"lr": tune.loguniform(1e-5, 1e-2), "warmup_steps": tune.randint(1, 5)}, 9) == 0
    assert isinstance(
        make_searcher("grid", seed=0, study_name="s", directory=None, budget=Budget(None)), BasicVariantGenerator
    )


def test_a_grid_begins_with_its_longest_combinations_and_goes_on_after_an_interruption() -> None:
    space = {"epochs": tune.grid_search([1, 4, 2]), "lr": tune.grid_search([0.1, 0.2]), "noise": tune.uniform(0, 1)}
    searcher = make_searcher(
        "grid", seed=0, study_name="s", directory=None, budget=Budget(None), free=in_any_order("grid", space, 6)
    )
    assert isinstance(searcher, LongFirstVariants)
    searcher.add_configurations(TuneExperiment("s", run=lambda config: None, config={"settings": space}))
    configs = [searcher.next_trial().config["settings"] for _ in range(3)]
    state = cloudpickle.loads(cloudpickle.dumps(searcher.get_state()))
    again = LongFirstVariants()
    again.set_state(state)
    while (trial := again.next_trial()) is not None:
        configs.append(trial.config["settings"])
    assert [each["epochs"] for each in configs] == [4, 4, 2, 2, 1, 1]
    assert [each["lr"] for each in configs] == [0.1, 0.2] * 3
    assert len({each["noise"] for each in configs}) == 6


@pytest.mark.parametrize(
    ("longer", "shorter"),
    [
        ({"num_train_epochs": 4, "batch": 8}, {"num_train_epochs": 3, "batch": 8}),
        ({"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 32}),
        ({"epochs": 1, "global_batch_size": 16}, {"epochs": 1, "global_batch_size": 64}),
        ({"max_steps": 100, "batch_size": 64}, {"max_steps": 100, "batch_size": 16}),
        ({"steps": 10, "hidden_size": 512}, {"steps": 10, "hidden_size": 256}),
        ({"steps": 10, "max_len": 512, "x": True}, {"steps": 10, "max_len": 256, "x": False}),
    ],
)
def test_what_is_expected_to_take_longer(longer: dict[str, Any], shorter: dict[str, Any]) -> None:
    assert expected_work(longer) > expected_work(shorter)


@pytest.mark.parametrize(
    "name",
    ["warmup_steps", "eval_steps", "lr", "weight_decay", "seed", "steps_per_epoch", "hidden_dropout", "layers_lr"],
)
def test_settings_that_say_nothing_of_it(name: str) -> None:
    assert not tells_work([name])
