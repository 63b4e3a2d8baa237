"""DDP, FSDP 2 and DeepSpeed: by configuration files of Accelerate, and by arguments of Transformers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig

from hfsuite import TransformersTrainer
from tests.gpu import sharded

Record = Callable[[str, object], None]
HOW = ["ddp", "fsdp2", "zero2", "zero3"]


@pytest.fixture(autouse=True)
def deepspeed_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    if str(request.node.callspec.params["how"]).startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs deepspeed")


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("how", HOW)
def test_trials_by_a_configuration_file(how: str, gpus: int, own_directory: Path, record_property: Record) -> None:
    trials = gpus_there() // gpus + 1  # the last one finds workers that have trained
    result = sharded.experiment(how, gpus).sweep(trials=trials, searcher="random", trial_scheduler="fifo", gpu=1.0)
    assert [trial.failure for trial in result.trials] == [None] * trials
    lost = [trial.workers_lost for trial in result.trials if trial.workers_lost]
    record_property("workers lost", " ".join(lost) or "none")
    if how == "zero3":  # DeepSpeed keeps its buffers
        assert lost
        assert all("of GPU memory are still allocated" in why for why in lost)
    else:
        assert sum(bool(trial.warm_start) for trial in result.trials) == 1, lost
    reports = [reports_of(trial.path) for trial in result.trials]
    losses = [[report["loss"] for report in each] for each in reports]
    record_property("losses", f"{losses[0][0]:.2f} to {losses[0][-1]:.2f}")
    assert losses[0][-1] < losses[0][0] - 0.3
    assert losses[0] == pytest.approx(losses[-1], rel=0.05), "a warm trial trains as the first one did"
    share = {"fsdp2": 1 / gpus, "zero3": 1 / gpus}.get(how, 1.0)
    assert reports[0][-1]["share"] == pytest.approx(share, rel=0.05), "of the parameters, in a rank"
    assert reports[0][-1]["precision"] == "bf16"


@pytest.mark.gpus(2)
@pytest.mark.parametrize(("saved_by", "gpus"), [(2, 1), (1, 2), (4, 2), (2, 4)])
@pytest.mark.parametrize("how", ["fsdp2"])
def test_a_sharded_checkpoint_is_restored_on_another_number_of_gpus(
    how: str, saved_by: int, gpus: int, tmp_path: Path, record_property: Record
) -> None:
    if saved_by > gpus_there():
        pytest.skip(f"needs {saved_by} GPUs")
    first = sharded.trainer(how, saved_by, run_config=RunConfig(name="first", storage_path=str(tmp_path))).fit()
    third = checkpoints_of(first.path)[0]
    parts = [path.name for path in Path(third.path).rglob("*.distcp")]
    assert len([name for name in parts if name.startswith("__")]) >= 2 * saved_by, "model and optimizer, by each rank"
    again = sharded.trainer(
        how, gpus, run_config=RunConfig(name="again", storage_path=str(tmp_path)), resume_from_checkpoint=third
    ).fit()
    assert again.metrics["step"] == first.metrics["step"]
    record_property("last loss", f"{first.metrics['loss']:.4f}, {again.metrics['loss']:.4f}")
    # Seen: 0.2 % apart. With the model alone and a new optimizer it is 0.6 %.
    assert again.metrics["loss"] == pytest.approx(first.metrics["loss"], rel=0.004)


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("how", HOW)
def test_by_arguments_of_transformers(how: str, gpus: int, tmp_path: Path, record_property: Record) -> None:
    def trained(name: str, steps: int, **options: Any) -> Any:
        return TransformersTrainer(
            sharded.train_function,
            trainer_init_config={"how": how, "steps": steps},
            scaling_config=ScalingConfig(num_workers=gpus, use_gpu=True),
            run_config=RunConfig(name=name, storage_path=str(tmp_path)),
            **options,
        ).fit()

    first = trained("first", sharded.SAVED_AT)
    again = trained("again", 2 * sharded.SAVED_AT, resume_from_checkpoint=first.checkpoint)
    assert (first.metrics["step"], again.metrics["step"]) == (sharded.SAVED_AT, 2 * sharded.SAVED_AT)
    record_property("losses", f"{first.metrics['loss']:.2f}, {again.metrics['loss']:.2f}")
    assert again.metrics["loss"] < first.metrics["loss"] - 0.2, "with new weights it is not 0.01 less"
    assert len(checkpoints_of(again.path)) == 1, "it went on from what was saved: the third step was not made again"


def reports_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path, "result.json").read_text().splitlines()]


def checkpoints_of(path: str) -> list[Any]:
    from ray.train import Checkpoint

    return [Checkpoint(str(each)) for each in sorted(Path(path).glob("checkpoint_*")) if each.is_dir()]


def gpus_there() -> int:
    import torch

    return int(torch.cuda.device_count())
