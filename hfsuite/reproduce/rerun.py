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
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from hfsuite.errors import TrialFailed
from hfsuite.reproduce.code import Code
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.tracking.declared import Program

INTERRUPTED = 130
END_WITHIN_S = 90.0  # its trial unwinds, and MLflow is told


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
        TrialFailed: it did not come to its end.
        KeyboardInterrupt: it was interrupted.
    """
    ending = [] if reports is None else ["--reports", str(reports)]
    name = f"{run.recipe['sweep']}-{run.recipe['number']:03d}-again-{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
    options = [*ending, "--reproduces", run.run_id, "--name", name, "--storage", storage, "--json"]
    answer = _train(run, code, options, workers=workers, tracking_uri=tracking_uri, changes=changes)
    if answer.get("tracking_fault") or not answer.get("run_id"):
        raise TrialFailed(f"The repetition of {run.title} was not recorded: {answer.get('tracking_fault')}")
    return str(answer["run_id"])


def facts_here(
    run: RecordedRun, code: Code, *, tracking_uri: str, workers: int, storage: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """What a repetition would be given and where it would run: it is begun, and ends before its first step.

    Raises:
        TrialFailed: it does not come to that.
    """
    return _train(
        run, code, ["--facts", "--storage", storage], workers=workers, tracking_uri=tracking_uri, changes=changes
    )


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
        recorded = Path(folder, "recorded.json")
        declaration = Program.of(recipe["experiment"], run.environment, code.text)
        recorded.write_text(json.dumps(asdict(declaration)), encoding="utf-8")
        command += ["--recorded", str(recorded)]
        for name in recipe["not_written"]:
            command += [] if name in changes else ["--by-text", name]  # the experiment must know what it stands for
        if share := recipe.get("gpu_share"):
            command += ["--gpu-share", str(share)]
        with output.open("wb") as answer, _terminated_like_interrupted():
            # In a session of its own, so that this process alone decides how it is told to end.
            process = subprocess.Popen(
                command, cwd=code.folder, env=_environment(run, code, tracking_uri), stdout=answer,
                start_new_session=True,
            )  # fmt: skip
            try:
                returned = process.wait()
            finally:
                _end(process)
        text = output.read_text(encoding="utf-8")
    if returned == INTERRUPTED:
        raise KeyboardInterrupt
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        found = {}
    if returned != 0 or not found:
        why = str(found.get("failure") or "what went wrong stands above").splitlines()[0]
        raise TrialFailed(f"The repetition of {run.title} has failed (exit code {returned}): {why}")
    return found


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM unwinds this process as Ctrl-C does, so that it ends what it has started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tells it to end in order, which a training that is interrupted does; one that does not is killed."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_WITHIN_S)
    finally:  # whoever presses Ctrl-C again does not want to wait
        process.kill()
        process.wait()


def _environment(run: RecordedRun, code: Code, tracking_uri: str) -> dict[str, str]:
    """Of a repetition: it records where the run is, and imports what is not in its own folder from here."""
    import ray

    paths = [
        str(code.folder),
        str(code.folder / "src"),
        *map(str, code.also),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_EXPERIMENT_NAME": run.experiment_name,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    if ray.is_initialized():  # a job of its own there, which shares no process with this one
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return environment
