"""`hfsuite ui`: MLflow's own interface, opened where a sweep can be compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Annotated
from urllib.parse import quote, urlencode

import typer
from rich.console import Console


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
    console.print(f"serving {store.without_credentials(uri)} on {address}; Ctrl-C ends it")
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", uri, "--default-artifact-root", f"./{store.DEFAULT_ARTIFACTS}",
    ]  # fmt: skip
    # A process group of its own: MLflow starts helpers, and all must end with it.
    server = subprocess.Popen(command, start_new_session=True, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends this command ends its server
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end_group(server)


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
