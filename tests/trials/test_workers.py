"""Workers that outlive trials: who lives on, who does not, and that a trial cannot tell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import torch
from ray import tune
from ray.train import FailureConfig
from ray.tune.schedulers import TrialScheduler

from hfsuite import Experiment
from hfsuite.errors import ConfigurationError, UnknownName
from tests import program
from tests.ranks import leaving
from tests.trials.test_trainable import StopAt


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever a trial does: after the sweep no process, placement group or shared memory of it is left."""
    before = program.worker_processes(), set(os.listdir("/dev/shm"))
    yield
    program.wait_for_free_cpus()
    program.wait_until_ended(*(program.worker_processes() - before[0]))
    assert program.placement_groups() == 0
    assert set(os.listdir("/dev/shm")) <= before[1]


def tune_leaving(path: Path, leaves: list[str], *, max_failures: int = 0, slots: int = 1, **options: Any) -> Any:
    policy = {name: options.pop(name) for name in list(options) if name not in ("scheduler", "callbacks", "trial")}
    return tune.Tuner(
        options.get("trial") or leaving.trainer().as_trainable(**policy),
        param_space={"train_loop_config": {"leaves": tune.grid_search(leaves), "diary": str(path / "diary")}},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            max_concurrent_trials=slots,
            reuse_actors=True,
            scheduler=options.get("scheduler"),
        ),
        run_config=tune.RunConfig(
            storage_path=str(path),
            name="sweep",
            verbose=0,
            callbacks=options.get("callbacks"),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def leaving_experiment(leaves: list[str]) -> Experiment:
    return Experiment(
        name="leaving",
        trainer=leaving.trainer(),
        space={"leaves": tune.choice(leaves)},
        metric="loss",
        mode="min",
        defaults={"leaves": "nothing", "diary": "/dev/null"},
    )


def first_reports(results: Any) -> list[dict[str, Any]]:
    return [{**result.metrics_dataframe.iloc[0]} for result in results]


def test_workers_serve_one_trial_after_another(tmp_path: Path) -> None:
    first, second, third = first_reports(tune_leaving(tmp_path, ["nothing"] * 3))
    assert first["process"] == second["process"] == third["process"]
    assert [each["warm_start"] for each in (first, second, third)] == [False, True, True]
    assert [each["cached"] for each in (first, second, third)] == [0, 1, 2], "what a module keeps stays"
    program.wait_until_ended(int(first["process"]))


@pytest.mark.slow
def test_isolated_trials_have_workers_of_their_own(tmp_path: Path) -> None:
    first, second = first_reports(tune_leaving(tmp_path, ["nothing"] * 2, isolation="process"))
    assert first["process"] != second["process"]
    assert not second["warm_start"]
    assert second["cached"] == 0


@pytest.mark.slow
def test_a_group_serves_as_many_trials_as_the_user_says(tmp_path: Path) -> None:
    reports = first_reports(tune_leaving(tmp_path, ["nothing"] * 4, trials_per_group=2))
    pids = [each["process"] for each in reports]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_what_a_trial_changes_is_put_back(tmp_path: Path) -> None:
    cold, changing, warm = first_reports(tune_leaving(tmp_path, ["nothing", "switches", "nothing"]))
    assert cold["process"] == changing["process"] == warm["process"]
    same = {name: cold[name] for name in cold if name in leaving.state(torch)} | {"cached": 2}
    assert {name: warm[name] for name in same} == same
    assert warm["manual_seed_is_torchs"]
    assert warm["dtype"] == "torch.float32"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("a thread", "rank 0: the thread 'left-behind' is still running"),
        ("a process", "is still running"),
        ("memory", "GB of memory more than when it started (memory_limit_gb=1.5)"),
    ],
)
def test_what_cannot_be_put_back_costs_the_workers_their_life(tmp_path: Path, what: str, why: str) -> None:
    results = tune_leaving(tmp_path, [what, "nothing", "nothing"])
    leaver, after, later = first_reports(results)
    assert not results.errors
    assert leaver["process"] != after["process"]
    assert not after["warm_start"]
    assert why in after["workers_lost"]
    assert why in (told := Path(results[0].path, "workers_lost.txt").read_text())
    assert f"After trial {Path(results[0].path).name.partition('_0_')[0]}" in told, "it names the trial that left it"
    assert later["warm_start"]
    assert "workers_lost" not in {name for name, value in later.items() if value == value}, "it is told once"
    assert not Path(results[1].path, "workers_lost.txt").exists()
    if what == "a process":
        left = [int(line) for line in (tmp_path / "diary").read_text().splitlines() if line.isdigit()]
        assert len(left) == 2
        program.wait_until_ended(*left)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        pytest.param("an exception", "rank 1: ArithmeticError: asked to raise", marks=pytest.mark.slow),
        pytest.param("an exit", "rank 1: the worker process died", marks=pytest.mark.slow),
        ("a kill", "rank 1: the worker process died"),
        pytest.param("a hang", "Timed out", marks=pytest.mark.slow),
        pytest.param("an early return", "rank 1 has returned after 1 report, while", marks=pytest.mark.slow),
        pytest.param("a missing report", "rank 1 has not come to it within 8 s", marks=pytest.mark.slow),
    ],
)
def test_a_trial_that_fails_takes_nothing_with_it(tmp_path: Path, what: str, message: str) -> None:
    """Two slots: one trial fails, the others never notice, and what follows in its slot runs in a sound group."""
    results = tune_leaving(tmp_path, ["nothing", what, "nothing", "nothing"], slots=2)
    (failed,) = results.errors
    assert message in str(failed)
    assert [result.metrics["step"] for result in results if result.error is None] == [2, 2, 2]
    failed_pid = next(result for result in results if result.error).metrics_dataframe.iloc[0]["process"]
    assert failed_pid not in [each["process"] for each, result in zip(first_reports(results), results, strict=True)
                              if result.error is None and each["warm_start"]]  # fmt: skip


