"""AccelerateTrainer: a training loop written with Accelerate, in each worker as `accelerate launch` would start it."""

from __future__ import annotations

import copy
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.torch
import torch
import yaml
from accelerate import Accelerator
from ray.train import Checkpoint, RunConfig, ScalingConfig

from hfsuite.checkpoints import manifest
from hfsuite.report import FACTS_FILE
from hfsuite.trainers.accelerate import AccelerateTrainer

EPOCHS = 3
# What `accelerate config` wrote in the days of Ray 2.6: a user may still have it.
OLD_FILE = """\
compute_environment: LOCAL_MACHINE
deepspeed_config: {}
distributed_type: MULTI_CPU
downcast_bf16: 'no'
dynamo_config: {}
fsdp_config: {}
machine_rank: 0
main_process_ip: ''
main_process_port: 1
main_training_function: main
megatron_lm_config: {}
mixed_precision: 'no'
num_machines: 2
num_processes: 1
rdzv_backend: static
same_network: false
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: true
"""


class OwnBatches(torch.utils.data.BatchSampler):
    """A user's own, of which nobody knows what it draws."""


def linear_regression(config: dict[str, Any]) -> None:
    """Fits y = 2x + 1 on this worker's half or whole of 32 points; a checkpoint each epoch."""
    context = ray.train.get_context()
    accelerator = Accelerator()
    assert accelerator.device == ray.train.torch.get_device()
    assert accelerator.process_index == context.get_world_rank()
    assert accelerator.num_processes == context.get_world_size()
    assert accelerator.local_process_index == context.get_local_rank()
    assert accelerator.mixed_precision == config["mixed_precision"]

    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x + 1), batch_size=4)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.prepare(torch.utils.data.DataLoader(range(8), batch_sampler=OwnBatches(range(8), 2, drop_last=True)))
    for epoch in range(EPOCHS):
        losses = []
        for inputs, targets in loader:
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        metrics = {
            "loss": accelerator.gather(torch.stack(losses)).mean().item(),
            "epoch": epoch + 1,
            "batches": len(loader),
        }
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = None
            if accelerator.is_main_process:
                torch.save(accelerator.unwrap_model(model).state_dict(), Path(directory) / "model.pt")
                checkpoint = Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=checkpoint)


def loop_without_argument() -> None:
    """Reports what Accelerate and the run know, and never a checkpoint."""
    start = ray.train.get_checkpoint()
    started_from = Path(start.path, "step.txt").read_text() if start else None
    ray.train.report({"processes": Accelerator().num_processes, "started_from": started_from})


def accelerate_trainer(directory: Path, config: Any, *, workers: int = 1, **arguments: Any) -> AccelerateTrainer:
    return AccelerateTrainer(
        arguments.pop("loop", loop_without_argument),
        accelerate_config=config,
        scaling_config=arguments.pop("scaling_config", ScalingConfig(num_workers=workers)),
        run_config=RunConfig(name="run", storage_path=str(directory)),
        **arguments,
    )


def as_yaml(directory: Path) -> Path:
    (directory / "old.yaml").write_text(OLD_FILE)
    return directory / "old.yaml"


def as_json(directory: Path) -> str:
    (directory / "bf16.json").write_text(json.dumps({"distributed_type": "MULTI_CPU", "mixed_precision": "bf16"}))
    return str(directory / "bf16.json")


