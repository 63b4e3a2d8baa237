"""`hfsuite ui`: MLflow's own interface, opened where a sweep can be compared."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Annotated
from urllib.parse import quote, urlencode

import typer
from rich.console import Console

from hfsuite.errors import ConfigurationError, TrackingError


def ui(
    port: Annotated[int, typer.Option(help="Where to serve, on this machine only.")] = 5000,
) -> int:
    """Serve the MLflow interface over the recorded runs, and print a link to the newest sweep."""
    from hfsuite.tracking import runs, store

    client = store.open_store()
    uri = store.tracking_uri()
    remote = uri.startswith(("http://", "https://"))
    address = store.without_credentials(uri).rstrip("/") if remote else f"http://127.0.0.1:{port}"
    console = Console()
    if (newest := runs.find_sweep(client, None)) is not None:
        console.print("newest sweep:", style="bold")
        console.print(f"  {comparison_link(address, newest)}", soft_wrap=True, highlight=False)
    if remote:
        return 0
    _check_free(port)
    console.print(f"serving {store.without_credentials(uri)} on {address}; Ctrl-C ends it")
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", uri, "--default-artifact-root", f"./{store.DEFAULT_ARTIFACTS}",
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        # A process group of its own: MLflow starts helpers, and all must end with it.
        server = subprocess.Popen(command, start_new_session=True, env=environment, stdout=log, stderr=log)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends this command ends its server
        try:
            server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end_group(server)
        log.seek(0)
        raise TrackingError(f"MLflow's server has ended with code {server.returncode}. It said:\n{log.read()[-2_000:]}")


def _check_free(port: int) -> None:
    """The server itself would say it in a traceback, and go on trying."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} of this machine is in use ({error.strerror}): give another with --port."
        ) from error


def comparison_link(address: str, sweep: object) -> str:
    """The page of MLflow that shows a sweep's trials side by side, with charts.

    An experiment opens on another page, and folds children under their parent, unless the link says otherwise.
    """
    info = sweep.info  # type: ignore[attr-defined]
    query = urlencode(
        {
            "workflowType": "machine_learning",
            "searchFilter": f'tags."mlflow.parentRunId" = "{info.run_id}"',
            "orderByKey": "attributes.run_name",
            "orderByAsc": "true",
            "compareRunsMode": "CHART",
        },
        quote_via=quote,
    )
    return f"{address}/#/experiments/{info.experiment_id}/runs?{query}"


def _end_group(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # helpers that did not hear it
