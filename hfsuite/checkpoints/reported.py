"""The checkpoint from which an interrupted trial goes on: the newest that is complete, and of which a report is known.

Ray Tune writes down now and then which checkpoint a trial has. A driver that was killed may have deleted that one, and
received others; a rank may have saved one whose report nobody has received. What a trial has told of is in Tune's
`result.json`, a line a report. Runs in the trial's actor, and in drivers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow.fs
from ray.train import Checkpoint
from ray.tune.result import EXPR_RESULT_FILE, SHOULD_CHECKPOINT

from hfsuite.checkpoints import manifest
from hfsuite.errors import CheckpointError


def newest_reported(filesystem: pyarrow.fs.FileSystem, directory: str) -> tuple[Checkpoint, Mapping[str, Any]] | None:
    """The checkpoint, and the report that it came with; None if there is none.

    Args:
        filesystem: of the storage.
        directory: the trial's.
    """
    reports = _reports_with_checkpoints(filesystem, directory)
    found = []
    for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(directory, allow_not_found=True)):
        if entry.type == pyarrow.fs.FileType.Directory and entry.base_name.startswith("checkpoint_"):
            checkpoint = Checkpoint(entry.path, filesystem)
            with suppress(CheckpointError):
                sealed = manifest.read(checkpoint)
                if sealed["step"] is not None and sealed["step"] in reports:
                    found.append((sealed["sealed_at"], checkpoint.path, checkpoint, reports[sealed["step"]]))
    for _, _, checkpoint, report in sorted(found, key=lambda each: each[:2], reverse=True):
        with suppress(CheckpointError):
            manifest.verify(checkpoint)
            return checkpoint, report
    return None


def _reports_with_checkpoints(filesystem: pyarrow.fs.FileSystem, directory: str) -> dict[Any, dict[str, Any]]:
    """The last report at each optimizer step, of those that came with a checkpoint."""
    path = f"{directory}/{EXPR_RESULT_FILE}"
    if not filesystem.get_file_info(path).is_file:
        return {}
    found = {}
    with filesystem.open_input_stream(path) as stream:
        for line in stream.read().splitlines():
            with suppress(ValueError):  # a driver was killed while it wrote
                report = json.loads(line)
                if report.get(SHOULD_CHECKPOINT):
                    found[report.get("step")] = report
    return found
