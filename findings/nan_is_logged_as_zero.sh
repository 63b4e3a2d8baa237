#!/usr/bin/env bash
# transformers.Trainer: a training whose loss is NaN is logged with loss 0.0, the best loss there is.
#
# Most would guess: a diverged training shows NaN.
# Seen: the learning rate is infinite, so all weights are NaN after the first step: logged are 0.69, then 0.0, 0.0, 0.0,
#   and a `train_loss` that looks like progress. `logging_nan_inf_filter` is on by default; it replaces a NaN by the mean
#   of what was logged before in the interval, and with one step an interval that is nothing at all.
# Versions: transformers 5.24.0, torch 2.13.0. Date: 2026-11-27.
# Hurts: whoever minimises the training loss over learning rates: the diverged run wins.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
from importlib.metadata import version

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

print(*(f"{name} {version(name)}" for name in ("transformers", "torch")))
torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
)
rows = Dataset.from_list([{"input_ids": [each + 1, 3], "labels": each % 2} for each in range(32)])
trainer = Trainer(
    model,
    TrainingArguments("out", max_steps=4, logging_steps=1, learning_rate=float("inf"), max_grad_norm=0.0, use_cpu=True,
                      report_to=[], disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant"),
    train_dataset=rows,
)
trainer.train()
losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
is_nan = any(weight.isnan().any() for weight in model.parameters())
print(f"logged losses {losses}, train_loss {trainer.state.log_history[-1]['train_loss']:.4f}, NaN in weights: {is_nan}")
assert is_nan and losses[0] > 0.5 and losses[1:] == [0.0, 0.0, 0.0]
print("As seen: NaN is 0.0.")
PY
