"""What people read of a sweep: tables, in which settings and metrics that have the same name are told apart."""

from __future__ import annotations

from typing import Any

from ray import tune
from rich.console import Console

from hfsuite.seeds import SeedRule
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.result import SweepResult, TrialResult
from hfsuite.sweeps.trial_settings import TrialSettings
from hfsuite.tracking import describe
from hfsuite.tracking.state import TrialState
from tests.tracking import made

LOGGED = 0.0  # the learning rate at the end of a schedule


def trial(number: int, rate: float, **changes: Any) -> TrialResult:
    values: dict[str, Any] = {
        "config": {"learning_rate": rate, "epochs": 3, "seed": number},
        "searched": {"learning_rate": rate},
        "run_id": f"run{number}",
        "state": TrialState.COMPLETED,
        "metrics": {"loss": 1.0 - rate, "learning_rate": LOGGED, "step": 30},
        "iterations": 3,
    }
    return TrialResult(number=number, trial_id=f"t{number}", **{**values, **changes})


def sweep(*trials: TrialResult, **changes: Any) -> SweepResult:
    values: dict[str, Any] = {
        "name": "made", "experiment": "things", "module": "tests.toy", "metric": "loss", "mode": "min",
        "run_id": "parent", "tracking_uri": "sqlite:///mlflow.db", "path": "/results/made", "planned": len(trials),
    }  # fmt: skip
    return SweepResult(**{**values, **changes}, trials=list(trials))


def shown(trials: list[TrialResult], *, width: int = 200, progress: list[str] | None = None) -> str:
    console = Console(width=width)
    display = Display(title="made", metric="loss", mode="min", progress=progress or [], total=2, console=console)
    with console.capture() as captured:
        console.print(display.table(trials))
    return captured.get()


def test_a_dataframe_has_the_searched_settings_and_the_metrics_of_the_same_name() -> None:
    frame = sweep(
        trial(0, 0.1), trial(1, 0.2, metrics={"loss": 0.5, "state": 7, "config.learning_rate": 8})
    ).dataframe()
    assert list(frame["config.learning_rate"]) == [0.1, 0.2]
    assert frame["learning_rate"][0] == LOGGED
    assert not {"config.epochs", "config.seed", "epochs", "seed"} & set(frame.columns), "none but what is searched"
    assert list(frame["state"]) == ["completed", "completed"]
    assert (frame["metrics.state"][1], frame["metrics.config.learning_rate"][1]) == (7, 8)
    assert frame.columns[0] == "trial"


def test_the_screen_and_mlflow_tell_a_setting_from_the_metric_of_its_name() -> None:
    head = shown([trial(0, 0.1)], progress=["learning_rate"]).split("─")[0]
    assert head.count("learning") == 2
    assert head.count("config.") == 1
    directory, record = made.sweep()
    first = made.trial(directory, 0, [made.report(1, 10, 0.5)])
    assert "| trial | loss | step | state | config.x |" in describe.sweep(record, [first])


def test_a_setting_that_does_not_count_is_shown_as_such() -> None:
    idle = trial(1, 0.2, searched={}, idle=["learning_rate"])
    rows = [line for line in shown([trial(0, 0.1), idle]).splitlines() if line.lstrip().startswith("00")]
    assert [row.split()[-1] for row in rows] == ["0.1", "-"]
    assert "learning_rate" not in idle.as_json()["config"]
    assert idle.config["learning_rate"] == 0.2, "it is still what the trial was given"
    assert sweep(trial(0, 0.1), idle).dataframe()["config.learning_rate"].isna().tolist() == [False, True]


def test_which_settings_count_follows_from_the_experiment_whoever_searches() -> None:
    conditions = {"warmup": {"kind": ["warm"]}, "beta": {"warmup": [0.5]}, "fixed": {"kind": ["warm"]}}
    settings = TrialSettings(
        argument="settings", space={"warmup": tune.uniform(0, 1), "kind": tune.choice(["warm", "plain"])},
        conditions=conditions, constants={"beta": 1, "fixed": 2, "warmup": 0.0, "kind": "plain"},
        seeds=SeedRule(0, per_trial=True, fills_setting=False),
    )  # fmt: skip
    values = settings.of(0, {"settings": {"kind": "plain", "warmup": 0.5}})
    assert settings.idle(values) == ["warmup", "beta", "fixed"]
    assert settings.searched(values) == {"kind": "plain"}
    assert settings.idle({**values, "kind": "warm"}) == []
