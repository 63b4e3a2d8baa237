#!/usr/bin/env bash
# Seq2SeqTrainer on several processes: compute_metrics gets more rows than the dataset has, and Trainer's does not.
#
# Most would guess: whatever the number of processes, metrics are computed over the rows of the evaluation dataset.
# Seen: 21 rows on two processes in batches of 4 are 24 predictions and 24 labels, whether texts are generated or not: it
#   gathers by `accelerator.gather`, which keeps the rows that fill the last batches up. The same model in a plain
#   Trainer: 21, by `gather_for_metrics`.
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0. Date: 2026-11-27.
# Hurts: whoever reports ROUGE or BLEU of a small test set: some rows count twice, and others on other numbers of GPUs.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import json, sys
import torch
from datasets import Dataset
from transformers import (
    Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments,
)

rows = Dataset.from_list([{"input_ids": [each + 1, 3], "labels": [4, 5]} for each in range(21)])
found = {}
for name, kind, arguments, options in (
    ("generating", Seq2SeqTrainer, Seq2SeqTrainingArguments, {"predict_with_generate": True, "generation_max_length": 4}),
    ("not generating", Seq2SeqTrainer, Seq2SeqTrainingArguments, {}),
    ("Trainer", Trainer, TrainingArguments, {}),
):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )
    trainer = kind(
        model,
        arguments("out", per_device_eval_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True, **options),
        eval_dataset=rows,
        data_collator=lambda batch: {n: torch.tensor([row[n] for row in batch]) for n in ("input_ids", "labels")},
        compute_metrics=lambda given: {"rows": len(given.label_ids)},
    )
    found[name] = trainer.evaluate()["eval_rows"]
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
print("21 rows, two processes, batches of 4:", found)
assert found == {"generating": 24, "not generating": 24, "Trainer": 21}
print("As seen: three rows too many in Seq2SeqTrainer.")
PY
