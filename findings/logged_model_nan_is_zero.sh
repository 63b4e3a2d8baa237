#!/usr/bin/env bash
# MLflow: a metric of a LoggedModel that is NaN is read back as 0.0, and the model ranks first by a loss.
#
# Most would guess: NaN is kept, as it is in a run's metrics.
# Seen: a run's own metric stays NaN. The same point, logged with a model id, is 0.0 in `search_logged_models`, and
#   "ascending by loss" lists the diverged model before all others.
# Versions: mlflow 3.17.2 (SQLite store). Date: 2026-11-27.
# Hurts: whoever picks the best checkpoint by its loss.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2
cd "$folder"
MLFLOW_DISABLE_TELEMETRY=true venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
import math
from importlib.metadata import version

import mlflow
from mlflow.entities import Metric

print(f"mlflow {version('mlflow')}")
client = mlflow.MlflowClient("sqlite:///mlflow.db")
experiment = client.create_experiment("one")
for name, loss in (("good", 0.5), ("diverged", math.nan)):
    run = client.create_run(experiment)
    model = client.create_logged_model(experiment, name=name, source_run_id=run.info.run_id)
    client.log_batch(run.info.run_id, metrics=[Metric("loss", loss, 1, 1, model_id=model.model_id)])
    client.finalize_logged_model(model.model_id, "READY")
    print(f"{name}: {client.get_run(run.info.run_id).data.metrics['loss']} in its run")
ranked = client.search_logged_models([experiment], order_by=[{"field_name": "metrics.loss", "ascending": True}])
print("models by loss:", *(f"{each.name} {each.metrics[0].value}" for each in ranked))
assert [(each.name, each.metrics[0].value) for each in ranked] == [("diverged", 0.0), ("good", 0.5)]
print("As seen: the diverged one is first, with 0.0.")
PY