@pytest.mark.slow
def test_what_a_killed_rank_had_started_ends_with_it(tmp_path: Path) -> None:
    results = tune_leaving(tmp_path, ["a process and a kill"])
    assert results.errors
    left = [int(line) for line in (tmp_path / "diary").read_text().splitlines() if line.isdigit()]
    assert len(left) == 1
    program.wait_until_ended(*left)


@pytest.mark.slow
def test_what_fails_after_the_last_report_is_a_failure(tmp_path: Path) -> None:
    late, after = tune_leaving(tmp_path, ["a late exception", "nothing"])
    assert "OSError: the hub does not answer" in str(late.error)
    assert late.metrics["step"] == 2, "the report counts"
    assert "the hub does not answer" in Path(late.path, "failure.txt").read_text()
    assert "the hub does not answer" in Path(late.path, "rank_0.log").read_text()
    assert after.error is None


@pytest.mark.slow
def test_an_exception_while_a_stop_unwinds_is_told(tmp_path: Path) -> None:
    results = tune_leaving(tmp_path, ["an exception in the end", "nothing"], scheduler=StopAt(1))
    assert not results.errors, "it was stopped"
    assert "KeyError: 'in my cleanup'" in Path(results[0].path, "workers_lost.txt").read_text()
    assert "KeyError: 'in my cleanup'" in Path(results[0].path, "rank_1.log").read_text()
    assert "KeyError: 'in my cleanup'" in first_reports(results)[1]["workers_lost"]
    assert not list(Path(results[0].path).glob("failure_rank_*")), "nor is it taken for the reason of a later failure"


@pytest.mark.slow
def test_a_sweep_marks_a_trial_that_fails_after_its_last_report(own_directory: Path) -> None:
    """Also where the trial scheduler ends it at that report."""
    experiment = leaving_experiment(["a late exception"])
    result = experiment.sweep(trials=1, searcher="random", trial_scheduler=StopAt(2))
    (trial,) = result.trials
    assert trial.state == "failed"
    assert "the hub does not answer" in (trial.failure or "")
    assert result.exit_code == 1


@pytest.mark.slow
def test_the_last_trial_of_a_sweep_has_its_time_to_end(own_directory: Path) -> None:
    """Ray Tune itself would kill its actor after ten seconds."""
    experiment = leaving_experiment(["a long end"])
    diary = own_directory / "diary"
    result = experiment.sweep(
        trials=1, searcher="random", trial_scheduler=StopAt(1), stop_grace_s=60.0, set={"diary": str(diary)}
    )
    assert result.best.metrics["step"] == 1
    assert diary.read_text().splitlines().count("unwound") == 2


@pytest.mark.slow
def test_a_trial_that_ends_the_process_group_itself_harms_no_other(tmp_path: Path) -> None:
    results = tune_leaving(tmp_path, ["no process group", "nothing"])
    assert not results.errors
    assert [result.metrics["step"] for result in results] == [2, 2]


@pytest.mark.slow
def test_no_trial_waits_for_the_end_of_the_process_groups_before_it(tmp_path: Path) -> None:
    """NCCL takes up to half a second for it."""
    results = tune_leaving(tmp_path, ["who ends its groups", "nothing"])
    assert first_reports(results)[1]["warm_start"]
    ended_by = [line for line in (tmp_path / "diary").read_text().splitlines() if line.startswith("ended by")]
    assert len(ended_by) >= 2, "by both ranks"
    assert set(ended_by) == {"ended by the end of a trial's process groups"}, "and by no thread that is waited for"


