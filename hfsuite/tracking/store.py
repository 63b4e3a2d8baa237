"""Where runs are recorded: an MLflow server, or SQLite and a folder beside the user's work. Driver."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsuite.errors import TrackingError, UnknownName
from hfsuite.tracking.secrets import without_credentials

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault(
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
)  # of each run that ends, among a sweep's own lines
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# hfsuite asks a store again by itself, for as long as a sweep lasts: MLflow need not try for minutes each time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import filelock
import requests
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

if TYPE_CHECKING:  # MLflow takes seconds to import: not before a sweep's workers have begun to do the same
    import mlflow

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "file", "databricks", "databricks-uc", "uc")
DEFAULT_DATABASE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
ANSWER_WITHIN_S = 10.0
BAD_MOMENTS_S, LONG_S = (0.05, 0.2, 0.5), 2.0


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite in the working directory, by its whole path: MLflow remembers stores by URI."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DEFAULT_DATABASE).absolute()}"


def recorded_uri() -> str | None:
    """Where a sweep that is taken up again from another directory finds its runs; None if only the environment says."""
    uri = tracking_uri()
    return uri if uri == without_credentials(uri) else None


def address(recorded: str | None = None) -> str:
    """Where a sweep records, as another process on this machine finds it, without credentials.

    Args:
        recorded: where it has recorded before; `MLFLOW_TRACKING_URI` wins.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or recorded or tracking_uri()
    path = _file_of(uri)
    return without_credentials(uri if path is None else f"sqlite:///{path.absolute()}")


def experiment_name(name: str) -> str:
    """The MLflow experiment that runs go to: `MLFLOW_EXPERIMENT_NAME`, or the given name."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or name


def below(directory: str, path: str) -> str:
    """A path in a directory that may be a URI with a query, which belongs to its end.

    >>> below("s3://bucket/sweeps/one?region=eu-west-1", "trial_000")
    's3://bucket/sweeps/one/trial_000?region=eu-west-1'
    """
    if "://" not in directory:
        return f"{directory}/{path}"
    folder, mark, query = directory.partition("?")
    return f"{folder}/{path}{mark}{query}"


def is_refusal(error: BaseException) -> bool:
    """Whether the store has said no, and would say it again; otherwise it has not answered, and may do so later."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        code = int(error.get_http_status_code())
        return 400 <= code < 500 and code not in (408, 429) and not _is_of_the_connection(error)
    return not _is_of_the_connection(error)


def _is_of_the_connection(error: BaseException | None) -> bool:
    """Whether nobody answered, a disk is full or a database is locked; MLflow wraps what it gets."""
    if error is None:
        return False
    if isinstance(error, FileNotFoundError | DataError | IntegrityError):
        return False
    kinds = (requests.ConnectionError, requests.Timeout, OSError, DBAPIError)
    return isinstance(error, kinds) or _is_of_the_connection(error.__cause__ or error.__context__)


def has_been_made(uri: str) -> bool:
    """Whether a store is there to be read; of any but a file only itself can say."""
    path = _file_of(uri)
    return path is None or path.exists()


def existing_store() -> mlflow.MlflowClient:
    """As `open_store`, for whoever only reads: where there is no store yet, none is made.

    Raises:
        UnknownName: nothing was recorded here.
        TrackingError: as of `open_store`.
    """
    if not has_been_made(uri := tracking_uri()):
        raise UnknownName(f"There is no sweep yet in {without_credentials(uri)}. Run one: hfsuite sweep MODULE")
    return open_store()


def check_address(recorded: str | None = None) -> None:
    """What can be known of a store's address without MLflow, which takes seconds to import.

    Raises:
        TrackingError: MLflow has no such stores, or its server does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or recorded or tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
        return
    plugins = {each.name for each in importlib.metadata.entry_points(group="mlflow.tracking_store")}
    scheme = uri.partition(":")[0].partition("+")[0]
    if "://" in uri and scheme not in {*SCHEMES, *plugins}:
        raise TrackingError(
            f"MLflow has no stores at addresses like {without_credentials(uri)}: set MLFLOW_TRACKING_URI to one with "
            f"{', '.join(f'{each}://' for each in SCHEMES)}, or unset it."
        )


def open_store(recorded: str | None = None) -> mlflow.MlflowClient:
    """A client of the tracking store, which has answered once.

    A new SQLite store is made aside, by one process at a time: several that open one at once would break it, and so
    would a process that is killed while it makes one.

    Args:
        recorded: where a sweep has recorded before; `MLFLOW_TRACKING_URI` wins.

    Raises:
        TrackingError: the server does not answer, or the database cannot be opened.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or recorded or tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries under MLflow, at import and first use
            import mlflow  # sets the levels of its loggers

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it logs it raises too
            with _alone_if_sqlite(uri) as path:
                if path is not None and not path.exists():
                    _make_database(path)
                client = mlflow.MlflowClient(tracking_uri=uri)
                patient(client).search_experiments(max_results=1)
    except Exception as error:  # MLflow passes on whatever its store raises
        raise TrackingError(
            f"The MLflow store {without_credentials(uri)} cannot be used: {str(error).splitlines()[0]} "
            "Set MLFLOW_TRACKING_URI to a server or database that can be reached, or unset it to use "
            f"{DEFAULT_DATABASE} in the working directory."
        ) from error
    return client


def patient(client: mlflow.MlflowClient) -> Any:
    """The client, which asks again at once where the store has a bad moment.

    Not what has taken long, since others wait behind it; nor what would be made twice if only its answer was lost.
    """
    return _Patient(client)


class _Patient:
    def __init__(self, client: mlflow.MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value) or name.startswith("create_") or name == "log_outputs":
            return value

        def ask(*arguments: Any, **named: Any) -> Any:
            for wait_s in BAD_MOMENTS_S:
                began = time.monotonic()
                try:
                    return value(*arguments, **named)
                except Exception as error:
                    if is_refusal(error) or time.monotonic() - began > LONG_S:
                        raise
                    time.sleep(wait_s)
            return value(*arguments, **named)

        return ask


@contextmanager
def _alone_if_sqlite(uri: str) -> Iterator[Path | None]:
    """The file of a SQLite store, which no other process opens meanwhile; None for any other store."""
    if (path := _file_of(uri)) is None:
        yield None
        return
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        yield path


def _file_of(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _make_database(path: Path) -> None:
    """Makes MLflow's tables in another file, and gives that the name when all of them are there."""
    import mlflow

    for left in path.parent.glob(f".{path.name}.*.new"):  # by processes that were killed
        left.unlink()
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
    os.replace(draft, path)


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an MLflow experiment, which is made if it is not there."""
    if (found := client.get_experiment_by_name(name)) is not None:
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"The MLflow experiment {name!r} is deleted. Restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or set MLFLOW_EXPERIMENT_NAME to another."
            )
        return str(found.experiment_id)
    from mlflow.exceptions import MlflowException

    local = str(client.tracking_uri).startswith("sqlite:")
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
