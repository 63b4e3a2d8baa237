"""Where checkpoints go that Transformers writes: to a hub that nobody reaches, to folders of a user's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, TrainingArguments

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import ConfigurationError
from hfsuite.ranks.reporting import check_arguments
from tests.trainers.kinds import in_ranks, outputs
from tests.trainers.training import checkpoints, transformers_trainer

LOGGED = {"logging_strategy": "epoch", "save_strategy": "no", "use_cpu": True, "report_to": []}


def function(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
    return outputs.absolute_elsewhere(**config)


def weights_in(directory: Path) -> list[Path]:
    return sorted(directory.rglob("model.safetensors"))


@pytest.mark.parametrize("folder", ["out", "a/b", "./out", "a/../out"])
def test_folders_in_the_working_directory_are_taken(own_directory: Path, folder: str) -> None:
    for each in (folder, str(own_directory / folder)):
        check_arguments(TrainingArguments(each, **LOGGED), 1, is_trial=True)


@pytest.mark.parametrize("folder", ["../out", "a/../../out", "~/out", "/somewhere"])
def test_other_folders_are_refused_in_trials(own_directory: Path, folder: str) -> None:
    with pytest.raises(ConfigurationError, match="where all trials of a sweep would write over each other"):
        check_arguments(TrainingArguments(folder, **LOGGED), 1, is_trial=True)
    check_arguments(TrainingArguments(folder, **LOGGED), 1)


@pytest.mark.slow
def test_a_folder_that_a_user_chose_keeps_its_checkpoints_and_the_run_has_its_own(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    result = transformers_trainer(tmp_path, {"folder": str(chosen)}, function=function, workers=2).fit()
    assert sorted(each.name for each in chosen.iterdir()) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    stored = checkpoints(result.path)
    assert [manifest.verify(TransformersCheckpoint(each))["step"] for each in stored] == [1, 2, 3]
    for each, own in zip(stored, sorted(chosen.iterdir()), strict=True):
        assert Path(each, "model.safetensors").read_bytes() == Path(own, "model.safetensors").read_bytes()


@pytest.mark.slow
def test_trials_write_beside_each_other_and_one_that_cannot_push_costs_no_other(own_directory: Path) -> None:
    kinds = ["outputs.relative", "outputs.absolute_here", "outputs.pushing", "outputs.beside"]
    trials = in_ranks.swept(kinds)
    assert {kind: str(trial.state) for kind, trial in trials.items()} == {
        "outputs.relative": "completed", "outputs.absolute_here": "completed", "outputs.pushing": "failed",
        "outputs.beside": "failed",
    }  # fmt: skip
    assert "offline mode is enabled" in (trials["outputs.pushing"].failure or "")
    assert "`output_dir` is outside of the working directory" in (trials["outputs.beside"].failure or "")
    for kind in kinds[:2]:
        assert trials[kind].checkpoint is not None
        trials[kind].checkpoint.get_model(AutoModelForSequenceClassification)
    kept = {Path(trial.checkpoint.path, "model.safetensors") for trial in trials.values() if trial.checkpoint}
    assert set(weights_in(own_directory / "results")) == kept, "nothing else is left"
