"""A small decoder in a loop written with Accelerate, however its configuration spreads it over the ranks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ray.train
from ray import tune
from ray.train import Checkpoint, ScalingConfig

from hfsuite import AccelerateTrainer, Experiment

CONFIGURATIONS = Path(__file__).parent / "configurations"
ROWS_A_STEP, TOKENS, SAVED_AT = 16, 64, 3
DEFAULTS = {"lr": 1e-3, "steps": 6, "mixed_precision": "bf16"}


def decoder() -> Any:
    """2.6 M parameters, the same each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, vocab_size=256,
        )
    )  # fmt: skip


def rows(steps: int) -> Any:
    """Rows of tokens with a pattern in them that can be learnt."""
    import torch

    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(0, 256, (ROWS_A_STEP * steps, 1), generator=generator)
    return (starts + torch.arange(TOKENS) * 3) % 256


def loop(settings: dict[str, Any]) -> None:
    """A report after each step, with the state of all ranks after the third and the last."""
    import torch
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    accelerator = Accelerator()
    context = ray.train.get_context()
    model = decoder()
    whole = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"])
    loader = DataLoader(rows(settings["steps"]), ROWS_A_STEP // context.get_world_size())
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    first = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as directory:
            accelerator.load_state(directory)
        first = SAVED_AT
        loader = accelerator.skip_first_batches(loader, first)
    for step, tokens in enumerate(loader, start=first + 1):
        loss = model(input_ids=tokens, labels=tokens).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": float(accelerator.reduce(loss.detach().float(), "mean")), "step": step,
                   "share": held(model) / whole, "precision": accelerator.mixed_precision}  # fmt: skip
        kept = None
        if step in (SAVED_AT, settings["steps"]):
            accelerator.save_state("state")
            accelerator.wait_for_everyone()
            if context.get_local_rank() == 0:  # the folder has what all ranks of this node wrote
                kept = Checkpoint.from_directory("state")
        ray.train.report(metrics, checkpoint=kept, delete_local_checkpoint_after_upload=True)
        accelerator.wait_for_everyone()


def held(model: Any) -> int:
    """How many of a model's parameters this rank holds between two steps."""
    count = 0
    for parameter in model.parameters():
        if hasattr(parameter, "ds_tensor"):  # ZeRO-3
            count += parameter.ds_tensor.numel()
        elif hasattr(parameter, "to_local"):  # FSDP 2
            count += parameter.to_local().numel()
        else:
            count += parameter.numel()
    return count


def trainer(configuration: str, gpus: int, **options: Any) -> AccelerateTrainer:
    """A training by one of the configuration files."""
    return AccelerateTrainer(
        loop,
        train_loop_config=DEFAULTS,
        accelerate_config=CONFIGURATIONS / f"{configuration}.yaml",
        scaling_config=ScalingConfig(num_workers=gpus, use_gpu=True),
        **options,
    )


def experiment(configuration: str, gpus: int) -> Experiment:
    """Sweeps of such trainings."""
    return Experiment(
        name=configuration,
        trainer=trainer(configuration, gpus),
        space={"lr": tune.uniform(1e-3, 1.1e-3)},
        metric="loss",
        mode="min",
        defaults=DEFAULTS,
    )


def train_function(train_dataset: None, eval_dataset: None, *, how: str, steps: int, **arguments: Any) -> Any:
    """The same for a `TransformersTrainer`, by arguments of Transformers' own."""
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    tokens = rows(32).tolist()
    world_size = ray.train.get_context().get_world_size()
    shutil.rmtree("out", ignore_errors=True)
    return Trainer(
        model=decoder(),
        args=TrainingArguments(
            "out", max_steps=steps, logging_strategy="steps", save_strategy="steps", logging_steps=SAVED_AT,
            save_steps=SAVED_AT, per_device_train_batch_size=ROWS_A_STEP // world_size, learning_rate=1e-3, bf16=True,
            report_to=[], disable_tqdm=True, lr_scheduler_type="constant", **ARGUMENTS[how], **arguments,
        ),
        train_dataset=Dataset.from_dict({"input_ids": tokens, "labels": tokens}),
    )  # fmt: skip


def _zero(stage: int) -> dict[str, Any]:
    return {
        "deepspeed": {
            "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
            "bf16": {"enabled": True},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "train_batch_size": "auto",
            "gradient_clipping": "auto",
        }
    }


ARGUMENTS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp2": {"fsdp": "full_shard auto_wrap", "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}},
    "zero2": _zero(2),
    "zero3": _zero(3),
}