@pytest.mark.parametrize(
    ("source", "workers", "mixed_precision"),
    [
        pytest.param(lambda directory: {}, 1, "no", id="empty-1", marks=pytest.mark.slow),
        pytest.param(lambda directory: {}, 2, "no", id="empty-2", marks=pytest.mark.slow),
        pytest.param(as_yaml, 1, "no", id="old_yaml-1", marks=pytest.mark.slow),
        pytest.param(as_yaml, 2, "no", id="old_yaml-2", marks=pytest.mark.slow),
        pytest.param(as_json, 2, "bf16", id="json-2", marks=pytest.mark.slow),
        pytest.param(lambda directory: {"mixed_precision": "bf16"}, 1, "bf16", id="dict-1", marks=pytest.mark.slow),
    ],
)
def test_loss_falls_and_accelerate_agrees_with_ray(
    tmp_path: Path, source: Any, workers: int, mixed_precision: str
) -> None:
    trainer = accelerate_trainer(
        tmp_path,
        source(tmp_path),
        workers=workers,
        loop=linear_regression,
        train_loop_config={"mixed_precision": mixed_precision},
    )
    result = trainer.fit()
    reports = [metrics for _, metrics in result.best_checkpoints]
    losses = [report["loss"] for report in reports]
    assert len(losses) == EPOCHS
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert result.metrics["training_iteration"] == EPOCHS
    assert result.metrics["batches"] == 8 // workers  # Accelerate splits the data between the workers
    assert result.metrics["loss"] == losses[-1]
    assert manifest.verify(result.checkpoint)["world_size"] == workers
    assert torch.load(Path(result.checkpoint.path, "model.pt"))["weight"].item() > 0
    depends = json.loads(Path(result.path, FACTS_FILE).read_text())["rows_depend_on"]
    assert depends is None if workers == 1 else "`batch_sampler`" in depends


@pytest.mark.slow
def test_loop_may_take_nothing_and_report_no_checkpoint(tmp_path: Path) -> None:
    result = accelerate_trainer(tmp_path, {}, workers=2).fit()
    assert result.metrics == {"processes": 2, "started_from": None, "training_iteration": 1}
    assert result.checkpoint is None


@pytest.mark.slow
def test_loop_sees_the_checkpoint_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "step.txt").write_text("42")
    checkpoint = Checkpoint.from_directory(tmp_path / "saved")
    manifest.seal(checkpoint, {}, world_size=1)
    result = accelerate_trainer(tmp_path, {}, resume_from_checkpoint=checkpoint).fit()
    assert result.metrics["started_from"] == "42"


def test_loop_cannot_need_two_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 2 arguments: config, model"):
        accelerate_trainer(tmp_path, {}, loop=lambda config, model: None)


# ---- the configuration, on the driver


def test_default_file_of_accelerate_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "default_config.yaml"
    monkeypatch.setattr("accelerate.commands.config.default_config_file", str(file))
    assert accelerate_trainer(tmp_path, None).accelerate_config.settings["mixed_precision"] == "no"
    file.write_text("mixed_precision: fp16\n")
    assert accelerate_trainer(tmp_path, None).accelerate_config.settings["mixed_precision"] == "fp16"


@pytest.mark.parametrize(
    "name", ["absent.yaml", "absent.json", "broken.yaml", "broken.json", "list.yaml", "a_directory"]
)
def test_file_that_cannot_be_read_is_named_at_construction(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "a_directory").mkdir()
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            accelerate_trainer(tmp_path, path)


def test_unknown_setting_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no setting 'mixed_precison'\. Did you mean 'mixed_precision'"):
        accelerate_trainer(tmp_path, {"mixed_precison": "bf16"})


def test_unknown_setting_of_a_trial_gets_a_suggestion(tmp_path: Path) -> None:
    trainer = accelerate_trainer(tmp_path, {})
    with pytest.raises(ValueError, match=r"no setting 'mixed_precison'\. Did you mean 'mixed_precision'"):
        trainer.with_settings({"accelerate_config": {"mixed_precison": "bf16"}})


@pytest.mark.parametrize("kind", ["FSDP", "MEGATRON_LM", "DEEPSPEED"])
def test_what_accelerate_would_ignore_on_cpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    with pytest.raises(ValueError, match=f"{kind}, but the workers are on CPU"):
        accelerate_trainer(tmp_path, {"distributed_type": kind})
    accelerate_trainer(tmp_path, {"distributed_type": kind}, scaling_config=ScalingConfig(num_workers=2, use_gpu=True))


def test_deepspeed_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(ImportError, match="pip install deepspeed"):
        accelerate_trainer(tmp_path, {"distributed_type": "DEEPSPEED"})


@pytest.mark.parametrize(
    "config", [{"distributed_type": "XLA"}, {"distributed_type": "TPU"}, {"compute_environment": "AMAZON_SAGEMAKER"}]
)
def test_tpu_and_sagemaker_are_not_supported(tmp_path: Path, config: dict[str, str]) -> None:
    with pytest.raises(NotImplementedError):
        accelerate_trainer(tmp_path, config)


