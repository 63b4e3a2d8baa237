"""Trainings as users write them, one a kind: built alike in the ranks of a trial and in one process without hfsuite."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
import torch
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfsuite import Experiment, TransformersTrainer
from hfsuite.sweeps.result import SweepResult, TrialResult
from hfsuite.tracking import store

GLOBAL_BATCH = 4
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "max_position_embeddings": 40}  # fmt: skip
UNDROPPED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OF_SPEED = ("runtime", "per_second")


def world_size() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def options(**more: Any) -> dict[str, Any]:
    """Arguments of a training in global batches of four rows, each step reported; rows come in their order."""
    return {
        "output_dir": "out", "per_device_train_batch_size": GLOBAL_BATCH // world_size(), "max_steps": 3,
        "per_device_eval_batch_size": 16 // world_size(), "logging_strategy": "steps", "logging_steps": 1,
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "seed": 3, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential", **more,
    }  # fmt: skip


def arguments(**more: Any) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(**options(**more))


def tokenizer() -> Any:
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "[EOS]": 3, **{str(each): each for each in range(4, 50)}}
    whole = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )


# ---- a kind is a function of a module of this package, called MODULE.FUNCTION


def kind_named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return found


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, *, kind: str, seed: int, **more: Any) -> Any:
    torch.manual_seed(0)
    return kind_named(kind)(**more)


def experiment(kinds: list[str], metric: str = "eval_loss", workers: int = 2, mode: str = "min", **more: Any) -> Any:
    """Each kind is a trial."""
    return Experiment(
        name="kinds",
        trainer=TransformersTrainer(
            trainer_init_per_worker,
            scaling_config=ScalingConfig(num_workers=workers),
            torch_config=TorchConfig(timeout_s=120),  # what hangs fails
        ),
        space={"kind": tune.grid_search(kinds)},
        metric=metric,
        mode=mode,  # type: ignore[arg-type]
        defaults={"kind": kinds[0], "seed": 0, **more},
    )


def swept(kinds: list[str], name: str = "kinds", **more: Any) -> dict[str, TrialResult]:
    """Trials by their kinds, one after another in the same workers."""
    result: SweepResult = experiment(kinds, **more).sweep(searcher="grid", trial_scheduler="fifo", name=name)
    return {trial.config["kind"]: trial for trial in result.trials}


def reports_of(trial: TrialResult) -> list[dict[str, Any]]:
    lines = Path(trial.path, "result.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def said_by(trial: TrialResult, rank: int = 0) -> str:
    return Path(trial.path, f"rank_{rank}.log").read_text()


# ---- without hfsuite


@ray.remote(num_cpus=1)
class Plain:
    """One process in which Transformers trains alone."""

    def trained(self, kind: str, directory: str) -> list[dict[str, Any]]:
        """What is logged at each step, joined."""
        from accelerate.state import AcceleratorState, GradientState, PartialState

        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.makedirs(directory, exist_ok=True)
        os.chdir(directory)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        trainer = kind_named(kind)()
        trainer.train()
        found: dict[int, dict[str, Any]] = {}
        for each in trainer.state.log_history:
            found[each["step"]] = found.get(each["step"], {}) | each
        return [found[step] for step in sorted(found)]


def comparable(logged: dict[str, Any], inside: str = "") -> dict[str, float]:
    """The losses and metrics of a report, or of what Transformers logged; nested ones by names with dots."""
    found: dict[str, float] = {}
    for name, value in logged.items():
        if isinstance(value, dict) and (inside or name.startswith("eval_")):
            found |= comparable(value, f"{inside}{name}.")
        elif (inside or name in ("loss", "grad_norm") or name.startswith("eval_")) and not name.endswith(OF_SPEED):
            found[inside + name] = value
    return {name: each for name, each in found.items() if isinstance(each, int | float)}


def values_of(futures: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(futures, ray.get(list(futures.values())), strict=True))


def assert_same(reports: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    """All losses and metrics, at every step."""
    alone = [each for each in alone if comparable(each)]
    assert [each["step"] for each in reports] == [each["step"] for each in alone]
    for here, there in zip(map(comparable, reports), map(comparable, alone), strict=True):
        here, there = ({name: each for name, each in one.items() if "preparation" not in name} for one in (here, there))
        assert here == pytest.approx(there, rel=1e-4, abs=1e-6, nan_ok=True)


class Compared(NamedTuple):
    """Kinds as trials of two workers, and some of them as Transformers trains them alone in one process."""

    trials: dict[str, TrialResult]
    alone: dict[str, Any]
    tags: dict[str, dict[str, str]]  # of the trials' runs


def compared(kinds: list[str], same: list[str], directory: Path) -> Compared:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        plain = Plain.remote()  # type: ignore[attr-defined]
        alone = {kind: plain.trained.remote(kind, str(directory / kind)) for kind in kinds if kind in same}
        trials, client = swept(kinds), store.open_store()
        tags = {kind: client.get_run(trial.run_id).data.tags for kind, trial in trials.items()}
        found = Compared(trials, values_of(alone), tags)
        ray.kill(plain)
    return found


def marked(kinds: list[str], usual: list[str]) -> list[object]:
    """Parameters of a test: those that are not tried each time are slow."""
    return [pytest.param(kind, marks=() if kind in usual else pytest.mark.slow) for kind in kinds]
