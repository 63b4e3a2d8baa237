"""Populations explore only what their domains hold, and HyperBand says when it stops nothing."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import FIFOScheduler, HyperBandForBOHB, HyperBandScheduler, PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2

from hfsuite.search.trial_schedulers import make_trial_scheduler, what_hyperband_needs


def explored(
    mutations: dict[str, Any], begin: dict[str, Any], space: Any = None, **kwargs: Any
) -> list[dict[str, Any]]:
    """What a population comes to, one exploration after another."""
    random.seed(1)
    mutations = {"settings": mutations}
    population = PopulationBasedTraining(hyperparam_mutations=mutations, **{"resample_probability": 0.0, **kwargs})
    assert make_trial_scheduler(population, {"settings": space or {}}) is population
    configuration, seen = {"settings": begin}, []
    for _ in range(60):
        configuration, _ = population._get_new_config(None, SimpleNamespace(config=configuration))
        seen.append(configuration["settings"])
    return seen


@pytest.mark.parametrize(
    ("domain", "begin", "values"),
    [
        (tune.choice([32, 8, 16]), 16, {8, 16, 32}),
        (tune.choice([0.1, 0.9]), 0.1, {0.1, 0.9}),
        (tune.choice(["linear", "cosine", "none"]), "cosine", {"linear", "cosine", "none"}),
        (tune.choice([True, False]), True, {True, False}),
        ([8, 16, 32], 16, {8, 16, 32}),
        (tune.randint(1, 4), 1, {1, 2, 3}),
        (tune.lograndint(1, 3), 2, {1, 2}),
        (tune.qrandint(1, 10, 3), 6, {3, 6, 9}),
        (tune.quniform(0.2, 0.6, 0.2), 0.4, {0.2, 0.4, 3 * 0.2}),
    ],
)
@pytest.mark.parametrize("resample", [0.0, 0.3])
def test_a_population_comes_to_all_values_that_a_domain_holds_and_to_no_other(
    domain: Any, begin: Any, values: set[Any], resample: float
) -> None:
    seen = [each["x"] for each in explored({"x": domain}, {"x": begin, "y": 1}, resample_probability=resample)]
    assert set(seen) == values
    assert {type(each) for each in seen} == {type(begin)}


def test_a_population_leaves_no_range() -> None:
    seen = explored({"rate": tune.loguniform(1e-4, 1e-3), "optim": {"beta": tune.uniform(0.5, 1.0)}},
                    {"rate": 5e-4, "optim": {"beta": 0.9}, "fixed": 7})  # fmt: skip
    assert {each["fixed"] for each in seen} == {7}
    assert min(each["rate"] for each in seen) >= 1e-4
    assert max(each["rate"] for each in seen) <= 1e-3
    assert 0.5 <= min(each["optim"]["beta"] for each in seen) <= max(each["optim"]["beta"] for each in seen) <= 1.0
    assert len({each["rate"] for each in seen}) > 5, "inside it is multiplied as before"


def test_a_whole_number_is_multiplied_and_moves_by_one_at_least() -> None:
    seen = [each["n"] for each in explored({"n": tune.randint(1, 1000)}, {"n": 100})]
    assert seen[0] in (80, 120)
    low = [each["n"] for each in explored({"n": tune.randint(1, 1000)}, {"n": 2})]
    assert low[0] in (1, 3)


def test_a_whole_number_stays_one_though_its_domain_is_a_range() -> None:
    seen = [each["x"] for each in explored({"x": tune.uniform(1.6, 9.4)}, {"x": 5}, resample_probability=0.3)]
    assert {type(each) for each in seen} == {int}
    assert min(seen) >= 2
    assert max(seen) <= 9


def test_a_function_is_held_to_the_domain_of_the_space_if_there_is_one() -> None:
    mutations = {"x": lambda: 100, "free": lambda: 100, "kind": lambda: 9}
    space = {"x": tune.choice([1, 2, 4]), "free": 3, "kind": tune.grid_search([1, 2])}
    seen = explored(mutations, {"x": 2, "free": 10, "kind": 1}, space, resample_probability=0.2)
    assert {each["x"] for each in seen} == {1, 2, 4}
    assert max(each["free"] for each in seen) >= 100
    assert max(each["kind"] for each in seen) >= 9


def test_what_the_users_own_function_explores_is_put_back_too() -> None:
    def doubled(config: dict[str, Any]) -> dict[str, Any]:
        config["settings"] |= {"x": 7.0, "y": 19, "z": 5}
        return config

    space = {"y": tune.choice([8, 16, 32])}
    seen = explored({"x": tune.uniform(0, 1)}, {"x": 0.5, "y": 8, "z": 1}, space, custom_explore_fn=doubled)
    assert seen[0] == {"x": 1.0, "y": 16, "z": 5}


def test_the_users_mutations_stay_as_they_are() -> None:
    mutations = {"settings": {"x": tune.choice([1, 2])}}
    make_trial_scheduler(PopulationBasedTraining(hyperparam_mutations=mutations))
    assert type(mutations["settings"]["x"]).__name__ == "Categorical"


class Named(SimpleNamespace):
    """What PB2 sees of a trial."""

    def __init__(self, name: str, rate: float, rows: int) -> None:
        super().__init__(name=name, config={"settings": {"rate": rate, "rows": rows}})

    def __str__(self) -> str:
        return str(self.name)


@pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning")  # Ray's call
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of so few reports
def test_pb2_stays_within_its_bounds_and_the_space_and_remembers_what_it_came_to() -> None:
    population = PB2(hyperparam_bounds={"settings": {"rate": [0.1, 0.8], "rows": [8, 32]}}, time_attr="t")
    population.set_search_properties("loss", "min")
    make_trial_scheduler(population, {"settings": {"rate": tune.uniform(0.1, 0.8), "rows": tune.choice([8, 16, 32])}})
    trials = {name: Named(name, rate, rows) for name, rate, rows in (("a", 0.2, 8), ("b", 0.5, 16), ("c", 0.7, 32))}
    state = SimpleNamespace()
    for time in (1, 2, 3):
        for number, trial in enumerate(trials.values()):
            population._save_trial_state(state, time, {"t": time, "loss": number - time}, trial)
    for _ in range(3):
        config, _ = population._get_new_config(trials["a"], trials["b"])
        assert config["settings"]["rows"] in (8, 16, 32)
        assert 0.1 <= config["settings"]["rate"] <= 0.8
        last = population.data.iloc[-1]
        assert (last["settings/rate"], last["settings/rows"]) == (
            config["settings"]["rate"],
            config["settings"]["rows"],
        )


def test_hyperband_says_when_it_stops_nothing() -> None:
    def told(scheduler: Any = None, *, slots: int = 4, trials: int = 20, ahead: bool = False) -> str | None:
        scheduler = scheduler or HyperBandScheduler(max_t=27)
        return what_hyperband_needs(scheduler, slots=slots, trials=trials, are_drawn_ahead=ahead)

    assert told(slots=4) is None
    few_slots = told(slots=3)
    assert few_slots is not None
    assert "has 4 places, and with 3 at a time they are never all taken" in few_slots
    assert "max_t (27 training_iteration)" in few_slots
    assert told(slots=1, ahead=True) is None
    few_trials = told(trials=4, ahead=True)
    assert few_trials is not None
    assert few_trials.startswith("HyperBand stops none of 4 trials: its first bracket has 4 places")
    assert told(FIFOScheduler(), slots=1) is None
    assert told(HyperBandForBOHB(max_t=27), slots=1) is None