def test_callers_configuration_is_not_changed(tmp_path: Path) -> None:
    config = yaml.safe_load(OLD_FILE)
    before = copy.deepcopy(config)
    trainer = accelerate_trainer(tmp_path, config)
    trainer.with_settings(
        {"accelerate_config": {"mixed_precision": "bf16", "dynamo_config": {"dynamo_backend": "EAGER"}}}
    )
    assert config == before
    assert trainer.accelerate_config.settings["mixed_precision"] == "no"


def test_overridden_settings_are_named_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = accelerate_trainer(tmp_path, as_yaml(tmp_path))
    trainer.with_settings({"scaling_config": {"num_workers": 2}})
    warnings = [record.getMessage() for record in caplog.records if "Ray decides these itself" in record.getMessage()]
    assert len(warnings) == 1
    assert "num_machines=2, main_process_port=1, same_network=False" in warnings[0]
    for kept in ("mixed_precision", "main_process_ip", "rdzv_backend", "use_cpu", "num_processes"):
        assert kept not in warnings[0]

    caplog.clear()
    accelerate_trainer(tmp_path, {"mixed_precision": "bf16", "num_processes": 1})
    assert not caplog.records
    accelerate_trainer(tmp_path, {"use_cpu": True}, scaling_config=ScalingConfig(num_workers=1, use_gpu=True))
    assert "use_cpu=True" in caplog.text


def test_an_accelerate_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.34.2")
    with pytest.raises(ImportError, match=r"accelerate 1\.10 or newer on every node, found 0\.34\.2: pip install"):
        accelerate_trainer(tmp_path, {})


@pytest.fixture
def environment() -> Any:
    """The environment variables of this process, put back afterwards."""
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


def test_deepspeed_json_is_read_here_and_written_in_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    from hfsuite.ranks import accelerate_environment

    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    contents = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 4}
    file = tmp_path / "zero2.json"
    file.write_text(json.dumps(contents))
    config = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": str(file)}}
    trainer = accelerate_trainer(tmp_path, config, scaling_config=ScalingConfig(num_workers=2, use_gpu=True))
    file.unlink()  # the worker's machine does not have it
    assert trainer.accelerate_config.deepspeed == contents

    (tmp_path / "scratch").mkdir()
    ranks = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    environment.update(ranks)
    environment.pop("OMP_NUM_THREADS", None)
    accelerate_environment.apply(
        trainer.accelerate_config, world_size=2, rank=1, use_cpu=False, cpus=3, directory=str(tmp_path / "scratch")
    )
    written = Path(environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"])
    assert written.parent == tmp_path / "scratch"
    assert json.loads(written.read_text()) == contents
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert {name: environment[name] for name in ranks} == ranks

    with pytest.raises(ValueError, match=str(file)):
        accelerate_trainer(tmp_path, config, scaling_config=ScalingConfig(num_workers=2, use_gpu=True))


@pytest.mark.parametrize("configuration", ["ddp", "fsdp2", "zero2", "zero3"])
def test_the_process_group_may_be_there_already(
    configuration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """`accelerate launch` starts the ranks, and refuses a port at which somebody listens: here rank 0 does."""
    from hfsuite.ranks import accelerate_environment

    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    file = Path(__file__).parents[1] / "gpu" / "configurations" / f"{configuration}.yaml"
    scaling_config = ScalingConfig(num_workers=2, use_gpu=True)
    trainer = AccelerateTrainer(lambda: None, accelerate_config=file, scaling_config=scaling_config)
    with socket.create_server(("127.0.0.1", 0)) as rank_zero:
        ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(rank_zero.getsockname()[1]), "RANK": "0"}
        environment.update(ranks)
        accelerate_environment.apply(
            trainer.accelerate_config, world_size=2, rank=0, use_cpu=False, cpus=1, directory=str(tmp_path)
        )
    assert {name: environment[name] for name in ranks} == ranks
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert environment.get("ACCELERATE_USE_FSDP", "false") == str(configuration == "fsdp2").lower()
    assert environment.get("ACCELERATE_USE_DEEPSPEED", "false") == str(configuration.startswith("zero")).lower()
