"""What a sweep's directory says about it: enough to take it up again, and to fill a tracking store from nothing.

Ray Tune writes each trial's reports to `result.json`, a line each. Beside it, `trial.json` says what Tune does not:
the trial's number, state and settings, and which checkpoints were kept. `.hfsuite/sweep.json` describes the sweep
(not in its directory itself: Ray Tune copies the JSON files that lie there over newer ones). MLflow is only ever told
what these files say. Written by the driver, read by whoever syncs.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.fs

from hfsuite.errors import ConfigurationError
from hfsuite.tracking.state import TrialState
from hfsuite.trainers.own_values import as_text, as_written, is_written

OWN_FOLDER = ".hfsuite"  # of what concerns the sweep as a whole
SWEEP_FILE = f"{OWN_FOLDER}/sweep.json"
TRIAL_FILE, REPORTS_FILE, FAILURE_FILE = "trial.json", "result.json", "failure.txt"
RUN_FILE = "mlflow_run.txt"  # the id of a trial's run, so that it need not be searched for
FORMAT = 1


@dataclass(kw_only=True)
class Snapshot:
    """A report that counts, and the checkpoint that came with it.

    Args:
        directory: of the checkpoint, in the trial's directory; None if the report had none that is kept.
        step: the optimizer step.
        metrics: the numbers of the report.
        timestamp: of the report, milliseconds since 1970.
        weights: digest of the checkpoint's weights; see `manifest.weights_digest`. None until the trial is over.
        changed: the settings that were others by then than when the trial began: a population changes them.
    """

    directory: str | None
    step: int
    metrics: dict[str, float]
    timestamp: int
    weights: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class TrialRecord:
    """One trial, as it stands.

    Args:
        number: its place in the sweep, from 0.
        trial_id: Ray Tune's name for it.
        state: where it stands.
        why: what ended it, where that is not its own end: "asha at step 30".
        config: its settings when it began, defaults included.
        searched: the names of those that the search varied.
        idle: the names of those that do not count where the others have the values of its best report.
        reports: how many reports it has made.
        seconds: how long it has run.
        started_at: milliseconds since 1970; None until it has.
        ended_at: likewise.
        warm_start: whether its workers had run a trial before.
        not_written: the names of settings that no file can hold: a text stands for each of them in `config`.
        failure: what went wrong, in one line; the traceback is in `failure.txt`.
        best: its best report so far; of those with a checkpoint that is still there, if any is.
        last: the last report that came with a checkpoint, when the trial is over; that may be gone.
        saved: the checkpoints that it has saved and that were not removed, oldest first.
        kept: those of them that the sweep's policy keeps, which MLflow shows as models.
    """

    number: int
    trial_id: str
    state: TrialState = TrialState.PENDING
    why: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    searched: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    reports: int = 0
    seconds: float = 0.0
    started_at: int | None = None
    ended_at: int | None = None
    warm_start: bool | None = None
    failure: str = ""
    best: Snapshot | None = None
    last: Snapshot | None = None
    saved: list[Snapshot] = field(default_factory=list)
    kept: list[Snapshot] = field(default_factory=list)

    @property
    def directory(self) -> str:
        """In the sweep's directory."""
        return trial_directory(self.number)

    def note_settings(self, config: Mapping[str, Any]) -> None:
        """As the trial began with them: parameters do not change, and metrics tell how settings did."""
        if not self.config:
            self.config = as_written(dict(config))
            self.not_written = [name for name, value in config.items() if not is_written(value)]

    @property
    def config_at_best(self) -> dict[str, Any]:
        """The settings with which it made its best report."""
        return self.config_at(self.best)

    def config_at(self, snapshot: Snapshot | None) -> dict[str, Any]:
        """The settings with which it made a report; those that it began with if it has made none."""
        return {**self.config, **(snapshot.changed if snapshot is not None else {})}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialRecord:
        """What `trial.json` holds."""
        best, last = (Snapshot(**each) if (each := values.get(name)) else None for name in ("best", "last"))
        saved, kept = ([Snapshot(**each) for each in values[name]] for name in ("saved", "kept"))
        return cls(
            **{**values, "state": TrialState(values["state"]), "best": best, "last": last, "saved": saved, "kept": kept}
        )


@dataclass(kw_only=True)
class SweepRecord:
    """A sweep, or a single training: what it was asked to do, and how it stands.

    Args:
        sweep_id: its own, whatever it is called.
        name: unique in its storage.
        kind: "sweep" or "train".
        experiment: the name of what is swept.
        module: where it is declared.
        metric: what is optimised.
        mode: "min" or "max".
        path: its directory, a path or a URI without credentials.
        planned: number of trials.
        arguments: of `Experiment.sweep`, as far as they can be written down; with them it is taken up again.
        params: what MLflow shows of them.
        mlflow_experiment: the MLflow experiment that its runs go to.
        tracking_uri: of the store, if a name and a password are not part of it.
        provenance: where it came from; see `tracking.provenance`.
        created_at: milliseconds since 1970.
        ended_at: likewise; None while it runs.
        state: RUNNING, COMPLETED, FAILED, STOPPED or LOST.
        best: number of the best trial.
        fault: of the driver, if it ended by an error.
        reproduces: of a training that repeats one: the id of that one's run.
        confirms: of a sweep over the finalists of another: the id of that one's run.
        confirms_sweep: likewise, its name.
        decides_at_end: whether only a finished sweep knows which checkpoints may go, since a population exploits them.
    """

    sweep_id: str
    name: str
    kind: str
    experiment: str
    module: str
    metric: str
    mode: str
    path: str
    planned: int
    arguments: dict[str, Any]
    params: dict[str, Any]
    mlflow_experiment: str
    tracking_uri: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    created_at: int
    ended_at: int | None = None
    state: TrialState = TrialState.RUNNING
    best: int | None = None
    fault: str | None = None
    reproduces: str | None = None
    confirms: str | None = None
    confirms_sweep: str | None = None
    decides_at_end: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepRecord:
        """What `sweep.json` holds."""
        return cls(**{**values, "state": TrialState(values["state"])})


