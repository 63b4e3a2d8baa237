"""Spaces: what is wrong with them, and their domains in words."""

from __future__ import annotations

from typing import Any

import pytest
from ray import tune

from hfsuite.search.spaces import (
    can_count,
    check_only_where,
    check_space,
    counts,
    describe,
    grid_size,
    in_order,
    is_searched,
)
from search_spaces import fine_tuning, lora, vision


def test_a_space_is_checked_against_the_settings() -> None:
    space = {"rate": tune.loguniform(1e-5, 1e-3), "layer": tune.randint(1, 3), "size": tune.choice([1, "two"])}
    faults = check_space(space, {"rate": 0.1, "layers": 2, "size": 1})
    assert len(faults) == 2
    assert "'layer', which the experiment does not take. Did you mean 'layers'?" in faults[0]
    assert "size must be a whole number (its default is 1), got 'two'" in faults[1]


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        (tune.qrandint(16, 256, 16), "16 to 256 in steps of 16"),
        (tune.qrandint(1, 10, 3), "3 to 9 in steps of 3"),
        (tune.qrandint(1, 10), "1 to 9"),
        (tune.quniform(0.1, 1, 0.1), "0.1 to 1 in steps of 0.1"),
        (tune.quniform(0.3, 0.9, 0.1), "0.3 to 0.9 in steps of 0.1"),
        (tune.qloguniform(0.1, 10, 0.1), "0.1 to 10 in steps of 0.1, logarithmic"),
        (tune.qlograndint(3, 64, 2), "4 to 64 in steps of 2, logarithmic"),
        (tune.lograndint(1, 1_234_568), "1 to 1234567, logarithmic"),
        (tune.uniform(0.12345678, 1), "0.12345678 to 1"),
        (tune.randn(2, 0.5), "around 2, with a deviation of 0.5"),
        (tune.qrandn(0, 1, 0.25), "around 0, with a deviation of 1 in steps of 0.25"),
    ],
)
def test_a_domain_is_described_as_it_is_drawn_from(domain: Any, words: str) -> None:
    assert describe(domain) == words


@pytest.mark.parametrize(
    ("domain", "possible", "impossible"),
    [
        (tune.qrandint(1, 10, 3), [3, 6, 9], [1, 4, 7, 10, 12, 0]),
        (tune.qrandint(1, 4, 1), [1, 3], [4, 0]),
        (tune.quniform(0.1, 1, 0.1), [0.1, 0.3, 0.7, 1.0], [0.15, 0.0, 1.1]),
        (tune.qloguniform(0.5, 2, 0.5), [0.5, 1.5, 2.0], [0.25, 2.5]),
        (tune.qrandn(0, 1, 0.5), [-1.5, 7.0], [0.2]),
    ],
)
def test_a_condition_names_values_that_steps_come_to(domain: Any, possible: list[Any], impossible: list[Any]) -> None:
    space, default = {"x": domain, "y": tune.uniform(0, 1)}, possible[0]

    def faults(value: Any) -> list[str]:
        return check_only_where({"y": {"x": [value]}}, space, {"x": default, "y": 0.0})

    assert [faults(value) for value in possible] == [[]] * len(possible)
    assert all("which the space never draws" in faults(value)[0] for value in impossible)


def test_a_grid_has_a_size() -> None:
    assert grid_size({"x": tune.grid_search([1, 2, 3]), "y": tune.grid_search([0, 1]), "z": tune.uniform(0, 1)}) == 6
    assert grid_size({"z": tune.uniform(0, 1)}) is None


def test_domains_in_words() -> None:
    assert describe(tune.loguniform(1e-5, 1e-3)) == "1e-05 to 0.001, logarithmic"
    assert describe(tune.randint(1, 4)) == "1 to 3"
    assert describe(tune.choice([1, 2])) == "one of 1, 2"
    assert describe(tune.grid_search([1, 2])) == "each of 1, 2"
    assert describe(7) == "7"
    assert is_searched(tune.grid_search([1]))
    assert not is_searched({"a": 1})


