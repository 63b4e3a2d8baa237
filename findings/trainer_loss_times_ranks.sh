#!/usr/bin/env bash
# transformers.Trainer: the loss of a classifier is multiplied by the number of processes.
#
# Most would guess: eval_loss of given weights and rows is the same on one process and on two; so is the training loss.
# Seen: on two processes BertForSequenceClassification's `loss` and `eval_loss` are twice as large (and so is the
#   gradient before it is clipped). The Trainer multiplies by the number of processes since the model "accepts loss
#   kwargs" (its forward has **kwargs), but the classification head never divides by `num_items_in_batch`.
#   `model.accepts_loss_kwargs = False` gives the right numbers.
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0. Date: 2026-11-27.
# Hurts: whoever compares runs on different numbers of GPUs, stops early by eval_loss, or tunes it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import os, sys
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

rows = [{"input_ids": [each % 40 + 1, each % 7 + 1, 3], "labels": each % 2} for each in range(16)]
found = {}
for knows in (False, True):
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    if knows:
        model.accepts_loss_kwargs = False
    arguments = TrainingArguments(
        "out", per_device_eval_batch_size=4, per_device_train_batch_size=4, max_steps=1, logging_steps=1, use_cpu=True,
        report_to=[], disable_tqdm=True, save_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows))
    evaluated = trainer.evaluate()["eval_loss"]
    trainer.train()
    found[knows] = evaluated, next(each["loss"] for each in trainer.state.log_history if "loss" in each)
if trainer.is_world_process_zero():
    with open(sys.argv[1], "w") as file:
        file.write(" ".join(f"{value:.6f}" for pair in found.values() for value in pair))
PY
cd "$folder"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
for processes in 1 2; do
  venv/bin/torchrun --standalone --nproc-per-node "$processes" try.py "on_$processes" > "log_$processes" 2>&1 || { cat "log_$processes"; exit 1; }
done
venv/bin/python - <<'PY'
from importlib.metadata import version

print(*(f"{name} {version(name)}" for name in ("transformers", "accelerate", "torch")))
one, two = ([float(each) for each in open(f"on_{processes}").read().split()] for processes in (1, 2))
print("                        eval_loss, loss; with accepts_loss_kwargs = False: eval_loss, loss")
print("one process   ", *one)
print("two processes ", *two)
assert abs(two[0] / one[0] - 2) < 0.01, "eval_loss is not twice as large any more"
assert 1.8 < two[1] / one[1] < 2.2, "loss is not twice as large any more"
assert abs(two[2] / one[2] - 1) < 0.01
print("As seen: twice as large on two processes, unless the model says that it knows nothing of it.")
PY
