#!/usr/bin/env bash
# transformers.Trainer: group_by_length with dropout on two processes trains on some rows twice, on others never.
#
# Most would guess: an epoch holds each row once, whatever the sampling strategy.
# Seen: 128 rows, two processes, dropout 0.1: the first epoch holds 128 distinct rows, later ones about 110. Each process
#   draws the order from its own global generator, which dropout has moved differently, and takes its half of an order
#   that the other does not have. Nothing warns. The default order is drawn from a generator that is kept equal.
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0. Date: 2026-11-27.
# Hurts: whoever fine-tunes with dynamic padding on several GPUs: one row in seven is not seen in an epoch.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import json, sys
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

ROWS = 128
found = {}
for dropout in (0.0, 0.1):
    set_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                   hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    )
    # Row number n is told apart by its first two tokens.
    rows = [{"input_ids": [n % 16 + 1, n // 16 + 20, *[3] * (n % 9)], "labels": n % 2} for n in range(ROWS)]
    seen = []

    class Noting(Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.append((self.state.global_step, [(int(b) - 20) * 16 + int(a) - 1 for a, b in inputs["input_ids"][:, :2]]))
            return super().training_step(model, inputs, *args, **kwargs)

    def padded(batch):
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([r["labels"] for r in batch])}

    trainer = Noting(
        model,
        TrainingArguments("out", num_train_epochs=3, per_device_train_batch_size=8, use_cpu=True, report_to=[],
                          disable_tqdm=True, save_strategy="no", train_sampling_strategy="group_by_length"),
        train_dataset=Dataset.from_list(rows), data_collator=padded,
    )
    trainer.train()
    every = gather_object(seen)
    an_epoch = ROWS // 16
    found[dropout] = [len({row for step, rows in every if step // an_epoch == epoch for row in rows}) for epoch in range(3)]
if trainer.is_world_process_zero():
    json.dump(found, open(sys.argv[1], "w"))
PY
cd "$folder"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
venv/bin/torchrun --standalone --nproc-per-node 2 try.py found > log 2>&1 || { cat log; exit 1; }
venv/bin/python - <<'PY'
import json
from importlib.metadata import version

print(*(f"{name} {version(name)}" for name in ("transformers", "accelerate", "torch")))
found = json.load(open("found"))
for dropout, counts in found.items():
    print(f"dropout {dropout}: {counts} distinct rows of 128 in each epoch")
assert found["0.0"] == [128, 128, 128]
assert found["0.1"][0] == 128 and max(found["0.1"][1:]) < 128, "every row is seen now"
print("As seen: with dropout, rows are left out from the second epoch on.")
PY