@pytest.mark.parametrize("space", [fine_tuning.space, vision.space])
def test_the_shipped_spaces_search_what_matters(space: dict[str, Any]) -> None:
    assert {"learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "global_batch_size"} <= set(space)
    assert all(is_searched(domain) for domain in space.values())


ONLY_WHERE = {"warmup": {"schedule": ["linear"]}, "steps": {"warmup": [0.5], "schedule": ["linear", "cosine"]}}


def test_a_setting_counts_where_those_count_that_it_depends_on_and_have_the_right_values() -> None:
    def counted(schedule: str, warmup: float) -> list[str]:
        values = {"schedule": schedule, "warmup": warmup, "steps": 1}
        return [name for name in in_order(values, ONLY_WHERE) if counts(name, ONLY_WHERE, values)]

    assert counted("linear", 0.5) == ["schedule", "warmup", "steps"]
    assert counted("linear", 0.1) == ["schedule", "warmup"]
    assert counted("cosine", 0.5) == ["schedule"]  # steps depends on warmup, which does not count


def test_conditions_are_checked_with_the_experiment_and_all_faults_named() -> None:
    defaults = {"schedule": "linear", "warmup": 0.1, "steps": 1, "rank": 4}
    space = {"warmup": tune.uniform(0, 1), "steps": tune.randint(0, 9), "rank": tune.choice([4, 8])}
    only_where: Any = {
        "dropout": {"rank": [8]},
        "warmup": {"shedule": ["linear"], "rank": ["eight"]},
        "steps": {"rank": [8]},
        "rank": {"steps": [1]},
    }
    faults = " ".join(check_only_where(only_where, space, defaults))
    assert "only_where names 'dropout', which is not in the search space" in faults
    assert "'shedule', which the experiment does not take. Did you mean 'schedule'?" in faults
    assert "rank must be a whole number (its default is 4), got 'eight'" in faults
    assert "steps depends on itself, by way of 'rank'" in faults
    known = {**space, "schedule": tune.choice(["linear", "cosine"])}
    unheard = check_only_where({"warmup": {"schedule": ["typo"]}}, known, defaults)
    assert unheard == ["warmup depends on schedule='typo', which the space never draws."]
    assert "must name other settings" in check_only_where({"warmup": ["linear"]}, space, defaults)[0]  # type: ignore[dict-item]
    assert "list the values" in " ".join(check_only_where({"warmup": {"schedule": "linear"}}, space, defaults))


@pytest.mark.parametrize(
    ("values", "possible"),
    [([0.5], True), ([1.0], True), ([1.5], False), ([], False)],
)
def test_a_condition_on_a_range_names_what_it_can_draw(values: list[float], possible: bool) -> None:
    space = {
        "x": tune.quniform(0, 1, 0.5),
        "rank": tune.randint(0, 5),
        "p": tune.uniform(0, 1),
        "y": tune.uniform(0, 1),
    }
    faults = check_only_where({"y": {"x": values}}, space, {"x": 0.5, "rank": 1, "p": 0.5, "y": 0.0})
    assert (faults == []) is possible
    assert check_only_where({"y": {"p": [0.5]}}, space, {"p": 0.5, "y": 0.0})
    assert [bool(check_only_where({"y": {"rank": [n]}}, space, {"rank": 1, "y": 0.0})) for n in (0, 4, 5)] == [0, 0, 1]


@pytest.mark.parametrize("conditions", [None, ["y"], {1: {"x": [0.5]}}, {"y": {2: [0.5]}}])
def test_conditions_of_the_wrong_kind_are_named(conditions: Any) -> None:
    assert check_only_where(conditions, {"x": tune.quniform(0, 1, 0.5), "y": tune.uniform(0, 1)}, {"x": 0.5, "y": 0.0})


def test_a_setting_that_no_draw_makes_count_is_known_before_anything_is_drawn() -> None:
    space = {"warmup": tune.uniform(0, 1), "steps": tune.randint(0, 9)}
    assert can_count("steps", ONLY_WHERE, space, {"schedule": "linear"})
    assert not can_count("warmup", ONLY_WHERE, space, {"schedule": "cosine"})
    assert not can_count("steps", ONLY_WHERE, space, {"schedule": "cosine"}), "it depends on what cannot count"


@pytest.mark.parametrize("name", sorted(lora.only_where))
def test_the_conditions_of_the_space_for_lora_name_values_that_can_be_drawn(name: str) -> None:
    for other, values in lora.only_where[name].items():
        assert set(values) < set(lora.space[other].categories)
