"""Searchers and trial schedulers by name, and what Optuna is told about a trial that was stopped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler, PopulationBasedTraining
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from hfsuite.cli.settings import OPTIONS
from hfsuite.errors import ConfigurationError, UnknownName
from hfsuite.search.searchers import NAMES, SAMPLERS, check_searcher, make_searcher
from hfsuite.search.trial_schedulers import (
    SCHEDULERS,
    Budget,
    check_trial_scheduler,
    make_trial_scheduler,
)
from hfsuite.sweeps.request import Request

SPACE = {"x": tune.uniform(0, 1), "y": tune.choice(["a", "b"])}


def searcher_for(name: str, directory: Path | None = None, *, seed: int = 0, max_t: int = 100) -> Any:
    budget = Budget.of(ASHAScheduler(max_t=max_t))
    searcher = make_searcher(name, seed=seed, study_name="study", directory=directory, budget=budget)
    searcher.set_search_properties("loss", "min", SPACE)
    return searcher


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"cmaes"}))
def test_every_named_searcher_proposes_and_repeats_with_its_seed(name: str) -> None:
    one, two = searcher_for(name, seed=3), searcher_for(name, seed=3)
    proposals = [[each.suggest(f"t{n}") for n in range(4)] for each in (one, two)]
    assert proposals[0] == proposals[1]
    assert all(0 <= proposal["x"] <= 1 and proposal["y"] in "ab" for proposal in proposals[0])


def test_another_seed_proposes_something_else() -> None:
    assert searcher_for("tpe", seed=1).suggest("t") != searcher_for("tpe", seed=2).suggest("t")


def test_optuna_learns_the_truth_about_a_stopped_trial(tmp_path: Path) -> None:
    searcher = searcher_for("tpe", tmp_path)
    for trial in ("completes", "is stopped", "fails"):
        searcher.suggest(trial)
    for iteration in (1, 2):
        searcher.on_trial_result("completes", {"loss": 1.0 / iteration, "training_iteration": iteration})
    searcher.on_trial_complete("completes", {"loss": 0.5, "training_iteration": 2})
    searcher.on_trial_result("is stopped", {"loss": 2.0, "training_iteration": 1})
    searcher.on_trial_complete("is stopped", {"loss": 1.5, "training_iteration": 2})
    searcher.on_trial_complete("fails", error=True)
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/optuna.db")
    completed, stopped, failed = study.trials
    assert (completed.state.name, completed.value) == ("COMPLETE", 0.5)
    assert (stopped.state.name, stopped.intermediate_values) == ("PRUNED", {1: 2.0, 2: 1.5})
    assert failed.state.name == "FAIL"


@pytest.mark.parametrize("heard", [1, 3])
def test_what_optuna_heard_before_an_interruption_is_heard_again(tmp_path: Path, heard: int) -> None:
    interrupted, resumed = searcher_for("tpe", tmp_path, max_t=3), searcher_for("tpe", tmp_path, max_t=3)

    def train(searcher: Any, up_to: int) -> None:
        for iteration in range(1, up_to + 1):
            if iteration < 3:
                searcher.on_trial_result("t", {"loss": 1.0 / iteration, "training_iteration": iteration})
            else:
                searcher.on_trial_complete("t", {"loss": 1.0 / iteration, "training_iteration": iteration})

    interrupted.suggest("t")
    if heard == 3:
        interrupted.save(str(tmp_path / "state"))
    train(interrupted, up_to=heard)
    if heard < 3:
        interrupted.save(str(tmp_path / "state"))
    resumed.restore(str(tmp_path / "state"))
    train(resumed, up_to=3)
    (trial,) = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/optuna.db").trials
    assert (trial.state.name, trial.value) == ("COMPLETE", 1.0 / 3)
    assert trial.intermediate_values == {1: 1.0, 2: 0.5, 3: 1.0 / 3}
    resumed.suggest("the next")


KILLED = """
import os, sys
from pathlib import Path
import sqlalchemy
from tests.search.test_searchers import searcher_for

@sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if f"CREATE TABLE {sys.argv[2]} " in statement:
        os._exit(9)