def trial_directory(number: int) -> str:
    """The name of a trial's directory, in its sweep's."""
    return f"trial_{number:03d}"


class SweepDirectory:
    """A sweep's directory on storage. Driver.

    Args:
        filesystem: of the storage.
        path: there.
    """

    def __init__(self, filesystem: pyarrow.fs.FileSystem, path: str) -> None:
        self.filesystem, self.path = filesystem, path.rstrip("/")

    @classmethod
    def at(cls, storage: str, name: str) -> SweepDirectory:
        """By the folder or URI of the storage, and the sweep's name."""
        if "://" not in storage:
            return cls(pyarrow.fs.LocalFileSystem(), os.path.join(os.path.abspath(storage), name))
        filesystem, root = pyarrow.fs.FileSystem.from_uri(storage)
        return cls(filesystem, posixpath.join(root, name))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, or mounted like one."""
        return bool(self.filesystem.type_name == "local")

    @property
    def exists(self) -> bool:
        """Whether a sweep has left a record there."""
        return bool(self.filesystem.get_file_info(f"{self.path}/{SWEEP_FILE}").is_file)

    def read_sweep(self) -> SweepRecord:
        """The sweep's record.

        Raises:
            ConfigurationError: there is none, or one that this version cannot read.
        """
        values = self._read(SWEEP_FILE)
        if values is None:
            raise ConfigurationError(f"There is no record of a sweep in {self.path}: {SWEEP_FILE} is missing.")
        try:
            return SweepRecord.from_json(values)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"The record of the sweep in {self.path} cannot be read ({error}): another version of hfsuite wrote it."
            ) from error

    def write_sweep(self, record: SweepRecord) -> None:
        """Replaces the sweep's record."""
        self._write(SWEEP_FILE, asdict(record))

    def read_trials(self) -> list[TrialRecord]:
        """The records of all trials, in the order of their numbers; one that is half written is left out."""
        found = []
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        for entry in self.filesystem.get_file_info(selector):
            if entry.type == pyarrow.fs.FileType.Directory and entry.base_name.startswith("trial_"):
                values = self._read(f"{entry.base_name}/{TRIAL_FILE}")
                if values is not None:
                    found.append(TrialRecord.from_json(values))
        return sorted(found, key=lambda record: record.number)

    def write_trial(self, record: TrialRecord) -> None:
        """Replaces a trial's record."""
        self._write(f"{record.directory}/{TRIAL_FILE}", asdict(record))

    def names(self) -> set[str]:
        """What lies in it; nothing if it is not there."""
        found = self.filesystem.get_file_info(pyarrow.fs.FileSelector(self.path, allow_not_found=True))
        return {entry.base_name for entry in found}

    def folders(self, name: str) -> set[str]:
        """The names of the directories in one of its directories."""
        selector = pyarrow.fs.FileSelector(f"{self.path}/{name}", allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {entry.base_name for entry in found if entry.type == pyarrow.fs.FileType.Directory}

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""
        if not self.filesystem.get_file_info(f"{self.path}/{name}").is_file:
            return None
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return bytes(stream.read())

    def read_text(self, name: str) -> str | None:
        """Likewise, of a text."""
        data = self.read(name)
        return data.decode(errors="replace") if data is not None else None

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file as a whole: whoever reads it, even after a kill in the middle, sees one or the other."""
        path = f"{self.path}/{name}"
        own = f"{path}.new" if self.is_local else path  # object stores replace a file as a whole
        self.filesystem.create_dir(posixpath.dirname(path), recursive=True)
        with self.filesystem.open_output_stream(own) as stream:
            stream.write(data)
        if own != path:
            os.replace(own, path)

    def remove(self) -> None:
        """All of it, if it is there."""
        if self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound:
            self.filesystem.delete_dir(self.path)

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self.read_text(name)
        try:
            values = json.loads(text) if text else None
        except ValueError:
            return None
        if values is not None and values.pop("format", FORMAT) != FORMAT:
            raise ConfigurationError(f"{self.path}/{name} has a format that this version of hfsuite does not know.")
        return values

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        self.write(name, json.dumps({"format": FORMAT, **values}, default=as_text).encode())


class ReportReader:
    """Reads the reports of a trial as they are appended, each once.

    Args:
        filesystem: where the file is.
        path: of Ray Tune's `result.json`; it need not be there yet.
    """

    def __init__(self, filesystem: pyarrow.fs.FileSystem, path: str) -> None:
        self.filesystem, self.path, self.offset = filesystem, path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        """What was appended since the last call, as far as it is whole lines."""
        if self.filesystem.get_file_info(self.path).size in (None, self.offset):
            return
        with self.filesystem.open_input_file(self.path) as file:
            file.seek(self.offset)
            data = bytes(file.read())
        whole = data.rpartition(b"\n")[0]
        self.offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # a driver was killed while it wrote
                continue
