#!/usr/bin/env bash
# transformers.Trainer: where a stream ends within an accumulation window, what is left is added to the next epoch's step.
#
# Most would guess: an IterableDataset of 9 rows, in batches of 2 and with gradient_accumulation_steps=2, makes steps of
#   4, 4 and 1 rows an epoch (as a dataset with places does), or drops the last row.
# Seen: steps of 4, 4, 5, 4, 5, 4 rows. The epoch's last row makes no step; its gradient, a mean of its own, is kept and
#   added to that of the next epoch's first four, so this step's gradient is the sum of two means. `loss` shows it: a
#   model that predicts the same for all rows, whose loss is 1 everywhere, is logged with 1, 1, 2, 1, 2, 1.
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0. Date: 2026-11-27.
# Hurts: whoever trains on streamed data with accumulation: a spike in `loss` and in the gradient, once an epoch.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PY'
from importlib.metadata import version

import torch
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments


class Stream(IterableDataset):
    def __iter__(self):
        yield from ({"x": torch.tensor([1.0])} for _ in range(9))


class One(torch.nn.Module):
    """Its loss is 1 for all rows, and a learning rate of 0 keeps it so; it divides by what it is told to."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, **_):
        seen[-1] += len(x)
        return {"loss": (self.weight * x).mean()}


class Noting(Trainer):
    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            losses.append(round(logs["loss"], 4))
            seen.append(0)
        super().log(logs, *args, **kwargs)


seen, losses = [0], []
model = One()
model.accepts_loss_kwargs = False  # the Trainer divides by the number of batches of the step itself
arguments = TrainingArguments(
    "out", per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=6, logging_steps=1, learning_rate=0.0,
    use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", remove_unused_columns=False,
    accelerator_config={"dispatch_batches": False},
)
Noting(model, arguments, train_dataset=Stream()).train()
print(*(f"{name} {version(name)}" for name in ("transformers", "accelerate", "torch")))
print("rows that went into each step:", seen[:6])
print("loss of each step:            ", losses)
assert seen[:6] == [4, 4, 5, 4, 5, 4], "the rest of a stream does not join the next step any more"
assert losses == [1, 1, 2, 1, 2, 1], "the loss of that step is no sum of two means any more"
print("As seen: what is left of a stream is added to the next epoch's first step.")
PY
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python try.py 2> log || { cat log; exit 1; }
