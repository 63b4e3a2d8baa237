"""What a trial was trained on and with, in MLflow: datasets and base model as its inputs, the rest as tags.

Out of the file that the trial's rank 0 has left in its directory. In the writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from hfsuite.ranks.facts import BASE_MODEL, EVALUATION, TRAINING
from hfsuite.report import FACTS_FILE
from hfsuite.tracking.points import as_text

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from hfsuite.tracking.directory import SweepDirectory
    from hfsuite.tracking.record import SweepRecord, TrialRecord
    from hfsuite.tracking.runs import Run

RECORDED = "hfsuite.training_facts"  # a tag: the digest of what has been recorded
AS_TAGS = (
    "world_size", "device", "deterministic", "threads", "cuda", "driver", "seeds", "weights_trained_in",
    "rows_depend_on",
)  # fmt: skip
AS_PARAMS = {"weights_dtype": "weights_dtype", "autocast": "precision"}  # what is trained, and what it is computed in
CONTEXT = "mlflow.data.context"  # MLflow shows it beside a dataset
NAME_LIMIT = 500  # characters
EVALUATED = ("eval", "val", "test")  # how metrics begin that were measured on the evaluation dataset


def write_inputs(run: Run, directory: SweepDirectory, sweep: SweepRecord, record: TrialRecord) -> None:
    """Adds what is missing of it to a trial's run.

    Args:
        run: the trial's.
        directory: the sweep's.
        sweep: its record.
        record: the trial's.
    """
    if run.datasets and not record.state.is_over:
        return  # a second attempt may have written it anew: at the end it is looked at again
    text = directory.read_text(f"{record.directory}/{FACTS_FILE}")
    if text is None:
        return
    try:
        facts = json.loads(text)
    except ValueError:  # it is being written
        return
    inputs = [_input(each, sweep) for each in facts["inputs"]]
    run.datasets = {
        each.tags[0].value: (each.dataset.name, each.dataset.digest) for each in reversed(inputs)  # the first counts
    }  # fmt: skip
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    if run.tags.get(RECORDED) == digest:
        return
    if inputs:
        run.client.log_inputs(run.run_id, datasets=inputs)
    run.client.log_dict(run.run_id, facts, FACTS_FILE)
    run.write_params({
        name: facts[fact] for name, fact in AS_PARAMS.items() if facts.get(fact) and name not in record.config
    })  # fmt: skip
    run.write_tags({f"hfsuite.{name}": as_text(facts[name]) for name in AS_TAGS if facts.get(name) is not None})
    run.write_tags({RECORDED: digest})


def dataset_of(run: Run, metric: str) -> dict[str, str]:
    """The dataset that a metric was measured on, as MLflow's `Metric` takes it; empty where none is known."""
    known = run.datasets.get(EVALUATION if metric.startswith(EVALUATED) else TRAINING)
    return {} if known is None else {"dataset_name": known[0], "dataset_digest": known[1]}


def _input(found: dict[str, Any], sweep: SweepRecord) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = found["context"]
    source = {name: found[name] for name in ("source", "revision") if found.get(name)}
    columns = [{"name": name, "type": kind, "required": True} for name, kind in (found.get("columns") or {}).items()]
    profile = {name: found[name] for name in ("rows", "parameters") if found.get(name) is not None}
    dataset = Dataset(
        name=(found["name"] or f"{sweep.experiment} {context}")[:NAME_LIMIT],
        digest=found["digest"],
        source_type="model" if context == BASE_MODEL else "data",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, tags=[InputTag(CONTEXT, context)])
