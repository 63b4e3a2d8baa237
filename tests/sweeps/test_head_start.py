"""Workers that start before their trial: it finds them, and nothing of them stays where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.train import ScalingConfig
from ray.tune.schedulers import FIFOScheduler

from hfsuite.errors import TrackingError
from hfsuite.sweeps.head_start import HeadStart
from hfsuite.trials.resources import TrialRequest
from tests import program, toy
from tests.ranks import leaving
from tests.trials.test_workers import first_reports, tune_leaving


def processes(head_start: HeadStart) -> list[int]:
    """Of its workers; 0 for one that has ended."""
    pids = []
    for worker in head_start._workers:
        try:
            pids.append(ray.get(worker.get_metadata.remote()).pid)
        except RayActorError:
            pids.append(0)
    return pids


def test_a_trial_takes_the_workers_that_wait_for_it(tmp_path: Path) -> None:
    with HeadStart() as head_start:
        head_start.begin(trial := leaving.trainer().as_trainable(), 1)
        waiting = processes(head_start)
        first, second = first_reports(tune_leaving(tmp_path, ["nothing", "nothing"], trial=trial))
    assert first["process"] == second["process"] == waiting[0]
    assert not first["warm_start"], "no trial has run in them before"
    program.wait_for_free_cpus()
    program.wait_until_ended(*waiting)
    assert program.placement_groups() == 0


@pytest.mark.slow
def test_a_trial_whose_workers_died_while_they_waited_gets_others(tmp_path: Path) -> None:
    with HeadStart() as head_start:
        head_start.begin(trial := leaving.trainer().as_trainable(), 1)
        waiting = processes(head_start)
        ray.kill(head_start._workers[1])
        program.wait_until_ended(waiting[1])
        (report,) = first_reports(tune_leaving(tmp_path, ["nothing"], trial=trial))
    assert report["step"] == 1
    assert report["process"] not in waiting
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0


@pytest.mark.slow
def test_the_successor_of_a_failed_trial_has_a_head_start_too(tmp_path: Path) -> None:
    started_ahead: list[int] = []

    class Look(tune.Callback):
        def on_trial_result(self, *_: Any, result: dict[str, Any], **__: Any) -> None:
            if result["leaves"] == "nothing":
                started_ahead[:] = processes(head_start)[2:]

    with HeadStart() as head_start:
        head_start.begin(trial := leaving.trainer().as_trainable(), 1)
        results = tune_leaving(tmp_path, ["an exception", "nothing"], trial=trial, callbacks=[head_start, Look()])
    after = first_reports(results)[1]
    assert after["process"] in started_ahead


@pytest.mark.slow
def test_what_no_trial_takes_ends() -> None:
    with HeadStart() as head_start:
        head_start.begin(toy.trainer().as_trainable(), 2)
        waiting = processes(head_start)
        assert len(waiting) == 4
        made = [group for _, group in head_start._made]
        owner = head_start._made[0][0].owner
        for other in (  # too small, and of others
            TrialRequest.of(ScalingConfig(num_workers=3), owner=owner).to_placement_group(),
            TrialRequest.of(ScalingConfig(num_workers=2), owner="another sweep").to_placement_group(),
        ):
            assert other not in made
            ray.util.remove_placement_group(other)
        taken = TrialRequest.of(ScalingConfig(num_workers=2), owner=owner).to_placement_group()
        assert taken in made
        ray.util.remove_placement_group(taken)  # as Ray Tune does at the end
    program.wait_until_ended(*waiting)
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0


@pytest.mark.slow
def test_a_search_that_limits_itself_keeps_no_resources_from_others(tmp_path: Path) -> None:
    groups: list[int] = []

    class Count(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            groups.append(program.placement_groups())

    with HeadStart() as head_start:
        head_start.begin(trial := leaving.trainer().as_trainable(), 2)
        tune_leaving(tmp_path, ["nothing", "nothing"], trial=trial, slots=1, callbacks=[head_start, Count()])
    assert groups == [1, 1]


@pytest.mark.slow
def test_a_sweep_that_is_cut_short_frees_its_resources_though_a_notebook_keeps_the_exception() -> None:
    class SecondInterrupt(FIFOScheduler):
        def on_trial_result(self, *_: Any) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # its frames hold Ray Tune's loop, and that one the groups
        toy.experiment.sweep(trials=2, searcher="random", trial_scheduler=SecondInterrupt())
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0
    assert kept.traceback


def test_a_sweep_that_cannot_be_recorded_leaves_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(TrackingError, match="cannot be used"):
        toy.experiment.sweep(trials=2)
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0
