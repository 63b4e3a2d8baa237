"""`hfsuite sweeps` and `hfsuite show`: what is recorded, as tables and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hfsuite.cli import app
from hfsuite.cli.outcome import run_command
from hfsuite.cli.rows import chosen, sparkline
from hfsuite.errors import ConfigurationError
from hfsuite.report import FAILURE_FILE
from hfsuite.tracking.state import TrialState
from tests.tracking import made

ROWS = [
    {"trial": 0, "state": "completed", "loss": 0.5, "seconds": 9.0, "config": {"rate": "1e-3", "kind": "plain"}},
    {"trial": 1, "state": "failed", "loss": None, "seconds": 100.0, "config": {"rate": "2e-5", "kind": "fancy"}},
    {"trial": 2, "state": "completed", "loss": 0.25, "seconds": 20.0, "config": {"rate": "0.0005", "kind": None}},
]
COLUMNS = ["trial", "state", "loss", "seconds", "rate", "kind"]


@pytest.fixture
def recorded(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Two sweeps in MLflow: one has three trials, of which one failed; the other has none."""
    made.sweep("empty", state=TrialState.COMPLETED, created_at=made.BEGAN * 1_000 - 60_000)
    directory, _ = made.sweep("three", state=TrialState.COMPLETED, best=1)
    for number, losses in enumerate(([0.9, 0.5], [0.8, 0.25], [0.7])):
        config = {"x": 0.1 * (number + 1), "kind": "plain"}
        reports = [made.report(place, 10 * place, loss, config) for place, loss in enumerate(losses, start=1)]
        state = TrialState.FAILED if number == 2 else TrialState.COMPLETED
        made.trial(directory, number, reports, state, config=config, seconds=1_800.0)
    Path(directory.path, "trial_002", FAILURE_FILE).write_text("rank 1: ValueError: asked to fail")
    for name in ("empty", "three"):
        assert run_command(app, ["sync", name]) == 0
    capsys.readouterr()
    return own_directory


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_command(app, [*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("recorded")
def test_all_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    newest, oldest = asked(capsys, "sweeps")["sweeps"]
    assert (newest["sweep"], oldest["sweep"]) == ("three", "empty")
    assert (newest["over"], newest["planned"], newest["failed"], newest["best"]) == (3, 3, 1, 0.25)
    assert newest["worker_hours"] == 3.0, "three trials of half an hour, with two workers each"
    (found,) = asked(capsys, "sweeps", "--where", "failed>0")["sweeps"]
    assert found["sweep"] == "three"
    assert run_command(app, ["sweeps"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("three", "3 of 3", "loss 0.25", "empty", "0 of 3"))


@pytest.mark.usefixtures("recorded")
def test_the_trials_of_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "show", "three", "--sort", "-loss", "--where", "state=completed")
    assert (found["sweep"], found["metric"], found["mode"]) == ("three", "loss", "min")
    assert [(each["trial"], each["loss"], each["step"]) for each in found["trials"]] == [(0, 0.5, 20), (1, 0.25, 20)]
    assert list(found["trials"][0]["config"]) == ["x"], "the setting that differs"
    assert run_command(app, ["show", "three"]) == 0
    shown = capsys.readouterr().out
    assert "three: completed, loss (min)" in shown
    assert "failed" in shown


@pytest.mark.usefixtures("recorded")
def test_one_trial(capsys: pytest.CaptureFixture[str]) -> None:
    best, failed = asked(capsys, "show", "three:best"), asked(capsys, "show", "three:2")
    assert best["curves"]["loss"] == [[10, 0.8], [20, 0.25]]
    assert best["config"] == {"x": 0.2, "kind": "plain"}
    assert (best["failure"], failed["state"]) == (None, "failed")
    assert "asked to fail" in failed["failure"]
    assert run_command(app, ["show", "three:2"]) == 0
    assert "ValueError: asked to fail" in capsys.readouterr().out
    assert run_command(app, ["show", "three:2", "--sort", "loss"]) == 2
    assert "this is one trial" in capsys.readouterr().err


@pytest.mark.usefixtures("recorded")
def test_several_runs_beside_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "compare", "three:0", "three:1", "three:2", "--sort", "loss", "--where", "state=completed")
    assert found["differs"] == ["x"]
    assert [each["title"] for each in found["runs"]] == ["three, trial 001", "three, trial 000"]
    assert found["runs"][0]["curves"]["loss"] == [[10, 0.8], [20, 0.25]]
    assert run_command(app, ["compare", "three:0", "three:1"]) == 0
    shown = capsys.readouterr().out
    assert "kind" not in shown, "it is the same"
    assert "█▄" in shown, "both curves are on one scale"
    assert run_command(app, ["compare", "three:0", "three:7"]) == 2
    assert "has no trial '7'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "sort", "trials"),
    [
        (["seconds<50"], None, [0, 2]),
        (["rate>1e-4", "seconds>=20"], None, [2]),
        (["kind!=plain"], None, [1]),
        ([" state = completed "], "-seconds", [2, 0]),
        ([], "rate", [1, 2, 0]),
        ([], "-loss", [0, 2, 1]),
        ([], "kind", [1, 0, 2]),
    ],
)
def test_rows_are_chosen_and_ordered(where: list[str], sort: str | None, trials: list[int]) -> None:
    assert [row["trial"] for row in chosen(ROWS, COLUMNS, where, sort)] == trials


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        chosen(ROWS, COLUMNS, ["los<1", "nothing"], "second")
    assert list(refused.value.faults) == [
        "There is no column 'los'. Did you mean 'loss'?",
        "--where takes a column, one of >= <= != = > <, and a value, got 'nothing'.",
        "There is no column 'second'. Did you mean 'seconds'?",
    ]


def test_a_curve_in_a_line() -> None:
    assert sparkline([0.0, 7.0, 3.0]) == "▁█▄"
    assert sparkline([1.0, math.nan, 1.0]) == "▁ ▁"
    assert len(sparkline(list(map(float, range(1_000))), width=40)) == 40
    assert sparkline([math.inf]) == sparkline([]) == ""
