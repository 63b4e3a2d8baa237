"""What completes a report when all ranks have made it: its checkpoint is sealed, its metrics are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray.train import Checkpoint, UserCallback

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import store_preprocessor
from hfsuite.report import TRAINING_FINISHED

if TYPE_CHECKING:
    from ray.data.preprocessor import Preprocessor

LAST_REPORT = "last_report.json"  # Ray keeps only those metrics that came with a checkpoint


class ReportObserver(UserCallback):
    """Completes each report: seals its checkpoint and keeps its metrics. Runs where Ray Train's controller runs.

    Args:
        preprocessor: stored in every checkpoint.
        world_size: number of ranks.
    """

    def __init__(self, preprocessor: Preprocessor | None, world_size: int) -> None:
        self.preprocessor, self.world_size = preprocessor, world_size

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """All ranks have reported and uploaded."""
        if checkpoint is not None:
            if self.preprocessor is not None:
                store_preprocessor(checkpoint, self.preprocessor)
            manifest.seal(checkpoint, metrics[0], self.world_size)
        storage = run_context.get_run_config().storage_context
        with storage.storage_filesystem.open_output_stream(f"{storage.experiment_fs_path}/{LAST_REPORT}") as stream:
            stream.write(json.dumps(_plain(metrics[0])).encode())


def _plain(value: Any) -> Any:
    """What a report may hold as JSON can: numbers and arrays of NumPy as numbers and lists, anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if key != TRAINING_FINISHED}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
