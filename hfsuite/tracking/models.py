"""Checkpoints that a sweep keeps, as MLflow's LoggedModels: found, ranked and loaded from there.

A LoggedModel is made without loading the checkpoint: its files get second names in the artifact folder, where one file
system holds both, and are uploaded once where not. Only safetensors and JSON go there, never a pickle: what is needed
to go on training stays in the sweep's storage. In the writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import pyarrow.fs
import yaml

from hfsuite.errors import CheckpointError
from hfsuite.tracking import inputs, runs, store
from hfsuite.tracking.adapters import PEFT, adapters_in
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.names import Names, names_of
from hfsuite.tracking.points import as_text
from hfsuite.tracking.record import Snapshot, SweepRecord, TrialRecord
from hfsuite.tracking.runs import Run
from hfsuite.tracking.secrets import as_parameter

if TYPE_CHECKING:  # see `store`
    import mlflow
    from mlflow.entities import LoggedModel

DIRECTORY, STEP = f"{runs.TAG}.directory", "step"  # of the checkpoint, in its trial's; of the optimizer
MODEL, COMPONENTS, PLAIN, TOKENIZER, IMAGES = "model", "components", "checkpoint", "tokenizer", "image_processor"
CONFIG, IMAGE_CONFIG, MANIFEST, MLMODEL = "config.json", "preprocessor_config.json", "manifest.json", "MLmodel"
SAFE = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")
OF_TRAINING = {"trainer_state.json", MANIFEST}
TOKENIZERS = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "spiece", "sentencepiece", "chat_temp")
TASKS = {  # the pipeline by which MLflow calls a model, by the end of its class's name
    "ForSequenceClassification": ("text-classification", "TextClassificationPipeline"),
    "ForTokenClassification": ("token-classification", "TokenClassificationPipeline"),
    "ForQuestionAnswering": ("question-answering", "QuestionAnsweringPipeline"),
    "ForImageClassification": ("image-classification", "ImageClassificationPipeline"),
    "ForMaskedLM": ("fill-mask", "FillMaskPipeline"),
    "ForCausalLM": ("text-generation", "TextGenerationPipeline"),
    "LMHeadModel": ("text-generation", "TextGenerationPipeline"),
}
ANY_TASK = ("feature-extraction", "FeatureExtractionPipeline")


def settle(run: Run, directory: SweepDirectory, sweep: SweepRecord, record: TrialRecord, names: Names) -> None:
    """Makes the models of a trial those of the checkpoints that are kept: missing ones are made, others removed.

    Args:
        run: the trial's.
        directory: the sweep's.
        sweep: its record.
        record: the trial's.
        names: of its metrics.
    """
    wanted = {str(each.directory): each for each in record.kept}
    if run.models is None:
        run.models = {model.tags[DIRECTORY]: model for model in _models_of(run)}
    for name in [name for name, model in run.models.items() if name not in wanted or not _is_ready(model)]:
        _remove(run, run.models[name])
        del run.models[name]
    for name, snapshot in wanted.items():
        if name not in run.models:
            try:
                run.models[name] = _make(run, directory, sweep, record, snapshot, names)
            except BaseException:
                run.models = None  # half a model may be there
                raise


def link(run: Run) -> None:
    """Names the models of a trial in its run, once no other trial can push them out: MLflow forgets no such link."""
    from mlflow.entities import LoggedModelOutput

    if run.models is None:
        run.models = {model.tags[DIRECTORY]: model for model in _models_of(run)}
    outputs = run.client.get_run(run.run_id).outputs  # asked anew: the answer to what was written may have been lost
    linked = {each.model_id for each in outputs.model_outputs} if outputs is not None else set()
    new = [model for model in run.models.values() if model.model_id not in linked]
    if new:
        run.client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, int(model.tags[STEP])) for model in new])


def kept_by(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> dict[int, LoggedModel]:
    """The checkpoints that MLflow has of a run, by their optimizer steps."""
    ready = [model for model in _models_of(Run(client, run)) if _is_ready(model) and STEP in model.tags]
    return {int(model.tags[STEP]): model for model in ready}


def fetch(client: mlflow.MlflowClient, model: LoggedModel, folder: Path) -> Path:
    """The folder with a model's weights: where it lies, if this machine has it, or a copy.

    Args:
        client: of the tracking store.
        model: as `kept_by` returns it.
        folder: for a copy.

    Raises:
        CheckpointError: there is none, or it is not whole.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    location = urlparse(str(model.artifact_location))
    try:
        if location.scheme in ("", "file"):
            found = Path(download_artifacts(str(model.artifact_location)))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            repository = get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
            found = Path(repository.download_artifacts("", str(folder)))
        flavors = yaml.safe_load((found / MLMODEL).read_text())["flavors"]
    except Exception as error:  # whatever a store raises where files are missing
        raise CheckpointError(f"it cannot be fetched ({type(error).__name__})") from error
    flavor = flavors.get("transformers", {})
    elsewhere = flavor.get("peft_adaptor") or flavor.get("local_base_model_path")
    elsewhere = elsewhere or flavors.get(runs.TAG, {}).get("checkpoint")
    places = [found / MODEL, found / PLAIN, *([found / elsewhere] if elsewhere else [])]
    place: Path | None = next((each for each in places if each.is_dir()), None)
    if place is None:
        raise CheckpointError("its files are gone")
    return place


