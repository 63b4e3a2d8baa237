"""What Optuna is told of trials that end badly, that it proposes nothing twice, and draws what Ray Tune would draw."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from hfsuite.errors import ConfigurationError
from hfsuite.search.searchers import SAMPLERS, check_searcher, make_searcher
from hfsuite.search.spaces import counts, outside
from hfsuite.search.trial_schedulers import Budget

NAMES = sorted(set(SAMPLERS) - {"cmaes"})
NAN = math.nan


def searcher_for(space: dict[str, Any], name: str = "tpe", directory: Path | None = None, **kwargs: Any) -> Any:
    budget = Budget.of(ASHAScheduler(max_t=100))
    mode = kwargs.pop("mode", "min")
    searcher = make_searcher(name, seed=1, study_name="study", directory=directory, budget=budget, **kwargs)
    searcher.set_search_properties("loss", mode, {"settings": space})
    return searcher


def study_of(directory: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{directory}/optuna.db")


def end(searcher: Any, trial: str, *values: Any, **last: Any) -> None:
    """A trial reports these values; after the last one it is over, as Ray Tune says it."""
    reports = [{"training_iteration": n, "loss": value} for n, value in enumerate(values, 1)]
    reports = [{key: each for key, each in report.items() if each != "nothing"} for report in reports]
    for report in reports[:-1]:
        searcher.on_trial_result(trial, report)
    searcher.on_trial_complete(trial, {**reports[-1], "done": True, **last})


def finish(searcher: Any, trial: str, *values: Any) -> None:
    end(searcher, trial, *values, training_finished=True)


# ---- trials that end without a number


@pytest.mark.parametrize("unusable", [NAN, None, "0.5", [0.5], {"a": 1}, math.inf, -math.inf, np.float32("nan")])
@pytest.mark.parametrize("ends", [finish, end], ids=["by itself", "stopped"])
def test_a_trial_that_ends_without_a_number_has_failed(ends: Any, unusable: Any, tmp_path: Path) -> None:
    searcher = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    for trial, values in {"always": [unusable] * 3, "at last": [0.5, unusable], "once": [unusable]}.items():
        searcher.suggest(trial)
        ends(searcher, trial, *values)
    always, at_last, once = study_of(tmp_path).trials
    assert [trial.state for trial in (always, at_last, once)] == [TrialState.FAIL] * 3
    assert always.intermediate_values == {}
    assert at_last.intermediate_values == {1: 0.5}


def test_reports_without_a_number_are_left_out_of_a_trial_that_recovers(tmp_path: Path) -> None:
    searcher = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    for trial, ends in {"ends": finish, "is stopped": end}.items():
        searcher.suggest(trial)
        ends(searcher, trial, 3.0, NAN, None, "nothing", np.float32(0.5))
    done, stopped = study_of(tmp_path).trials
    assert (done.state, done.value) == (TrialState.COMPLETE, 0.5)
    assert (stopped.state, stopped.value) == (TrialState.PRUNED, 0.5)
    assert done.intermediate_values == stopped.intermediate_values == {1: 3.0, 5: 0.5}


def test_a_last_report_need_not_have_the_metric_in_it(tmp_path: Path) -> None:
    searcher = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    for trial, values in {"measured before": [2.0, 0.5, "nothing"], "never measured": ["nothing"]}.items():
        searcher.suggest(trial)
        finish(searcher, trial, *values)
    measured, never = study_of(tmp_path).trials
    assert (measured.state, measured.value) == (TrialState.COMPLETE, 0.5)
    assert never.state == TrialState.FAIL


def test_every_way_to_end_ends_a_trial_in_the_study(tmp_path: Path) -> None:
    searcher = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    for trial in ("while it was paused", "before its first report", "failed", "failed at its end"):
        searcher.suggest(trial)
    searcher.on_trial_result("while it was paused", {"training_iteration": 1, "loss": 0.5})
    searcher.on_trial_complete("while it was paused")
    searcher.on_trial_complete("before its first report")
    searcher.on_trial_result("failed", {"training_iteration": 1, "loss": 0.5})
    searcher.on_trial_complete("failed", error=True)
    end(searcher, "failed at its end", 0.5, training_finished=True, failed_at_end="the test part is missing")
    assert [trial.state.name for trial in study_of(tmp_path).trials] == ["PRUNED", "FAIL", "FAIL", "FAIL"]


def test_a_proposal_that_no_trial_came_of_does_not_run_for_ever(tmp_path: Path) -> None:
    interrupted = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    interrupted.suggest("known")
    interrupted.save(str(tmp_path / "state"))
    interrupted.suggest("lost")
    resumed = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    resumed.restore(str(tmp_path / "state"))
    finish(resumed, "known", 0.5)
    assert [trial.state.name for trial in study_of(tmp_path).trials if "hfsuite.state" in trial.user_attrs] == ["FAIL"]
    assert not study_of(tmp_path).get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_a_failed_trial_that_is_trained_again_is_heard(tmp_path: Path) -> None:
    searcher = searcher_for({"x": tune.uniform(0, 1)}, directory=tmp_path)
    proposed = searcher.suggest("t")["settings"]["x"]
    searcher.on_trial_complete("t", error=True)
    finish(searcher, "t", 2.0, 0.5)
    first, again = study_of(tmp_path).trials
    assert (first.state, again.state, again.value) == (TrialState.FAIL, TrialState.COMPLETE, 0.5)
    assert again.params == {"settings/x": proposed}


# ---- what samplers learn from them

UNIT = {"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)}


def towards_what_ends_badly(name: str, how: str, mode: str = "min") -> tuple[list[tuple[float, float]], int]:
    """The last 15 of 30 proposals, rounded, and how many of them end badly: larger x are better, up to 0.5."""
    searcher = searcher_for(UNIT, name, mode=mode)
    proposals = []
    for number in range(30):
        settings = searcher.suggest(f"t{number}")["settings"]
        loss = (settings["y"] - 0.5) ** 2 - settings["x"]
        value = loss if mode == "min" else -loss
        proposals.append((round(settings["x"], 3), round(settings["y"], 3)))
        if settings["x"] <= 0.5:
            finish(searcher, f"t{number}", value)
        elif how == "fails":
            searcher.on_trial_complete(f"t{number}", error=True)
        elif how == "diverges":
            finish(searcher, f"t{number}", NAN)
        else:
            end(searcher, f"t{number}", 1.0 if mode == "min" else -1.0)
    assert len(searcher._ot_study.trials) == 30
    bad = {"stopped": TrialState.PRUNED}.get(how, TrialState.FAIL)
    assert sum(trial.state == bad for trial in searcher._ot_study.trials) == sum(x > 0.5 for x, _ in proposals)
    return proposals[15:], sum(x > 0.5 for x, _ in proposals[15:])


@pytest.mark.parametrize(("how", "mode"), [("fails", "min"), ("diverges", "max"), ("stopped", "min")])
def test_gp_keeps_away_from_what_ends_badly(how: str, mode: str) -> None:
    proposals, bad = towards_what_ends_badly("gp", how, mode)
    assert len(set(proposals)) == 15, "Optuna's own proposes one point 14 times"
    assert bad <= 7, "all 15 of Optuna's own"


@pytest.mark.parametrize("how", ["fails", "diverges"])
def test_tpe_keeps_away_from_what_fails(how: str) -> None:
    assert towards_what_ends_badly("tpe", how)[1] <= 9, "all 15 of Optuna's own"


def test_a_short_training_looks_no_better_and_a_failed_one_worse_than_any_complete_one() -> None:
    from hfsuite.search.learning import all_complete

    study = optuna.create_study(direction="maximize")
    distribution = {"x": optuna.distributions.FloatDistribution(0, 1)}

    def trial(state: TrialState, value: float | None = None, **attributes: str) -> None:
        made = optuna.trial.create_trial(
            state=state, value=value, params={"x": 0.5}, distributions=distribution, user_attrs=attributes
        )
        study.add_trial(made)

    trial(TrialState.FAIL)
    assert [each.state for each in all_complete(study.trials, larger_is_better=True)] == [TrialState.FAIL]
    for value in (0.2, 0.6, 0.8):
        trial(TrialState.COMPLETE, value)
    for value in (0.9, 0.4, -5.0):
        trial(TrialState.PRUNED, value)
    study.add_trial(study.trials[0])
    trial(TrialState.FAIL, None, **{"hfsuite.state": "repeated"})
    shown = all_complete(study.trials, larger_is_better=True)
    assert [each.value for each in shown] == pytest.approx([0.14, 0.2, 0.6, 0.8, 0.6, 0.4, 0.2, 0.14, None])
    assert [each.state.name for each in shown] == ["COMPLETE"] * 8 + ["FAIL"]
    assert study.best_value == 0.8


# ---- nothing twice


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_tried_out_without_repetition_and_then_the_search_ends(name: str, tmp_path: Path) -> None:
    space = {"x": tune.choice([1, 2, 3]), "flag": tune.choice([True, False]), "n": tune.qrandint(1, 7, 3)}
    searcher = searcher_for(space, name, tmp_path)
    seen = []
    while (proposal := searcher.suggest(f"t{len(seen)}")) != Searcher.FINISHED:
        seen.append(tuple(proposal["settings"][key] for key in space))
        finish(searcher, f"t{len(seen) - 1}", float(proposal["settings"]["x"]))
    assert sorted(seen) == sorted((x, flag, n) for x in (1, 2, 3) for flag in (True, False) for n in (3, 6))
    assert (
        searcher.exhausted
        == "The search ends here: its space holds 12 configurations, and each of them has been tried."
    )
    study = study_of(tmp_path)
    repeated = [trial for trial in study.trials if trial.user_attrs.get("hfsuite.state") == "repeated"]
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 12
    assert len(study.trials) == 12 + len(repeated)
    assert all(trial.state == TrialState.FAIL for trial in repeated)


def test_what_runs_is_not_proposed_either() -> None:
    searcher = searcher_for({"x": tune.choice([1, 2, 3])}, "tpe")
    drawn = [searcher.suggest(trial)["settings"]["x"] for trial in "abc"]
    assert sorted(drawn) == [1, 2, 3]
    assert searcher.suggest("d") == Searcher.FINISHED


def test_what_does_not_count_makes_no_other_configuration() -> None:
    space = {"kind": tune.choice(["plain", "warm", "none"]), "warmup": tune.quniform(0.1, 0.3, 0.1)}
    only_where = {"warmup": {"kind": ["warm"]}}
    searcher = searcher_for(space, "random", only_where=only_where, defaults={"kind": "plain", "warmup": 0.0})
    drawn = [searcher.suggest(f"t{n}") for n in range(6)]
    assert drawn[5] == Searcher.FINISHED
    settings = [each["settings"] for each in drawn[:5]]
    assert sorted((each["kind"], round(each["warmup"], 6)) for each in settings) == [
        ("none", 0.0), ("plain", 0.0), ("warm", 0.1), ("warm", 0.2), ("warm", 0.3),
    ]  # fmt: skip


def test_a_condition_on_a_value_in_steps_is_met_whatever_its_rounding_error() -> None:
    values = {"x": tune.quniform(0.1, 0.9, 0.1).sample()}
    assert counts("y", {"y": {"x": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}}, values)
    assert counts("y", {"y": {"x": [0.3]}}, {"x": 3 * 0.1})
    assert not counts("y", {"y": {"x": [0.3]}}, {"x": 0.3000001})


@pytest.mark.parametrize("name", NAMES)
def test_a_range_is_never_tried_out(name: str) -> None:
    space = {"kind": tune.choice(["plain", "warm"]), "warmup": tune.loguniform(0.1, 1)}
    only_where = {"warmup": {"kind": ["warm"]}}
    searcher = searcher_for(space, name, only_where=only_where, defaults={"kind": "plain", "warmup": 0.0})
    drawn = []
    for number in range(12):
        drawn.append(searcher.suggest(f"t{number}")["settings"])
        finish(searcher, f"t{number}", 0.0 if drawn[-1]["kind"] == "plain" else 1.0)
    assert sum(each["kind"] == "plain" for each in drawn) <= 1
    assert len({each["warmup"] for each in drawn}) == 12
    assert searcher.exhausted is None


def test_a_seed_that_the_space_varies_is_a_setting_as_any() -> None:
    searcher = searcher_for({"x": tune.choice([1]), "seed": tune.randint(0, 4)}, "random")
    assert sorted(searcher.suggest(f"t{n}")["settings"]["seed"] for n in range(4)) == [0, 1, 2, 3]
    assert searcher.suggest("t4") == Searcher.FINISHED


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_repeated_after_an_interruption(name: str, tmp_path: Path) -> None:
    space = {"x": tune.choice(list(range(6)))}
    interrupted = searcher_for(space, name, tmp_path)
    before = [interrupted.suggest(f"t{n}")["settings"]["x"] for n in range(4)]
    interrupted.save(str(tmp_path / "state"))
    interrupted.suggest("lost")  # so Ray Tune never knew of it, and nobody has trained it
    resumed = searcher_for(space, name, tmp_path)
    resumed.restore(str(tmp_path / "state"))
    after = [resumed.suggest(f"t{n}")["settings"]["x"] for n in (4, 5)]
    assert sorted(before + after) == list(range(6))
    assert resumed.suggest("t6") == Searcher.FINISHED
    resumed.save(str(tmp_path / "state"))
    resumed.restore(str(tmp_path / "state"))
    assert "6 configurations" in resumed.exhausted


# ---- one meaning of a domain

DOMAINS = {
    "steps from zero": (tune.qrandint(1, 10, 3), [3, 6, 9]),
    "both ends": (tune.qrandint(16, 64, 16), [16, 32, 48, 64]),
    "a quantum of 1": (tune.qrandint(1, 4, 1), [1, 2, 3]),
    "whole": (tune.randint(1, 4), [1, 2, 3]),
    "whole and logarithmic": (tune.lograndint(1, 4), [1, 2, 3]),
    "logarithmic, a quantum of 1": (tune.qlograndint(1, 4, 1), [1, 2, 3]),
    "tenths": (tune.quniform(0.3, 0.9, 0.1), [n * 0.1 for n in range(3, 10)]),
    "thirds": (tune.quniform(0, 1, 1 / 3), [n * (1 / 3) for n in range(4)]),
    "elevenths": (tune.quniform(0, 1, 1 / 11), [n * (1 / 11) for n in range(12)]),
    "around zero": (tune.quniform(-0.2, 0.2, 0.1), [n * 0.1 for n in range(-2, 3)]),
}


@pytest.mark.parametrize(("domain", "values"), DOMAINS.values(), ids=list(DOMAINS))
@pytest.mark.parametrize("name", NAMES)
def test_every_searcher_draws_what_ray_draws(name: str, domain: Any, values: list[float]) -> None:
    assert {domain.sample() for _ in range(300)} == set(values)
    searcher = searcher_for({"x": domain}, name)
    drawn = [searcher.suggest(f"t{n}")["settings"]["x"] for n in range(len(values))]
    assert sorted(drawn) == values, "to the last bit"
    assert searcher.suggest("the next") == Searcher.FINISHED


@pytest.mark.parametrize("domain", [tune.qloguniform(0.1, 10, 0.1), tune.qlograndint(2, 64, 2)])
def test_steps_of_a_logarithmic_domain_are_refused_with_the_cure(domain: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"rate is logarithmic in steps of .*: leave out the steps"):
        check_searcher("tpe", {"rate": domain})
    check_searcher("grid", {"rate": domain})


# ---- the default settings


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_tried_first_and_only_once(name: str, tmp_path: Path) -> None:
    space = {"x": tune.quniform(0.0, 1.0, 0.25), "kind": tune.choice(["a", "b"]), "y": tune.randint(1, 3)}
    conditions = {"y": {"kind": ["b"]}}
    defaults = {"x": 0.5, "kind": "a", "y": 2}
    searcher = searcher_for(space, name, tmp_path, only_where=conditions, defaults=defaults, tries_defaults=True)
    proposals = []
    for number in range(6):
        proposals.append(searcher.suggest(f"trial {number}")["settings"])
        finish(searcher, f"trial {number}", float(number))
    assert proposals[0] == defaults
    assert defaults not in proposals[1:]
    assert "settings/y" not in study_of(tmp_path).trials[0].params, "what does not count is not learnt from"


def test_a_default_that_the_space_cannot_give_is_named() -> None:
    space = {
        "far": tune.loguniform(1e-5, 1e-3), "between": tune.quniform(0.0, 1.0, 0.25), "other": tune.choice(["a", "b"]),
        "inside": tune.uniform(0.0, 1.0), "whole": tune.randint(1, 9), "constant": 3,
        "truth": tune.choice([0, 1]), "drawn": tune.sample_from(lambda _: 1),
    }  # fmt: skip
    defaults = {"far": 0.1, "between": 0.3, "other": "c", "inside": 1.0, "whole": 4, "constant": 3, "truth": True,
                "drawn": 5}  # fmt: skip
    assert outside(space, defaults) == ["far", "between", "other", "truth"]
