#!/usr/bin/env bash
# Ray Tune: qrandint means other integers to Ray itself than to its own OptunaSearch.
#
# Most would guess: a search space means the same to every searcher.
# Seen: tune.qrandint(1, 10, 3) is 3, 6, 9 when Ray draws (multiples of the step), and 1, 4, 7, 10 through OptunaSearch
#   (steps from the lower bound): values that Ray's own definition does not hold. qloguniform loses its step there.
# Versions: ray 2.60.0, optuna 5.0.0. Date: 2026-11-27.
# Hurts: whoever asks for batch sizes that are multiples of eight, or compares random search with Optuna's samplers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[tune]==2.60.0" optuna==5.0.0
cd "$folder"
venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
from importlib.metadata import version

from ray import tune
from ray.tune.search.optuna import OptunaSearch

print(*(f"{name} {version(name)}" for name in ("ray", "optuna")))
integers, floats = tune.qrandint(1, 10, 3), tune.qloguniform(0.5, 100, 0.5)
search = OptunaSearch({"n": integers, "x": floats}, metric="loss", mode="min", seed=0)
through_optuna = [search.suggest(str(each)) for each in range(60)]
by_ray = sorted({integers.sample() for _ in range(500)})
by_optuna = sorted({each["n"] for each in through_optuna})
off = [each["x"] for each in through_optuna if each["x"] % 0.5]
print(f"qrandint(1, 10, 3): Ray draws {by_ray}, Optuna through Ray {by_optuna}")
print(f"qloguniform(0.5, 100, 0.5): {len(off)} of 60 values are no multiple of 0.5, for example {off[:2]}")
assert by_ray == [3, 6, 9] and by_optuna == [1, 4, 7, 10] and len(off) > 50
print("As seen: one space, two sets of values.")
PY
