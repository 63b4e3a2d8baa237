"""`hfsuite ui`: MLflow's own interface, opened where a sweep can be compared."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from hfsuite.cli import completion
from hfsuite.errors import NO_SWEEP, ConfigurationError, TrackingError, UnknownName, did_you_mean


def ui(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP]", help="A sweep's name; by default the newest.", autocompletion=completion.sweeps
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Where to serve, on this machine only.")] = 5000,
) -> int:
    """Serve the MLflow interface over the recorded runs, and print links to a sweep's trials and their comparison."""
    from hfsuite.tracking import store
    from hfsuite.tracking.secrets import without_credentials

    uri = store.tracking_uri()
    if not store.has_been_made(uri):
        raise UnknownName(
            f"Nothing is recorded in {without_credentials(uri)} yet. Run a sweep (hfsuite sweep MODULE), go to the "
            "folder where one ran, or set MLFLOW_TRACKING_URI."
        )
    client = store.open_store()
    remote = uri.startswith(("http://", "https://"))
    address = without_credentials(uri).rstrip("/") if remote else f"http://127.0.0.1:{port}"
    links = _links(client, sweep, address)
    if remote:
        _show(Console(), links)
        return 0
    _check_free(port)
    return _serve(uri, port, address, links)


def _links(client: Any, sweep: str | None, address: str) -> dict[str, str]:
    """To a sweep's pages, by what they show; none where nothing is recorded.

    Raises:
        UnknownName: there is no such sweep.
    """
    from hfsuite.tracking import runs, views

    found = runs.find_sweep(client, sweep)
    if found is None and sweep is not None:
        raise UnknownName(f"MLflow has no sweep {sweep!r}. {did_you_mean(sweep, runs.sweep_names(client), NO_SWEEP)}")
    trials = runs.children(client, found) if found is not None else []
    if sweep is None and not trials:  # interrupted before its first trial: there is nothing to look at
        found = runs.newest_with_trials(client) or found
        trials = runs.children(client, found) if found is not None else []
    if found is None:
        return {}
    tags = client.get_experiment(found.info.experiment_id).tags
    links = {f"{found.info.run_name}, its trials and their curves": views.link(address, found, tags)}
    if trials:
        links["every detail side by side"] = views.comparison_link(address, found, trials)
    return links


def _serve(uri: str, port: int, address: str, links: dict[str, str]) -> int:
    """Serves until somebody ends it."""
    from hfsuite.tracking import store
    from hfsuite.tracking.secrets import without_credentials

    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--default-artifact-root", f"./{store.DEFAULT_ARTIFACTS}",
    ]  # fmt: skip
    # Jobs, for evaluations of language models, would be six more processes and leave a folder in the machine's memory.
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["MLFLOW_BACKEND_STORE_URI"] = uri  # a password in it is none of other users' business
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        # A process group of its own: MLflow starts helpers, and all must end with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends this command ends its server
        server = subprocess.Popen(command, start_new_session=True, env=environment, stdout=log, stderr=log)
        try:
            _wait_for_answer(server, f"{address}/health")
            if server.poll() is None:
                _show(console := Console(), links)
                console.print(f"serving {without_credentials(uri)} on {address}; Ctrl-C ends it")
            server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end_group(server)
        log.seek(0)
        raise TrackingError(f"MLflow's server has ended with code {server.returncode}. It said:\n{log.read()[-2_000:]}")


def _wait_for_answer(server: subprocess.Popen[bytes], address: str) -> None:
    """Until the server answers, or has ended."""
    from urllib.request import ProxyHandler, build_opener  # for which no other command shall wait

    directly = build_opener(ProxyHandler({}))
    while server.poll() is None:
        with suppress(OSError), directly.open(address, timeout=5):
            return
        time.sleep(0.2)


def _show(console: Console, links: dict[str, str]) -> None:
    """Prints the links, and opens the first where there is a screen to show it on."""
    for title, link in links.items():
        console.print(f"{title}:", style="bold", highlight=False)
        console.print(f"  {link}", soft_wrap=True, highlight=False)
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if links and has_screen and sys.stdout.isatty():
        typer.launch(next(iter(links.values())))


def _check_free(port: int) -> None:
    """The server itself would say it in a traceback, and go on trying."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} of this machine is in use ({error.strerror}): give another with --port."
        ) from error


def _end_group(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # helpers that did not hear it
