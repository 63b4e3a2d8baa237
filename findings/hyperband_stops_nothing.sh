#!/usr/bin/env bash
# Ray Tune: HyperBandScheduler stops no trial at all where few trials run at a time.
#
# Most would guess: HyperBand halves its brackets whatever the number of slots; fewer slots only take longer.
# Seen: 12 trials of 9 reports, two at a time (max_concurrent_trials=2): all 12 train to the end, 108 reports. With
#   twelve at a time most are stopped early. A bracket is halved when it is full, and a trial waits for that in a pause;
#   the limit counts paused trials, so no more are begun, and in the end each goes on alone.
# Versions: ray 2.60.0. Date: 2026-11-27.
# Hurts: whoever tunes on a few GPUs, with a limit of concurrent trials, and expects to save time.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[tune]==2.60.0"
cat > "$folder/try.py" <<'PY'
import os
from importlib.metadata import version

os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
import ray
from ray import tune
from ray.tune.schedulers import HyperBandScheduler

class Trial(tune.Trainable):
    def setup(self, config):
        self.loss, self.count = config["loss"], 0

    def step(self):
        self.count += 1
        return {"loss": self.loss, "done": self.count == 9}

    def save_checkpoint(self, folder):
        return {"count": self.count}

    def load_checkpoint(self, state):
        self.count = state["count"]


ray.init(num_cpus=12, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(f"ray {version('ray')}")
reports = {}
for at_once in (2, 12):
    done = tune.run(
        Trial, config={"loss": tune.grid_search([float(n) for n in range(12)])}, metric="loss", mode="min", verbose=0,
        scheduler=HyperBandScheduler(max_t=9), max_concurrent_trials=at_once, storage_path=os.getcwd(),
    )
    reports[at_once] = sum(trial.last_result["training_iteration"] for trial in done.trials)
    print(f"{at_once} at a time: {reports[at_once]} reports of at most {12 * 9}")
assert reports[2] == 108, "trials are stopped now"
assert reports[12] < 80
print("As seen: two at a time, none is stopped.")
PY
cd "$folder"
venv/bin/python try.py 2> log || { cat log; exit 1; }
