#!/usr/bin/env bash
# Optuna: GPSampler proposes a point that has failed or was pruned again and again.
#
# Most would guess: a sampler stays away from where trials fail or are stopped, or at least does not repeat itself.
# Seen: a study in which x > 0.4 fails, and the loss falls towards there. After its ten random trials GPSampler asks for
#   the same point 45 times (2 distinct values of the last 15, to three decimals): the Gaussian process learns from
#   COMPLETE trials only, so nothing changes its mind. TPE stays in the failing part too, but asks for 15 points of it.
# Versions: optuna 5.0.0, torch 2.13.0, scipy 1.17.0. Date: 2026-11-27.
# Hurts: whoever uses GPSampler with a pruner, or where a part of the space runs out of memory: the budget goes into one
#   failure.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 torch==2.13.0 scipy==1.17.0
cd "$folder"
venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
import warnings
from importlib.metadata import version

import optuna

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
print(*(f"{name} {version(name)}" for name in ("optuna", "torch", "scipy")))
distinct = {}
for name, sampler in (("GPSampler", optuna.samplers.GPSampler(seed=0)), ("TPESampler", optuna.samplers.TPESampler(seed=0))):
    study = optuna.create_study(sampler=sampler)
    for _ in range(60):
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        if x > 0.4:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, (x - 0.6) ** 2)
    last = [round(trial.params["x"], 3) for trial in study.trials[-15:]]
    distinct[name] = len(set(last))
    print(f"{name}: {distinct[name]} distinct of the last 15 proposals: {last}")
assert distinct["GPSampler"] <= 4 and distinct["TPESampler"] >= 14
print("As seen: the GP sampler asks for the same failure again.")
PY
