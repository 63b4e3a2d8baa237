"""Where runs are recorded: an MLflow server, or SQLite and a folder beside the user's work. Driver."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from hfsuite.errors import TrackingError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import requests

if TYPE_CHECKING:  # MLflow takes seconds to import: not before a sweep's workers have begun to do the same
    import mlflow

DEFAULT_DATABASE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
ANSWER_WITHIN_S = 10.0


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite in the working directory, by its whole path: MLflow remembers stores by URI."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DEFAULT_DATABASE).absolute()}"


def without_credentials(uri: str) -> str:
    """The URI as it may be shown: user name and password are cut out."""
    scheme, separator, rest = uri.partition("://")
    server, slash, path = rest.partition("/")
    return f"{scheme}{separator}{server.rpartition('@')[2]}{slash}{path}"


def open_store() -> mlflow.MlflowClient:
    """A client of the tracking store, which has answered once.

    A new SQLite store is made here, once: processes that open one at the same time would break it.

    Raises:
        TrackingError: the server does not answer, or the database cannot be opened.
    """
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries under MLflow, at import and first use
            import mlflow  # sets the levels of its loggers

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = mlflow.MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    except Exception as error:  # MLflow passes on whatever its store raises
        raise TrackingError(
            f"The MLflow store {without_credentials(uri)} cannot be used: {str(error).splitlines()[0]} "
            "Set MLFLOW_TRACKING_URI to a server or database that can be reached, or unset it to use "
            f"{DEFAULT_DATABASE} in the working directory."
        ) from error
    return client


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """The MLflow experiment that runs go to: `MLFLOW_EXPERIMENT_NAME`, or the given name. Made if it is not there."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    if (found := client.get_experiment_by_name(name)) is not None:
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"The MLflow experiment {name!r} is deleted. Restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or set MLFLOW_EXPERIMENT_NAME to another."
            )
        return str(found.experiment_id)
    from mlflow.exceptions import MlflowException

    local = tracking_uri().startswith("sqlite:")
    location = Path(DEFAULT_ARTIFACTS, _folder(name)).absolute().as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if (found := client.get_experiment_by_name(name)) is not None:  # another sweep was faster
            return str(found.experiment_id)
        raise TrackingError(f"The MLflow experiment {name!r} cannot be made: {error}") from error


def _folder(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)


def _check_server(uri: str) -> None:
    """MLflow itself would retry for minutes."""
    shown = without_credentials(uri)
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_WITHIN_S)
    except requests.RequestException as error:
        raise TrackingError(
            f"The MLflow server {shown} does not answer within {ANSWER_WITHIN_S:g} s ({type(error).__name__}). "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to record into ./mlflow.db."
        ) from error
    if answer.status_code in (401, 403):
        raise TrackingError(
            f"The MLflow server {shown} refuses access ({answer.status_code}). Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), or have the server allow this host name."
        )
    if answer.status_code >= 500:
        raise TrackingError(f"The MLflow server {shown} answers with an error ({answer.status_code}). Look at its log.")
