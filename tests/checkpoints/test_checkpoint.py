"""TransformersCheckpoint: what goes in comes out, and nothing incomplete is ever resumed from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.data
import torch
from pyarrow.fs import LocalFileSystem
from ray.data.preprocessors import StandardScaler
from ray.train import Checkpoint
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import CheckpointError
from tests.tiny import tiny_model
from tests.trainers.training import ray_datasets, transformers_trainer


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


@pytest.fixture
def saved(tmp_path: Path) -> TransformersCheckpoint:
    return TransformersCheckpoint.from_model(tiny_model(), path=tmp_path / "saved")


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- contents


def test_model_tokenizer_and_preprocessor_come_back(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    scaler = StandardScaler(columns=["x"]).fit(ray.data.from_items([{"x": 1.0}, {"x": 3.0}]))
    checkpoint = TransformersCheckpoint.from_model(model, tokenizer, path=tmp_path / "saved", preprocessor=scaler)

    assert same_weights(checkpoint.get_model(AutoModelForCausalLM), model)
    stored_tokenizer = checkpoint.get_tokenizer(PreTrainedTokenizerFast)
    assert stored_tokenizer("hello there world")["input_ids"] == [1, 0, 2]
    stored_scaler = checkpoint.get_preprocessor()
    assert stored_scaler is not None
    assert stored_scaler.stats_ == scaler.stats_
    assert manifest.verify(checkpoint)["files"].keys() >= {"model.safetensors", "tokenizer.json", "preprocessor.pkl"}


def test_what_was_not_stored_is_none(saved: TransformersCheckpoint) -> None:
    assert saved.get_training_arguments() is None
    assert saved.get_preprocessor() is None


def test_keywords_reach_from_pretrained(saved: TransformersCheckpoint) -> None:
    assert saved.get_model(AutoModelForCausalLM, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_any_torch_module_is_filled_with_its_weights(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    checkpoint = TransformersCheckpoint.from_model(module, path=tmp_path / "saved")
    empty = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert not same_weights(empty, module)
    filled = checkpoint.get_model(empty)
    assert filled is empty
    assert same_weights(filled, module)


def test_saved_weights_are_safetensors_only(saved: TransformersCheckpoint) -> None:
    files = set(os.listdir(saved.path))
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_checkpoint_of_a_run_has_its_arguments_and_safetensors(tmp_path: Path) -> None:
    config = {"epochs": 1, "learning_rate": 3e-4, "weight_decay": 0.05}
    checkpoint = transformers_trainer(tmp_path, config, datasets=ray_datasets()).fit().checkpoint

    arguments = checkpoint.get_training_arguments()
    assert isinstance(arguments, TrainingArguments)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.num_train_epochs) == (3e-4, 0.05, 1)
    files = set(os.listdir(checkpoint.path))
    assert "model.safetensors" in files
    assert {name for name in files if name.endswith((".bin", ".pkl"))} == {"training_args.bin"}
    assert checkpoint.get_model(AutoModelForCausalLM).config.n_embd == 16
    assert manifest.verify(checkpoint)["step"] == 2


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_training_arguments_cannot_run_code(tmp_path: Path, saved: TransformersCheckpoint) -> None:
    torch.save(RunsCode(tmp_path / "ran"), Path(saved.path) / "training_args.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        saved.get_training_arguments()
    assert not (tmp_path / "ran").exists()


# ---- completeness


def remove(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def change_a_byte(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)


@pytest.mark.parametrize("damage", [remove, truncate, change_a_byte])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_checkpoint_is_refused_by_file_name(
    tmp_path: Path, saved: TransformersCheckpoint, damage: Callable[[Path], None], name: str
) -> None:
    transformers_trainer(tmp_path, {}, resume_from=saved)
    damage(Path(saved.path) / name)
    with pytest.raises(CheckpointError, match=name) as raised:
        transformers_trainer(tmp_path, {}, resume_from=saved)
    assert saved.path in str(raised.value)


def test_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path, saved: TransformersCheckpoint) -> None:
    Path(saved.path, "optimizer.pt").write_bytes(b"of another run")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
        transformers_trainer(tmp_path, {}, resume_from=saved)


def test_ray_metadata_may_be_added_to_a_complete_checkpoint(saved: TransformersCheckpoint) -> None:
    saved.set_metadata({"note": "the best one"})
    manifest.verify(saved)


def test_all_differences_are_named(saved: TransformersCheckpoint) -> None:
    remove(Path(saved.path, "config.json"))
    truncate(Path(saved.path, "model.safetensors"))
    with pytest.raises(CheckpointError) as raised:
        manifest.verify(saved)
    assert "config.json is missing" in str(raised.value)
    assert "model.safetensors has 11,576 bytes instead of 23,152" in str(raised.value)


def test_a_changed_byte_is_seen_in_any_block_of_a_file(
    saved: TransformersCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", 10_000)  # of 23,152 bytes
    manifest.seal(saved, {}, world_size=1)
    file = Path(saved.path, "model.safetensors")
    for at in (5, 15_000, 23_151):
        contents = bytearray(file.read_bytes())
        contents[at] ^= 1
        file.write_bytes(contents)
        with pytest.raises(CheckpointError, match=r"model\.safetensors has other contents"):
            manifest.verify(saved)
        contents[at] ^= 1
        file.write_bytes(contents)
        manifest.verify(saved)


@pytest.mark.parametrize("contents", [None, "", "{", '{"format": 2}', '{"files": []}', '{"format": 1, "files": {}}'])
def test_directory_without_a_readable_manifest_is_never_resumed(
    tmp_path: Path, saved: TransformersCheckpoint, contents: str | None
) -> None:
    file = Path(saved.path, "manifest.json")
    file.unlink() if contents is None else file.write_text(contents)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        transformers_trainer(tmp_path, {}, resume_from=Checkpoint(saved.path))


def test_sealing_declares_a_foreign_directory_complete(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "foreign")
    (tmp_path / "foreign" / "trainer_state.json").write_text('{"global_step": 7, "epoch": 3.5}')
    checkpoint = TransformersCheckpoint.seal(tmp_path / "foreign")
    stored = manifest.verify(checkpoint)
    assert (stored["step"], stored["epoch"]) == (7, 3.5)


# ---- the newest of a run


def add_to_run(run: Path, saved: Checkpoint, number: int, iteration: int) -> Path:
    directory = run / f"checkpoint_2026-01-01_00-00-00.00000{number}"
    shutil.copytree(saved.path, directory)
    manifest.seal(Checkpoint(str(directory)), {"training_iteration": iteration, "step": 10 * number}, world_size=1)
    return directory


def newest(run: Path) -> str | None:
    checkpoint = manifest.newest_complete(LocalFileSystem(), str(run))
    return checkpoint.path if checkpoint else None


def test_newest_complete_passes_over_an_incomplete_newer_one(tmp_path: Path, saved: TransformersCheckpoint) -> None:
    run = tmp_path / "run"
    first, second, third = (add_to_run(run, saved, number, number) for number in (1, 2, 3))
    assert newest(run) == str(third)
    (third / "manifest.json").unlink()
    truncate(second / "model.safetensors")
    assert newest(run) == str(first)


def test_a_damaged_checkpoint_is_named_and_an_older_one_taken(
    tmp_path: Path, saved: TransformersCheckpoint, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    first, second = (add_to_run(run, saved, number, number) for number in (1, 2))
    truncate(second / "model.safetensors")
    older = manifest.complete_or_older(Checkpoint(str(second)), LocalFileSystem(), str(run))
    assert older is not None
    assert older.path == str(first)
    assert "model.safetensors has" in caplog.text
    assert f"Going on from {first}" in caplog.text


def test_newest_is_the_last_one_written_although_a_restored_run_counts_from_one(
    tmp_path: Path, saved: TransformersCheckpoint
) -> None:
    run = tmp_path / "run"
    for number, iteration in ((1, 1), (2, 2), (3, 3)):
        add_to_run(run, saved, number, iteration)
    after_restore = add_to_run(run, saved, number=4, iteration=1)
    assert newest(run) == str(after_restore)


def test_run_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") is None
