"""Runs a recorded trial again, in new processes that have run nothing before. Driver.

They are a command of their own, `hfsuite train`: nothing of this process can leak into it, and it runs where its code
lies, which may be another version of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfsuite.errors import HFSuiteError
from hfsuite.reproduce.code import Code
from hfsuite.reproduce.recorded import RecordedRun

INTERRUPTED = 130


class RerunFailed(HFSuiteError, RuntimeError):
    """The repetition did not come to its end; what went wrong it has said itself."""


def rerun(
    run: RecordedRun, code: Code, *, tracking_uri: str, workers: int, reports: int | None, storage: str,
    changes: Mapping[str, Any],
) -> str:  # fmt: skip
    """Trains again; returns the id of the new run in MLflow.

    Args:
        run: what is repeated.
        code: where its code lies.
        tracking_uri: of the store that it is in, and that its repetition goes to.
        workers: how many ranks.
        reports: after how many it ends; None for its own end.
        storage: for its checkpoints.
        changes: settings that shall be others.

    Raises:
        RerunFailed: it did not come to its end.
        KeyboardInterrupt: it was interrupted.
    """
    ending = [] if reports is None else ["--reports", str(reports)]
    options = [*ending, "--reproduces", run.run_id, "--storage", storage, "--json"]
    answer = _train(run, code, options, workers=workers, tracking_uri=tracking_uri, changes=changes)
    if answer.get("tracking_fault") or not answer.get("run_id"):
        raise RerunFailed(f"The repetition of {run.title} was not recorded: {answer.get('tracking_fault')}")
    return str(answer["run_id"])


def facts_here(
    run: RecordedRun, code: Code, *, tracking_uri: str, workers: int, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """What a repetition would be given and where it would run: it is begun, and ends before its first step.

    Raises:
        RerunFailed: it does not come to that.
    """
    return _train(run, code, ["--facts"], workers=workers, tracking_uri=tracking_uri, changes=changes)


def _train(
    run: RecordedRun, code: Code, options: list[str], *, workers: int, tracking_uri: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    recipe = run.recipe
    with tempfile.TemporaryDirectory(prefix="hfsuite-") as folder:
        settings, output = Path(folder, "settings.json"), Path(folder, "answer.json")
        settings.write_text(json.dumps({**recipe["config"], **changes}), encoding="utf-8")
        command = [
            sys.executable, "-m", "hfsuite", "train", recipe["module"], "--settings", str(settings),
            "--workers", str(workers), "--gpu" if recipe["gpu"] else "--cpu", "--seed", str(recipe["seed"]),
            "--deterministic" if recipe["deterministic"] else "--no-deterministic", *options,
        ]  # fmt: skip
        with output.open("wb") as answer:
            process = subprocess.Popen(
                command, cwd=code.folder, env=_environment(run, code, tracking_uri), stdout=answer
            )
            try:
                returned = process.wait()
            except KeyboardInterrupt:  # the terminal has told it too
                process.wait()
                raise
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
        text = output.read_text(encoding="utf-8")
    if returned == INTERRUPTED:
        raise KeyboardInterrupt
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        found = {}
    if returned != 0 or not found:
        why = str(found.get("failure") or "what went wrong stands above").splitlines()[0]
        raise RerunFailed(f"The repetition of {run.title} has failed (exit code {returned}): {why}")
    return found


def _environment(run: RecordedRun, code: Code, tracking_uri: str) -> dict[str, str]:
    """Of a repetition: it records where the run is, and imports what is not in its own folder from here."""
    import ray

    paths = [str(code.folder), *map(str, code.also), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_EXPERIMENT_NAME": run.experiment_name,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    if ray.is_initialized():  # a job of its own there, which shares no process with this one
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return environment