@pytest.mark.slow
def test_a_swallowed_stop_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    results = tune_leaving(tmp_path, ["a swallowed stop", "nothing"], stop_grace_s=1.0, scheduler=StopAt(2))
    assert not results.errors
    stopped, after = first_reports(results)
    assert stopped["process"] != after["process"]
    assert not after["warm_start"]
    assert after["workers_lost"].endswith("_00000: their training function had not ended 1 s after it was told to")
    assert not list(tmp_path.rglob(".scratch_*")), "nor does its working directory stay"
    assert results[1].metrics["step"] == 2


@pytest.mark.slow
def test_a_retry_finds_an_empty_working_directory(tmp_path: Path) -> None:
    (result,) = tune_leaving(tmp_path, ["a kill, once"], max_failures=1)
    assert result.error is None
    assert result.metrics["step"] == 2
    assert not list(Path(result.path).rglob("saved"))
    assert not list(Path(result.path).glob(".scratch_*"))


@pytest.mark.slow
def test_a_stop_reaches_a_trial_that_begins_anew(tmp_path: Path) -> None:
    """A rank dies in the very report at which Tune stops the trial, and the trainer would try again."""

    class SlowStop(StopAt):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result["leaves"] == "nothing":
                return str(TrialScheduler.CONTINUE)
            time.sleep(3)  # meanwhile the rank dies, and new workers start
            return str(super().on_trial_result(tune_controller, trial, result))

    trainer = leaving.trainer()
    trainer.run_config.failure_config = FailureConfig(max_failures=3)
    results = tune_leaving(
        tmp_path, ["a death in a report", "nothing"], scheduler=SlowStop(1), trial=trainer.as_trainable()
    )
    assert not results.errors
    assert [result.metrics["step"] for result in results] == [1, 2]


@pytest.mark.slow
def test_a_killed_trial_actor_takes_its_workers_along_and_is_retried(tmp_path: Path) -> None:
    class Killer(tune.Callback):
        killed: ClassVar[list[str]] = []

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if not Killer.killed:
                Killer.killed.append(trial.trial_id)
                ray.kill(trial.temporary_state.ray_actor)

    results = tune_leaving(tmp_path, ["nothing"] * 3, max_failures=1, callbacks=[Killer()], slots=2)
    assert not results.errors
    assert [result.metrics["step"] for result in results] == [2, 2, 2]
    for result in results:
        is_killed = result.metrics["trial_id"] in Killer.killed
        assert result.metrics_dataframe["process"].nunique() == 1 + is_killed, "others never notice"


@pytest.mark.slow
@pytest.mark.parametrize(("decisions", "went_on"), [("awaited", 0), ("pipelined", 2)])
def test_a_stop_unwinds_every_rank(tmp_path: Path, decisions: str, went_on: int) -> None:
    """Ranks that await decisions stop in the very report; pipelined ones learn of it in their next."""
    results = tune_leaving(tmp_path, ["switches"], decisions=decisions, scheduler=StopAt(1))
    assert not results.errors
    assert [result.metrics["step"] for result in results] == [1]
    said = (tmp_path / "diary").read_text().splitlines()
    assert said.count("went on") == went_on
    assert said.count("unwound") == 2, "finally blocks run, in both ranks"


@pytest.mark.slow
def test_workers_of_a_stopped_trial_serve_the_next(tmp_path: Path) -> None:
    results = tune_leaving(tmp_path, ["switches", "nothing"], decisions="pipelined", scheduler=StopAt(1))
    assert not results.errors
    first, second = first_reports(results)
    assert first["process"] == second["process"], "both ranks unwound at the same report"
    assert second["variable"] == "unset"


def test_all_mistakes_about_workers_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        leaving.trainer().as_trainable(
            isolation="wram", decisions="pipeline", stop_grace_s=-1, trials_per_group=0, memory_limit_gb=0
        )
    assert len(refusal.value.faults) == 5
    assert "Did you mean 'warm'?" in str(refusal.value)
    with pytest.raises(ConfigurationError) as refusal:
        leaving.trainer().as_trainable(stop_grace_s="5", trials_per_group=2.5, memory_limit_gb=None)
    assert len(refusal.value.faults) == 3
    with pytest.raises(ConfigurationError, match="stop_grace_s"):
        leaving.trainer().as_trainable(stop_grace_s=float("inf"))
    with pytest.raises(UnknownName, match=r"no argument 'isolated'\. Did you mean 'isolation'"):
        leaving.trainer().as_trainable(isolated=True)
