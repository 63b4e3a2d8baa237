"""A sweep's directory on storage, and the files in it. Driver."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow.fs

from hfsuite.errors import ConfigurationError
from hfsuite.own_values import as_text
from hfsuite.tracking.record import SweepRecord, TrialRecord

OWN_FOLDER = ".hfsuite"  # of what concerns the sweep as a whole
SWEEP_FILE = f"{OWN_FOLDER}/sweep.json"
TRIAL_FILE, REPORTS_FILE = "trial.json", "result.json"
RUN_FILE = "mlflow_run.txt"  # the id of a trial's run, so that it need not be searched for
FORMAT = 1


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

    def remove_file(self, name: str) -> None:
        """One file, if it is there."""
        if self.filesystem.get_file_info(f"{self.path}/{name}").is_file:
            self.filesystem.delete_file(f"{self.path}/{name}")

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
