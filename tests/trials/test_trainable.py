"""Trials under a bare `ray.tune.Tuner`: gang scheduling, reports one by one, checkpoints, stops, retries."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
import ray
import ray.data
from ray import tune
from ray.train import Checkpoint, CheckpointConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from hfsuite import AccelerateTrainer
from hfsuite.checkpoints import manifest
from hfsuite.errors import ConfigurationError, ResourcesError, UnknownName
from tests import program, toy
from tests.trials import sharing


def tune_toy(
    path: Path, space: dict[str, Any], *, samples: int = 1, max_failures: int = 0, workers: int = 2, **tune_config: Any
) -> tune.ResultGrid:
    return tune.Tuner(
        toy.trainer(workers).as_trainable(),
        param_space=space,
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=samples, **tune_config),
        run_config=tune.RunConfig(
            storage_path=str(path),
            name="sweep",
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


class StopAt(FIFOScheduler):
    """Stops every trial at its n-th report."""

    def __init__(self, iteration: int) -> None:
        super().__init__()
        self.iteration = iteration

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP if result["training_iteration"] >= self.iteration else TrialScheduler.CONTINUE


@pytest.mark.slow
def test_eight_trials_of_two_workers_on_four_cpus_all_finish(tmp_path: Path) -> None:
    results = tune_toy(tmp_path, {"train_loop_config": {"x": tune.uniform(0, 1)}}, samples=8)
    assert not results.errors
    assert [result.metrics["training_iteration"] for result in results] == [3] * 8
    assert [result.metrics["world_size"] for result in results] == [2] * 8


def test_reports_reach_tune_one_by_one_and_checkpoints_are_real(tmp_path: Path) -> None:
    (result,) = tune_toy(tmp_path, {})
    assert list(result.metrics_dataframe["step"]) == [10, 20, 30]
    assert list(result.metrics_dataframe["training_iteration"]) == [1, 2, 3]
    assert len(result.best_checkpoints) == 3
    for checkpoint, metrics in result.best_checkpoints:
        sealed = manifest.verify(checkpoint)
        assert (sealed["step"], sealed["world_size"]) == (metrics["step"], 2)
    with result.checkpoint.as_directory() as directory:
        assert json.loads(Path(directory, "state.json").read_text()) == {"step": 3}
    copies = list(tmp_path.rglob("state.json"))
    assert len(copies) == 3, "a checkpoint exists once, in the trial's directory"


@pytest.mark.slow
def test_a_trial_can_report_without_checkpoints(tmp_path: Path) -> None:
    (result,) = tune_toy(tmp_path, {"train_loop_config": {"checkpoints": False}})
    assert result.metrics["training_iteration"] == 3
    assert result.checkpoint is None


def test_no_step_is_trained_after_a_stop(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    settings = {"reports": 50, "diary": str(diary)}
    (result,) = tune_toy(tmp_path, {"train_loop_config": settings}, scheduler=StopAt(2))
    assert result.metrics["training_iteration"] == 2
    assert sorted((entry["step"], entry["rank"]) for entry in toy.read(diary)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert json.loads((Path(result.checkpoint.path) / "state.json").read_text()) == {"step": 2}


@pytest.mark.slow
def test_asha_stops_the_worse_half(tmp_path: Path) -> None:
    results = tune_toy(
        tmp_path,
        {"train_loop_config": {"x": tune.grid_search([0.1, 1.0, 2.0, 3.0]), "reports": 4}},
        scheduler=ASHAScheduler(max_t=10, grace_period=1, reduction_factor=2),
        max_concurrent_trials=1,
    )
    assert not results.errors
    assert [result.metrics["training_iteration"] for result in results] == [4, 1, 1, 1]


@pytest.mark.slow
def test_a_failed_trial_is_retried_from_its_last_checkpoint(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    settings = {"diary": str(diary), "fails_at": 3, "fails_once": str(tmp_path / "failed")}
    (result,) = tune_toy(tmp_path, {"train_loop_config": settings}, max_failures=1)
    assert result.error is None
    assert result.metrics["training_iteration"] == 3
    steps = [(entry["step"], entry["resumed_from"]) for entry in toy.read(diary) if entry["rank"] == 0]
    assert steps[-1] == (3, 2), "the second attempt begins where the last checkpoint is"
    assert [step for step, _ in steps[:2]] == [1, 2]


@pytest.mark.slow
def test_a_retry_never_resumes_from_a_broken_checkpoint(tmp_path: Path) -> None:
    settings = {"fails_at": 3, "fails_once": str(tmp_path / "failed"), "diary": str(tmp_path / "diary")}

    class Vandal(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if result["training_iteration"] == 2:
                newest = max(Path(trial.path).glob("checkpoint_2*"))
                (newest / "state.json").write_text('{"step": 2} ')

    tuner = tune.Tuner(
        toy.trainer().as_trainable(),
        param_space={"train_loop_config": settings},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            name="sweep",
            verbose=0,
            callbacks=[Vandal()],
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    (result,) = tuner.fit()
    assert result.error is None
    resumed = [entry["resumed_from"] for entry in toy.read(tmp_path / "diary") if entry["rank"] == 0]
    assert resumed[-1] == 1, "the newest checkpoint is broken, so the one before it is used"


@pytest.mark.slow
def test_a_trial_that_says_it_is_finished_is_not_cut_short(tmp_path: Path) -> None:
    """No trial scheduler is asked about a report that is the last one, and the function returns by itself."""
    (result,) = tune_toy(
        tmp_path,
        {"train_loop_config": {"says_when_finished": True, "diary": str(tmp_path / "diary")}},
        scheduler=StopAt(3),
    )
    assert result.metrics["training_iteration"] == 3
    assert result.metrics["done"] is True
    assert {entry["rank"] for entry in toy.read(tmp_path / "diary", having="returned")} == {0, 1}


@pytest.mark.slow
def test_a_retry_within_a_trial_goes_on_and_decisions_reach_the_new_ranks(tmp_path: Path) -> None:
    """Ray Train's own retry: the trial's actor stays, its workers are new."""
    trainer = toy.trainer()
    trainer.run_config.failure_config = ray.train.FailureConfig(max_failures=1)
    settings = {"fails_at": 2, "fails_once": str(tmp_path / "failed"), "diary": str(tmp_path / "diary"), "reports": 20}
    tuner = tune.Tuner(
        trainer.as_trainable(),
        param_space={"train_loop_config": settings},
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=StopAt(4)),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0),
    )
    (result,) = tuner.fit()
    assert result.error is None
    steps = [entry["step"] for entry in toy.read(tmp_path / "diary") if entry["rank"] == 0]
    assert steps[-1] == 4, "no step is trained after the stop"
    assert result.metrics["step"] == 40


@pytest.mark.slow
def test_the_number_of_workers_can_be_searched_over(tmp_path: Path) -> None:
    space = {"scaling_config": {"num_workers": tune.grid_search([1, 2])}, "train_loop_config": {"reports": 1}}
    results = tune_toy(tmp_path, space)
    assert not results.errors
    assert [result.metrics["world_size"] for result in results] == [1, 2]


def test_a_failing_rank_leaves_its_traceback(tmp_path: Path) -> None:
    (result,) = tune_toy(tmp_path, {"train_loop_config": {"fails_at": 2}})
    assert result.error is not None
    text = Path(result.path, "failure.txt").read_text()
    assert "rank 1: ArithmeticError: asked to fail at step 2" in text
    assert "in fail_if_asked\n    raise ArithmeticError" in text
    assert "asked to fail at step 2" in str(result.error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("exit", "killed, out of memory"),
        ("sigkill", "killed, out of memory"),
        ("watchdog", "collective operation timeout: WorkNCCL(SeqNum=15, OpType=ALLREDUCE"),
    ],
)
def test_a_rank_that_dies_fails_its_trial_and_names_it(tmp_path: Path, how: str, why: str) -> None:
    (result,) = tune_toy(tmp_path, {"train_loop_config": {"fails_at": 2, "fails_by": how}})
    text = Path(result.path, "failure.txt").read_text()
    assert f"rank 1: the worker process died without a Python exception ({why}" in text
    assert "rank_1.log" in text
    assert result.metrics["training_iteration"] == 1


@pytest.mark.slow
def test_an_exception_that_cannot_travel_is_still_described(tmp_path: Path) -> None:
    (result,) = tune_toy(tmp_path, {"train_loop_config": {"fails_at": 1, "fails_by": "unpicklable"}})
    assert "rank 1: Unpicklable: asked to fail" in Path(result.path, "failure.txt").read_text()


@pytest.mark.slow
def test_each_rank_has_its_own_output_file(tmp_path: Path) -> None:
    (result,) = tune_toy(tmp_path, {"train_loop_config": {"reports": 1}})
    assert sorted(path.name for path in Path(result.path).glob("rank_*.log")) == ["rank_0.log", "rank_1.log"]


def test_a_trial_that_never_fits_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ResourcesError, match=r"9 workers with 1 CPU each needs 9 CPU.* it has .*4 CPU"):
        tune_toy(tmp_path, {"scaling_config": ScalingConfig(num_workers=9)})
    assert not list(tmp_path.rglob("rank_*.log"))


def test_an_unknown_setting_of_a_trial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no setting 'train_loop_confg'"):
        tune_toy(tmp_path, {"train_loop_confg": {"x": 1.0}})


@pytest.mark.parametrize("field", ["checkpoint_config", "name"])
def test_what_belongs_to_tune_cannot_be_set_by_a_trial(tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"run_config.{field} of a trial belongs to Ray Tune"):
        tune_toy(tmp_path, {"run_config": {field: None}})


def test_a_trainers_own_checkpoint_config_is_not_ignored_in_silence() -> None:
    trainer = toy.trainer()
    trainer.run_config.checkpoint_config = CheckpointConfig(num_to_keep=1)
    with pytest.warns(UserWarning, match="Trials' checkpoints belong to Ray Tune"):
        trainer.as_trainable()


@pytest.mark.slow
def test_a_trial_works_on_a_remote_file_system(tmp_path: Path) -> None:
    """Output, failures and checkpoints cross a file system that is not a folder of the node."""
    storage = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    tuner = tune.Tuner(
        toy.trainer().as_trainable(),
        param_space={"train_loop_config": {"fails_at": tune.grid_search([0, 2])}},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(storage_path="sweeps", storage_filesystem=storage, name="sweep", verbose=0),
    )
    good, bad = tuner.fit()
    assert json.loads((tmp_path / good.checkpoint.path / "state.json").read_text()) == {"step": 3}
    assert manifest.verify(good.checkpoint)["step"] == 30
    assert "asked to fail at step 2" in (tmp_path / bad.path / "failure.txt").read_text()
    for result in (good, bad):
        assert sorted(path.name for path in (tmp_path / result.path).glob("rank_*.log")) == ["rank_0.log", "rank_1.log"]


@pytest.mark.slow
def test_a_checkpoint_that_is_given_away_is_not_copied(tmp_path: Path) -> None:
    def loop(config: dict[str, Any]) -> None:
        for given_away in (True, False):
            source = Path(f"given_away_{given_away}")
            source.mkdir()
            (source / "weights").write_bytes(b"x" * 1000)
            metrics = {"inode": (source / "weights").stat().st_ino, "loss": 1.0}
            checkpoint = Checkpoint.from_directory(source)
            ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=given_away)
            assert source.exists() is not given_away

    trainer = AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1))
    (result,) = tune.Tuner(
        trainer.as_trainable(), run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0)
    ).fit()
    assert result.error is None
    same = [
        Path(checkpoint.path, "weights").stat().st_ino == metrics["inode"]
        for checkpoint, metrics in result.best_checkpoints
    ]
    assert same == [True, False]
    for checkpoint, _ in result.best_checkpoints:
        assert manifest.verify(checkpoint)


@pytest.mark.slow
def test_a_rank_knows_the_checkpoints_that_were_reported(tmp_path: Path) -> None:
    def loop(config: dict[str, Any]) -> None:
        for step in (1, 2, 3):
            with tempfile.TemporaryDirectory() as directory:
                Path(directory, "state.json").touch()
                ray.train.report({"step": step, "loss": 1.0}, checkpoint=Checkpoint.from_directory(directory))
            known = ray.train.get_all_reported_checkpoints()
            assert [each.metrics["step"] for each in known] == list(range(1, step + 1))
            assert all(Path(each.checkpoint.path, "state.json").exists() for each in known)

    trainer = AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1))
    (result,) = tune.Tuner(
        trainer.as_trainable(), run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0)
    ).fit()
    assert result.error is None
    assert result.metrics["step"] == 3


@pytest.mark.slow
def test_streamed_data_without_a_free_cpu_is_refused_instead_of_waiting(tmp_path: Path) -> None:
    def loop(config: dict[str, Any]) -> None:
        rows = sum(1 for _ in ray.train.get_dataset_shard("train").iter_rows())
        ray.train.report({"rows": rows})

    trainer = AccelerateTrainer(
        loop,
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=2),
        datasets={"train": ray.data.range(8).map(lambda row: {"id": row["id"] + 1})},
    )

    def run(name: str, **tune_config: Any) -> tune.ResultGrid:
        return tune.Tuner(
            trainer.as_trainable(),
            tune_config=tune.TuneConfig(num_samples=2, **tune_config),
            run_config=tune.RunConfig(storage_path=str(tmp_path), name=name, verbose=0),
        ).fit()

    crowded = run("crowded")
    assert crowded.errors
    assert all("set max_concurrent_trials in tune.TuneConfig" in str(error) for error in crowded.errors)
    roomy = run("roomy", max_concurrent_trials=1)
    assert [result.metrics["rows"] for result in roomy] == [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given_away", "mode", "decisions"),
    [
        (True, "SYNC", "awaited"),
        (False, "SYNC", "awaited"),
        # The last upload outlasts the training function.
        (True, "ASYNC", "pipelined"),
        (True, "ASYNC", "awaited"),
    ],
)
def test_ranks_agree_and_each_save_their_part_in_one_warm_trial_after_another(
    tmp_path: Path, given_away: bool, mode: str, decisions: str
) -> None:
    given = {"given_away": given_away, "mode": mode}
    results = tune.Tuner(
        sharing.trainer().as_trainable(decisions=decisions),
        param_space={"train_loop_config": {"x": tune.grid_search([3, 5, 7]), **given}},
        tune_config=tune.TuneConfig(metric="loss", mode="min", max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0),
    ).fit()
    assert not results.errors
    assert [result.metrics["agreed"] for result in results] == [6, 10, 14]
    assert [next(iter(result.metrics_dataframe["warm_start"])) for result in results] == [False, True, True]
    for result in results:
        for number, (checkpoint, metrics) in enumerate(result.best_checkpoints, start=1):
            parts = {path.name: path.read_text() for path in Path(checkpoint.path).glob("part_*")}
            assert parts == {f"part_{rank}": str(metrics["agreed"]) for rank in (0, 1)}
            assert {"part_0", "part_1"} <= set(manifest.verify(checkpoint)["files"])
            assert metrics["step"] == number


@pytest.mark.slow
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    tune_toy(tmp_path, {"train_loop_config": {"reports": 1}}, samples=2)
    program.wait_for_free_cpus()


@pytest.mark.filterwarnings("ignore:The Ray Train . Ray Tune integration has been reworked")  # Ray's, of its own ones
def test_a_tuner_takes_the_trainer_itself_as_ray_2_6_did(tmp_path: Path) -> None:
    run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    (result,) = tune.Tuner(toy.trainer(1), param_space={"train_loop_config": {"x": 0.5}}, run_config=run_config).fit()
    assert result.metrics["step"] == 30
    assert result.config["train_loop_config"]["x"] == 0.5


def test_a_rank_has_none_of_rays_own_arguments(tmp_path: Path) -> None:
    def loop(config: dict[str, Any]) -> None:  # as a module that parses its arguments where it is imported
        parsed = argparse.ArgumentParser().parse_args()
        ray.train.report({"loss": 1.0, "given": len(vars(parsed))})

    trainer = AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1))
    run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    (result,) = tune.Tuner(trainer.as_trainable(), run_config=run_config).fit()
    assert result.metrics["given"] == 0


@pytest.mark.parametrize("wanted", [{"cpu": 1}, tune.PlacementGroupFactory([{}, {"CPU": 2}])])
def test_resources_that_are_not_the_workers_are_refused(tmp_path: Path, wanted: Any) -> None:
    trainable = tune.with_resources(toy.trainer(2).as_trainable(), wanted)
    (result,) = tune.Tuner(trainable, run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0)).fit()
    assert "give the trainer ScalingConfig(num_workers=..., resources_per_worker={...}) instead" in str(result.error)


@pytest.mark.slow
def test_a_relative_path_of_the_drivers_is_explained(tmp_path: Path) -> None:
    def loop(config: dict[str, Any]) -> None:
        Path("rows.txt").read_text()

    (tmp_path / "rows.txt").write_text("1 2 3")
    trainer = AccelerateTrainer(
        loop,
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(storage_path=str(tmp_path / "results")),
    )
    with pytest.raises(TrainingFailedError, match=f"Give the whole path: {tmp_path}/rows.txt"):
        trainer.fit()