def _models_of(run: Run) -> Iterable[LoggedModel]:
    """Those that stand for checkpoints of a run, finished or not; what its training function logs is its own."""
    token = None
    while True:
        page = run.client.search_logged_models(
            [run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'", page_token=token
        )
        yield from (model for model in page if DIRECTORY in model.tags)
        token = page.token
        if not token:
            return


def _is_ready(model: LoggedModel) -> bool:
    return str(model.status) == "READY"


def _make(
    run: Run, directory: SweepDirectory, sweep: SweepRecord, record: TrialRecord, snapshot: Snapshot, names: Names
) -> LoggedModel:
    from mlflow.entities import Metric

    where, settings = f"{record.directory}/{snapshot.directory}", names_of(record.config, runs.OWN_PARAMS)
    config = record.config_at(snapshot)
    model = run.client.create_logged_model(
        run.experiment_id,
        name=f"{sweep.name}-{record.number:03d}-step-{snapshot.step}",
        source_run_id=run.run_id,
        params={settings.of((name,)): as_parameter(name, as_text(config.get(name))) for name in record.searched},
        tags={
            DIRECTORY: str(snapshot.directory),
            runs.SWEEP: sweep.name,
            runs.TRIAL: str(record.number),
            runs.CHECKPOINT_PATH: store.below(sweep.path, where),
            STEP: str(snapshot.step),
        },
    )
    points = [
        Metric(
            names.of_recorded(name),
            value,
            snapshot.timestamp,
            snapshot.step,
            model_id=model.model_id,
            **inputs.dataset_of(run, name),
        )
        for name, value in snapshot.metrics.items()
        if math.isfinite(value)
    ]
    try:
        _fill(run, model, directory, where, by_reference=is_by_reference(sweep))
        for start in range(0, len(points), runs.METRICS_A_BATCH):
            run.client.log_batch(run.run_id, metrics=points[start : start + runs.METRICS_A_BATCH])
        return run.client.finalize_logged_model(model.model_id, "READY")
    except BaseException:
        with suppress(Exception):  # the error itself is on its way; what is not READY is removed later
            run.client.finalize_logged_model(model.model_id, "FAILED")
        raise


def is_by_reference(sweep: SweepRecord) -> bool:
    """Whether MLflow points to checkpoints instead of holding them."""
    return str(sweep.arguments.get("keep")).startswith("reference")


def _remove(run: Run, model: LoggedModel) -> None:
    """Its files too: MLflow itself would keep them."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with suppress(FileNotFoundError):
        get_artifact_repository(model.artifact_location, tracking_uri=run.client.tracking_uri).delete_artifacts()
    run.client.delete_logged_model(model.model_id)


def _fill(run: Run, model: LoggedModel, directory: SweepDirectory, where: str, *, by_reference: bool) -> None:
    """Puts a checkpoint's files, as MLflow lays them out, where a model's artifacts belong."""
    if directory.filesystem.get_file_info(f"{directory.path}/{where}").type != pyarrow.fs.FileType.Directory:
        raise CheckpointError(f"The checkpoint {where} of the sweep in {directory.path} is not there any more.")
    location = urlparse(str(model.artifact_location))
    is_near = location.scheme in ("", "file")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(unquote(location.path)) if is_near else Path(folder, "artifacts")
        if by_reference and not directory.is_local:
            _describe(target, str(model.model_id), {runs.TAG: {"checkpoint": model.tags[runs.CHECKPOINT_PATH]}})
        elif directory.is_local:
            source = Path(directory.path, where)
            _lay_out(source, target, str(model.model_id), by_reference=by_reference)
        else:
            source = Path(folder, "checkpoint")
            pyarrow.fs.copy_files(
                f"{directory.path}/{where}", str(source), source_filesystem=directory.filesystem,
                destination_filesystem=pyarrow.fs.LocalFileSystem(),
            )  # fmt: skip
            _lay_out(source, target, str(model.model_id), by_reference=False)
        if not is_near:
            run.client.log_model_artifacts(model.model_id, str(target))


def _lay_out(source: Path, target: Path, model_id: str, *, by_reference: bool) -> None:
    import transformers

    files = [file for file in sorted(source.rglob("*")) if file.is_file() and file.suffix in SAFE]
    files = [file for file in files if file.name not in OF_TRAINING]
    config = json.loads((source / CONFIG).read_text()) if (source / CONFIG).is_file() else {}
    adapters = adapters_in(source)
    architecture = adapters.model_type if adapters is not None else next(iter(config.get("architectures") or []), None)
    place = PEFT if adapters is not None else MODEL if architecture else PLAIN
    own_config = adapters.config if adapters is not None else source / CONFIG
    flavors: dict[str, Any] = {}
    if architecture is None:
        flavors[runs.TAG] = {"checkpoint": str(source) if by_reference else PLAIN}
    else:
        task, pipeline = next((each for end, each in TASKS.items() if architecture.endswith(end)), ANY_TASK)
        components = {
            TOKENIZER: [file for file in files if file.name.startswith(TOKENIZERS)],
            IMAGES: [file for file in files if file.name == IMAGE_CONFIG],
        }
        components = {name: found for name, found in components.items() if found}
        types = {TOKENIZER: "AutoTokenizer", IMAGES: "AutoImageProcessor"}
        flavors["transformers"] = {
            "transformers_version": transformers.__version__,
            "code": None,
            "task": task,
            "instance_type": pipeline,
            "framework": "pt",
            "pipeline_model_type": architecture,
            "source_model_name": config.get("_name_or_path") or architecture,
            "components": list(components),
            **(
                adapters.places(source, by_reference=by_reference)
                if adapters is not None
                else {"local_base_model_path": str(source)}
                if by_reference
                else {"model_binary": MODEL}
            ),
            **{f"{name}_type": types[name] for name in components},
            **{f"{name}_name": config.get("_name_or_path") or architecture for name in components},
        }
        for name, found in components.items():
            for file in found if name == IMAGES or own_config is None else [*found, own_config]:
                _second_name(file, target / COMPONENTS / name / file.name)
    for file in [] if by_reference else files:
        _second_name(file, target / place / file.relative_to(source))
    _describe(target, model_id, flavors)


def _describe(target: Path, model_id: str, flavors: dict[str, Any]) -> None:
    """What MLflow reads of a model: how it is loaded. Ours is a folder of files, or the address of one."""
    import mlflow

    target.mkdir(parents=True, exist_ok=True)
    text = {"flavors": flavors, "mlflow_version": mlflow.__version__, "model_id": model_id, "model_uuid": model_id}
    (target / MLMODEL).write_text(yaml.safe_dump(text, sort_keys=False))


def _second_name(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:  # another file system, or one that knows no second names
        shutil.copy2(source, target)