searcher_for("tpe", Path(sys.argv[1]))
"""


@pytest.mark.parametrize("table", ["studies", "alembic_version"])  # the first lacks its index, the last its row
def test_a_kill_while_the_study_is_made_leaves_no_half_of_it(tmp_path: Path, table: str) -> None:
    killed = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, tmp_path, table], check=False)
    assert killed.returncode == 9
    for trial in ("one", "two"):  # two sessions of a sweep
        searcher_for("tpe", tmp_path).suggest(trial)
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path}/optuna.db")
    assert study.n_trials == 2


def test_a_trial_that_used_its_whole_budget_is_complete() -> None:
    searcher = searcher_for("tpe", max_t=2)
    searcher.suggest("t")
    searcher.on_trial_result("t", {"loss": 2.0, "training_iteration": 1})
    searcher.on_trial_complete("t", {"loss": 1.5, "training_iteration": 2})
    assert searcher._ot_study.trials[0].state.name == "COMPLETE"


def test_rays_own_objects_are_taken_as_they_are() -> None:
    own = BasicVariantGenerator()
    check_searcher(own)
    assert make_searcher(own, seed=0, study_name="s", directory=None, budget=Budget(None)) is own
    scheduler = FIFOScheduler()
    check_trial_scheduler(scheduler, None, "train_loop_config", ["x"])
    assert make_trial_scheduler(scheduler) is scheduler


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_named_trial_scheduler_can_be_made(name: str) -> None:
    check_trial_scheduler(name, None, "train_loop_config", ["x"])
    assert make_trial_scheduler(name).set_search_properties("loss", "min")


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'random'"):
        check_searcher("randm")
    with pytest.raises(UnknownName, match=r"Known: asha, fifo, median"):
        check_trial_scheduler("zzz", None, "train_loop_config", ["x"])


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ConfigurationError, match="pip install cmaes"):
        check_searcher("cmaes")


def test_only_a_trial_at_the_end_of_its_schedule_spent_its_budget() -> None:
    assert Budget.of(ASHAScheduler(max_t=4)).is_spent({"training_iteration": 4})
    assert not Budget.of(ASHAScheduler(max_t=4)).is_spent({"training_iteration": 3})
    assert Budget.of(HyperBandScheduler(max_t=4)).is_spent({"training_iteration": 4})
    assert not Budget.of(FIFOScheduler()).is_spent({"training_iteration": 1_000})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_searcher_can_be_saved_with_every_scheduler(tmp_path: Path, scheduler: str) -> None:
    budget = Budget.of(make_trial_scheduler(scheduler))
    searcher = make_searcher("tpe", seed=0, study_name="study", directory=tmp_path, budget=budget)
    searcher.set_search_properties("loss", "min", SPACE)
    searcher.suggest("t")
    searcher.save(str(tmp_path / "state"))


def test_population_based_training_proposes_itself() -> None:
    with pytest.raises(ConfigurationError, match="cannot be combined with a searcher, got 'tpe'"):
        check_trial_scheduler(
            PopulationBasedTraining(hyperparam_mutations={"x": [1, 2]}), "tpe", "train_loop_config", ["x"]
        )
    with pytest.raises(ConfigurationError, match=r"names \['x'\]: put the settings below 'train_loop_config'"):
        check_trial_scheduler(
            PopulationBasedTraining(hyperparam_mutations={"x": [1, 2]}), "grid", "train_loop_config", ["x"]
        )
    misspelt = PopulationBasedTraining(
        hyperparam_mutations={"train_loop_config": {"learning_rat": [1, 2], "x": [1, 2]}}
    )
    with pytest.raises(
        ConfigurationError, match=r"names 'learning_rat', which no trial has\. Did you mean 'learning_rate'"
    ):
        check_trial_scheduler(misspelt, "grid", "train_loop_config", ["learning_rate", "x"])


def test_rays_objects_must_leave_metric_and_space_to_the_experiment() -> None:
    with pytest.raises(ConfigurationError, match="This AsyncHyperBandScheduler has a metric already"):
        check_trial_scheduler(ASHAScheduler(metric="loss", mode="min"), None, "train_loop_config", ["x"])
    with pytest.raises(ConfigurationError, match="This OptunaSearch has a metric and a space already"):
        check_searcher(OptunaSearch({"x": tune.uniform(0, 1)}, metric="loss", mode="min"))
    with pytest.raises(ConfigurationError, match="This OptunaSearch has a metric already"):
        check_searcher(ConcurrencyLimiter(OptunaSearch(metric="loss", mode="min"), 2))


def test_a_domain_that_the_searcher_cannot_draw_from_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'tpe' cannot draw what no interval or list holds: 'x' \(tune"):
        check_searcher("tpe", {"x": tune.randn(0, 1)})
    check_searcher("grid", {"x": tune.randn(0, 1)})


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"cmaes"}))
def test_what_does_not_count_is_not_drawn_and_keeps_its_default(name: str, tmp_path: Path) -> None:
    space = {"settings": {"warmup": tune.uniform(0.1, 1), "kind": tune.choice(["plain", "warm"]), "fixed": 3}}
    searcher = make_searcher(
        name, seed=1, study_name="study", directory=tmp_path, budget=Budget.of(FIFOScheduler()),
        only_where={"warmup": {"kind": ["warm"]}}, defaults={"warmup": 0.0, "kind": "plain", "fixed": 3},
    )  # fmt: skip
    searcher.set_search_properties("loss", "min", space)
    drawn = []
    for number in range(12):
        drawn.append(searcher.suggest(f"t{number}")["settings"])
        searcher.on_trial_complete(f"t{number}", {"loss": 1.0, "training_iteration": 1, "training_finished": True})
    assert {each["kind"] for each in drawn} == {"plain", "warm"}
    assert all((each["warmup"] >= 0.1) == (each["kind"] == "warm") for each in drawn)
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/optuna.db")
    trained = [trial for trial in study.trials if trial.user_attrs.get("hfsuite.state") != "repeated"]
    assert [set(trial.params) for trial in trained] == [
        {"settings/kind", "settings/warmup"} if each["kind"] == "warm" else {"settings/kind"} for each in drawn
    ]


@pytest.mark.parametrize("name", NAMES)
def test_users_are_told_of_every_name(name: str) -> None:
    (option,) = OPTIONS["searcher"].__metadata__
    assert re.search(rf"\b{name}\b", option.help)
    assert f'"{name}"' in (Request.__doc__ or "")
    assert f"`{name}`" in (Path(__file__).parents[2] / "README.md").read_text()
