#!/usr/bin/env bash
# torch.utils.data.DataLoader: a loader with persistent workers that is freed by a garbage collection waits five seconds
# for each of its workers.
#
# Most would guess: when a loader is given up, its workers are told to end, and do so at once; as they do where nothing
#   else refers to it.
# Seen: where the loader is part of a reference cycle (a transformers.Trainer and its callbacks are one), only the garbage
#   collector finds it. It closes the queue by which workers are told to end before it calls the iterator's __del__, so
#   no worker hears of it until it looks for itself whether all is over, which it does every 5 s; and each is waited for.
# Versions: torch 2.13.0, Python 3.11 and 3.12. Date: 2026-11-28.
# Hurts: processes that train one model after another: ten seconds between two trainings with a training and an evaluation
#   loader of one worker each.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/try.py" <<'PY'
import gc
import platform
import time

import torch
from torch.utils.data import DataLoader, TensorDataset


class Holder:
    pass


def seconds_to_give_up(in_a_cycle: bool) -> float:
    holder = Holder()
    holder.loader = DataLoader(TensorDataset(torch.zeros(4, 1)), num_workers=1, persistent_workers=True)
    assert len(list(holder.loader)) == 4
    if in_a_cycle:
        holder.itself = holder
    began = time.perf_counter()
    del holder
    gc.collect()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(f"torch {torch.__version__}, Python {platform.python_version()}")
    alone, cycle = seconds_to_give_up(False), seconds_to_give_up(True)
    print(f"not in a cycle: {alone:.1f} s; in a cycle: {cycle:.1f} s")
    assert alone < 4.5 < cycle, "torch or Python has changed"
PY
"$folder/venv/bin/python" "$folder/try.py"
