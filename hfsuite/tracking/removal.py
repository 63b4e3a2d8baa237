"""Removes a sweep: its runs and models in MLflow with their files, and its directory. Driver."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow.fs

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import runs
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock

if TYPE_CHECKING:
    import mlflow

PARENT, MOST = "mlflow.parentRunId", 50_000  # runs that MLflow returns at once


def size_of(directory: SweepDirectory) -> int:
    """Bytes of all files of a sweep's directory."""
    selector = pyarrow.fs.FileSelector(directory.path, recursive=True, allow_not_found=True)
    return sum(entry.size or 0 for entry in directory.filesystem.get_file_info(selector) if entry.is_file)


def remove(directory: SweepDirectory, client: mlflow.MlflowClient, found: Sequence[mlflow.entities.Run]) -> None:
    """Removes a sweep: in MLflow, then on storage, so that what an error leaves can be removed by its name.

    Args:
        directory: the sweep's.
        client: of the store that it is in.
        found: its runs.

    Raises:
        ConfigurationError: somebody runs it.
    """
    with DriverLock(directory):
        remove_runs(client, found)
        for name in directory.names():
            path = f"{directory.path}/{name}"
            if directory.filesystem.get_file_info(path).is_file:
                directory.filesystem.delete_file(path)
            elif not name.startswith("."):
                directory.filesystem.delete_dir(path)
    directory.remove()


def runs_of(client: mlflow.MlflowClient, sweep_id: str) -> list[mlflow.entities.Run]:
    """The runs of a sweep, its own and its trials', and what training functions have started below them.

    Raises:
        ConfigurationError: one of them is registered as a model.
    """
    experiments = [each.experiment_id for each in client.search_experiments()]

    def tagged(name: str, value: str) -> list[mlflow.entities.Run]:
        return list(client.search_runs(experiments, f"tags.`{name}` = '{value}'", max_results=MOST))

    found = {run.info.run_id: run for run in tagged(runs.SWEEP_ID, sweep_id)}
    waiting = list(found)
    while waiting:
        new = {run.info.run_id: run for run in tagged(PARENT, waiting.pop()) if run.info.run_id not in found}
        found |= new
        waiting += new
    faults = [
        f"A checkpoint of the run {run_id} is version {each.version} of the registered model {each.name}: delete that "
        "version first, or keep the sweep."
        for run_id in found
        for each in client.search_model_versions(f"run_id = '{run_id}'")
    ]
    if faults:
        raise ConfigurationError(faults)
    return list(found.values())


def _models_of(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> list[mlflow.entities.LoggedModel]:
    """All of them: MLflow returns a hundred at once."""
    source = f"source_run_id = '{run.info.run_id}'"
    found, token = list[Any](), None
    while True:
        page = client.search_logged_models([run.info.experiment_id], filter_string=source, page_token=token)
        found += page
        if not (token := page.token):
            return found


def remove_runs(client: mlflow.MlflowClient, found: Sequence[mlflow.entities.Run]) -> None:
    """Deletes runs with their models and files. MLflow marks them as deleted: their numbers go with `mlflow gc`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for run in found:
        models = _models_of(client, run)
        for place in (*(str(each.artifact_location) for each in models), str(run.info.artifact_uri)):
            with suppress(FileNotFoundError):  # it never had any
                get_artifact_repository(place, tracking_uri=client.tracking_uri).delete_artifacts()
        for each in models:
            client.delete_logged_model(each.model_id)
        client.delete_run(run.info.run_id)
