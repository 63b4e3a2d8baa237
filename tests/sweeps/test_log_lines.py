"""Without a terminal, a log says what is asked for, how far it is, and what has become of each trial."""

from __future__ import annotations

import pytest
from rich.console import Console

from hfsuite.cli.sweep import show
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.log_lines import LogLines, duration
from hfsuite.sweeps.result import SweepResult, TrialResult
from hfsuite.tracking.state import TrialState
from tests.tracking import made


def trial(number: int, state: TrialState = TrialState.RUNNING, **changes: object) -> TrialResult:
    values = {"config": {"x": 0.25}, "searched": {"x": 0.25}, "idle": [], "path": "", "seconds": 12.3, **changes}
    result = TrialResult(number=number, trial_id=f"t{number}", **values)  # type: ignore[arg-type]
    result.state = state
    return result


def test_a_log_begins_with_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    _, record = made.sweep(params={
        "workers": 2, "searcher": "tpe", "trial_scheduler": "asha", "seed": 0, "space": {"x": "uniform(0, 1)"},
    })  # fmt: skip
    LogLines(Console(width=60), [], 6).plan(record)
    assert capsys.readouterr().out.splitlines() == [
        "things · made",
        "6 trials, tpe, asha, 2 workers each, seed 0; loss (min) is optimised",
        "  x ~ uniform(0, 1)",
    ]


def test_each_event_is_one_line_that_says_how_far_the_sweep_is(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(title="made", metric="loss", mode="min", progress=["step"], total=6, console=Console(width=40))
    with display:
        display.begins(trial(1))
        display.report(trial(1), {"loss": 0.12345, "step": 20, "other": 3})
        display.ends(trial(1, TrialState.PRUNED, why="asha at step 20"), over=2, left=61.0)
        display.ends(trial(5, TrialState.COMPLETED), over=6, left=0.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["trial 001 (2/6) begins  x=0.25", "trial 001 (2/6)  step 20  loss 0.123"]
    assert lines[2].startswith("trial 001 pruned (asha at step 20) after 12 s; 2 of 6 over, about 61 s left")
    assert lines[3] == "trial 005 completed after 12 s; 6 of 6 over"


def test_a_trial_that_was_there_before_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(title="made", metric="loss", mode="min", progress=[], total=6, console=Console(width=40))
    with display:
        display.begins(trial(1, TrialState.RUNNING, iterations=3))
    assert capsys.readouterr().out == "trial 001 (2/6) goes on  x=0.25\n"


def test_a_better_trial_that_was_interrupted_is_named_beside_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    ended, stopped = TrialState.COMPLETED, TrialState.STOPPED
    trials = [trial(0, ended, metrics={"loss": 0.5}), trial(1, stopped, metrics={"loss": 0.4})]
    result = SweepResult(
        name="s", experiment="e", module="m", metric="loss", mode="min", run_id=None, tracking_uri="", path="",
        trials=trials, planned=3, interrupted=True,
    )  # fmt: skip
    show(result, [])
    said = capsys.readouterr().out
    assert "Best: trial 000, loss 0.5" in said
    assert "Better so far, but interrupted: trial 001, loss 0.4" in said


def test_what_was_interrupted_is_not_over() -> None:
    console = Console(width=200)
    display = Display(title="made", metric="loss", mode="min", progress=[], total=3, console=console)
    with console.capture() as captured:
        states = TrialState.COMPLETED, TrialState.STOPPED, TrialState.RUNNING
        console.print(display.table([trial(number, state) for number, state in enumerate(states)]))
    assert "1 of 3 trials over, 1 interrupted" in captured.get()


@pytest.mark.parametrize(("seconds", "said"), [(12.3, "12 s"), (150, "2 min"), (9_000, "2.5 h")])
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
