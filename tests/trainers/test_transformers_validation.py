"""What TransformersTrainer refuses: on the driver at construction, in the workers before any training step."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from ray.train import ScalingConfig, TrainingFailedError
from transformers import Trainer, TrainerCallback, TrainingArguments

from hfsuite.errors import ConfigurationError, UnknownName
from hfsuite.ranks.reporting import check_arguments
from hfsuite.trainers.transformers import TransformersTrainer
from tests.tiny import train_function, train_function_local_dataset
from tests.trainers.training import ray_datasets, transformers_trainer

STRATEGIES = ["no", "steps", "epoch"]
ARGUMENTS: dict[str, Any] = {"output_dir": "tiny", "use_cpu": True, "logging_strategy": "epoch", "save_strategy": "no"}


@pytest.mark.parametrize(("logging", "evaluation", "saving"), list(itertools.product(STRATEGIES, repeat=3)))
def test_strategies_must_be_the_same_apart_from_no(logging: str, evaluation: str, saving: str) -> None:
    arguments = TrainingArguments(
        "tiny", use_cpu=True, logging_strategy=logging, eval_strategy=evaluation, save_strategy=saving
    )
    if logging != "no" and evaluation in ("no", logging) and saving in ("no", logging):
        check_arguments(arguments, 1)
        return
    with pytest.raises(ValueError) as raised:
        check_arguments(arguments, 1)
    message = str(raised.value)
    assert f"logging_strategy='{logging}', eval_strategy='{evaluation}', save_strategy='{saving}'" in message


@pytest.mark.parametrize(("save_steps", "logging_steps"), list(itertools.product([2, 3, 8, 12], repeat=2)))
def test_save_steps_must_be_a_multiple_of_logging_steps(save_steps: int, logging_steps: int) -> None:
    strategies = {"logging_strategy": "steps", "save_strategy": "steps"}
    arguments = TrainingArguments(
        "tiny", use_cpu=True, save_steps=save_steps, logging_steps=logging_steps, **strategies
    )
    if save_steps % logging_steps == 0:
        check_arguments(arguments, 1)
        return
    with pytest.raises(ValueError, match=f"save_steps={save_steps}, logging_steps={logging_steps}"):
        check_arguments(arguments, 1)


@pytest.mark.parametrize(("eval_steps", "logging_steps"), list(itertools.product([2, 3, 4], repeat=2)))
def test_eval_steps_must_equal_logging_steps(eval_steps: int, logging_steps: int) -> None:
    strategies = {"logging_strategy": "steps", "eval_strategy": "steps", "save_strategy": "no"}
    arguments = TrainingArguments(
        "tiny", use_cpu=True, eval_steps=eval_steps, logging_steps=logging_steps, **strategies
    )
    if eval_steps == logging_steps:
        check_arguments(arguments, 1)
        return
    with pytest.raises(ValueError, match=f"eval_steps={eval_steps}, logging_steps={logging_steps}"):
        check_arguments(arguments, 1)


def test_steps_do_not_matter_where_the_strategy_is_epoch_or_no() -> None:
    by_epoch = {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"}
    check_arguments(TrainingArguments("tiny", use_cpu=True, save_steps=3, eval_steps=5, logging_steps=7, **by_epoch), 1)
    only_logs = {"logging_strategy": "steps", "eval_strategy": "no", "save_strategy": "no"}
    check_arguments(
        TrainingArguments("tiny", use_cpu=True, save_steps=3, eval_steps=5, logging_steps=7, **only_logs), 1
    )


def test_best_model_at_end_is_refused() -> None:
    strategies = {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"}
    arguments = TrainingArguments("tiny", use_cpu=True, load_best_model_at_end=True, **strategies)
    with pytest.raises(ValueError, match="Leave out `load_best_model_at_end=True`"):
        check_arguments(arguments, 1)


def test_fsdp_on_cpu_is_refused() -> None:
    arguments = TrainingArguments(**ARGUMENTS)
    arguments.fsdp = ["full_shard"]
    with pytest.raises(ValueError, match="FSDP was asked for on CPU"):
        check_arguments(arguments, 1)


def test_arguments_that_overlook_the_other_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="sees 1 processes where the run has 2 workers"):
        check_arguments(TrainingArguments(**ARGUMENTS), 2)


def test_all_mistakes_are_told_at_once() -> None:
    arguments = TrainingArguments(
        "tiny",
        use_cpu=True,
        logging_strategy="steps",
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
    )
    with pytest.raises(ConfigurationError) as raised:
        check_arguments(arguments, 1)
    assert [fault.split("`")[1] for fault in raised.value.faults] == [
        "load_best_model_at_end=True",
        "save_steps",
        "eval_steps",
    ]


class LeavesAMark(TrainerCallback):  # type: ignore[misc]
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        Path(self.mark).touch()


def train_function_with_mark(train_dataset: Any, eval_dataset: Any = None, *, mark: str, **config: Any) -> Any:
    trainer = train_function(train_dataset, eval_dataset, **config)
    trainer.add_callback(LeavesAMark(mark))
    return trainer


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(
            {"load_best_model_at_end": True, "save_strategy": "epoch"},
            id="load_best_model_at_end",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"logging_strategy": "steps", "eval_strategy": "steps", "logging_steps": 2, "eval_steps": 1},
            id="eval_steps",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_fit_refuses_before_the_first_step(tmp_path: Path, refused: dict[str, Any]) -> None:
    mark = tmp_path / "a step was begun"
    config = {"epochs": 1, "mark": str(mark), **refused}
    trainer = transformers_trainer(tmp_path, config, function=train_function_with_mark, datasets=ray_datasets())
    with pytest.raises(TrainingFailedError) as raised:
        trainer.fit()
    assert isinstance(raised.value.__cause__, ValueError)
    assert list(refused)[0 if "save_strategy" in refused else -1] in str(raised.value.__cause__)
    assert not mark.exists()


# ---- on the driver


def test_function_needs_three_parameters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 3 arguments.* accepts 2"):
        transformers_trainer(tmp_path, {}, function=lambda train_dataset, eval_dataset: None)


def test_reserved_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'_trainer_init_per_worker' is a reserved key"):
        transformers_trainer(tmp_path, {"_trainer_init_per_worker": train_function})


def test_other_datasets_are_refused_by_name(tmp_path: Path) -> None:
    datasets = ray_datasets()
    with pytest.raises(ValueError, match=r"\['validation'\]"):
        transformers_trainer(tmp_path, {}, datasets={"train": datasets["train"], "validation": datasets["evaluation"]})


def with_gpus(gpus: float) -> TransformersTrainer:
    scaling_config = ScalingConfig(num_workers=2, use_gpu=True, resources_per_worker={"CPU": 1, "GPU": gpus})
    return TransformersTrainer(train_function, scaling_config=scaling_config)


def test_one_gpu_a_worker_is_all_that_transformers_can_use() -> None:
    assert with_gpus(1).scaling_config.num_gpus_per_worker == 1
    with pytest.raises(ValueError, match="2 GPUs per worker"):
        with_gpus(2)
    with pytest.raises(ValueError, match=r"1\.5 GPUs per worker"):
        with_gpus(1.5)


def test_part_of_a_gpu_must_be_asked_for_as_a_trial() -> None:
    with pytest.raises(ValueError, match=r"0\.5 GPUs per worker.*param_space"):
        with_gpus(0.5)
    half = {"scaling_config": {"resources_per_worker": {"CPU": 1, "GPU": 0.5}}}
    with pytest.raises(ConfigurationError, match=r"2 workers with 0\.5 GPUs each may share one, which NCCL refuses"):
        with_gpus(1).with_settings(half)
    half["scaling_config"]["num_workers"] = 1
    assert with_gpus(1).with_settings(half).scaling_config.num_gpus_per_worker == 0.5
    two = {"scaling_config": {"resources_per_worker": {"CPU": 1, "GPU": 2}}}
    with pytest.raises(ValueError, match="2 GPUs per worker"):
        with_gpus(1).with_settings(two)


def test_local_mode_has_no_ray_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_workers=0"):
        transformers_trainer(tmp_path, {}, workers=0, datasets=ray_datasets())


def test_a_trial_cannot_set_what_is_not_a_setting(tmp_path: Path) -> None:
    trainer = transformers_trainer(tmp_path, {})
    with pytest.raises(UnknownName, match="Did you mean 'trainer_init_config'"):
        trainer.with_settings({"trainer_init_confg": {}})
    with pytest.raises(UnknownName, match="num_wokers"):
        trainer.with_settings({"scaling_config": {"num_wokers": 2}})


def untrained(**_: Any) -> Trainer:
    return train_function_local_dataset(None, None)


def trained() -> Trainer:
    trainer = train_function_local_dataset(None, None, epochs=1)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda: None, r"init must return a transformers\.Trainer, got None\. Does it end with `return trainer`\?"),
        (lambda: (untrained(), 3), "got tuple. Return the Trainer alone"),
        (lambda: Trainer, r"got the class Trainer\. Return Trainer\(\.\.\.\)"),
        (lambda: {"trainer": 1}, "got dict"),
        (trained, "has trained [0-9]+ steps already: return it before it trains"),
    ],
    ids=["nothing", "a pair", "a class", "a dict", "trained"],
)
def test_what_is_no_untrained_trainer_is_refused(tmp_path: Path, returned: Any, message: str) -> None:
    def init(train_dataset: None, eval_dataset: None, **_: Any) -> Any:
        return returned()

    with pytest.raises(ConfigurationError, match=message):
        transformers_trainer(tmp_path, {}, workers=0, function=init).fit()


def test_the_loop_of_the_other_trainer_is_refused() -> None:
    def loop(config: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match="AccelerateTrainer takes a training loop of"):
        TransformersTrainer(loop, scaling_config=ScalingConfig(num_workers=1))
