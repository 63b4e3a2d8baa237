"""A kept checkpoint of a Transformers model is loaded from MLflow, and from its folder there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pytest

from hfsuite import TransformersCheckpoint
from hfsuite.checkpoints.base_model import save_beside
from hfsuite.tracking import store
from hfsuite.tracking.record import Snapshot
from hfsuite.tracking.sync import sync
from tests.tiny import tiny_model
from tests.tracking import made


def saved_model(keep: str = "best") -> tuple[Any, Path, Any]:
    """A sweep whose one trial has kept a checkpoint as Transformers writes it: model, folder, MLflow's model."""
    directory, _ = made.sweep(arguments={"keep": keep})
    record = made.trial(directory, 0, [made.report(1, 10, 0.25)])
    folder = Path(directory.path, "trial_000", "checkpoint_one")
    model = tiny_model()
    model.save_pretrained(folder)
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    TransformersCheckpoint.seal(folder)
    return model, folder, kept(directory, record)


def kept(directory: Any, record: Any) -> Any:
    """MLflow's model of the one checkpoint that a trial has kept."""
    snapshot = Snapshot(directory="checkpoint_one", step=10, metrics={}, timestamp=made.BEGAN * 1_000)
    made.keep(directory, record, snapshot)
    assert sync(directory).faults == []
    client = store.open_store()
    (experiment,) = [each for each in client.search_experiments() if each.name == "things"]
    (logged,) = client.search_logged_models([experiment.experiment_id])
    return logged


def loaded_by_mlflow(logged: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri())
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.tracking_uri())
    try:
        loaded: dict[str, Any] = mlflow.transformers.load_model(f"models:/{logged.model_id}", return_type="components")
    finally:
        mlflow.set_tracking_uri(before)
    return loaded


def same(one: Any, other: Any) -> bool:
    weights = other.state_dict()
    return all(bool((value == weights[name]).all()) for name, value in one.state_dict().items())


@pytest.mark.filterwarnings("ignore")  # MLflow's, of the libraries that it imports
@pytest.mark.parametrize("keep", ["best", pytest.param("reference", marks=pytest.mark.slow)])
def test_mlflow_loads_it(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, logged = saved_model(keep)
    loaded = loaded_by_mlflow(logged, monkeypatch)
    assert type(loaded["model"]).__name__ == "GPT2LMHeadModel"
    assert same(model, loaded["model"])


def test_its_folder_there_is_a_checkpoint_whose_bytes_exist_once() -> None:
    from transformers import AutoModelForCausalLM

    model, folder, logged = saved_model()
    there = Path(logged.artifact_location.removeprefix("file://"), "model")
    assert same(model, TransformersCheckpoint(there).get_model(AutoModelForCausalLM))
    assert os.stat(there / "model.safetensors").st_ino == os.stat(folder / "model.safetensors").st_ino
    assert not list(there.rglob("*.pt")), "no pickles"


def test_by_reference_nothing_is_copied() -> None:
    _, folder, logged = saved_model("reference")
    there = Path(logged.artifact_location.removeprefix("file://"))
    assert [path.name for path in there.rglob("*") if path.is_file()] == ["MLmodel"]
    assert f"local_base_model_path: {folder}" in (there / "MLmodel").read_text()


def saved_adapters(base: str, keep: str) -> tuple[Any, Any]:
    """A sweep whose one trial has kept adapters: the model with them, and MLflow's."""
    from peft import LoraConfig, get_peft_model

    directory, _ = made.sweep(arguments={"keep": keep})
    record = made.trial(directory, 0, [made.report(1, 10, 0.25)])
    folder = Path(directory.path, "trial_000", "checkpoint_one")
    below = tiny_model()
    if base == "named":
        below.save_pretrained("base")
        below = type(below).from_pretrained(os.path.abspath("base"))
    model = get_peft_model(below, LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True))
    for name, weights in model.named_parameters():
        weights.data += 0.1 * ("lora_" in name)
    model.save_pretrained(folder)
    save_beside(model, str(folder))
    TransformersCheckpoint.seal(folder)
    return model, kept(directory, record)


@pytest.mark.filterwarnings("ignore")  # MLflow's, of the libraries that it imports
@pytest.mark.parametrize("keep", ["best", "reference"])
@pytest.mark.parametrize("base", ["named", "bundled"])
def test_mlflow_loads_adapters_over_their_model(base: str, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, logged = saved_adapters(base, keep)
    there = Path(logged.artifact_location.removeprefix("file://"))
    is_copied = (there / "peft" / "base_model").is_dir()
    assert is_copied == (base == "bundled" and keep == "best"), "a model with a name is not saved again"
    loaded = loaded_by_mlflow(logged, monkeypatch)
    assert type(loaded["model"]).__name__ == "PeftModelForCausalLM"
    assert same(model, loaded["model"])
