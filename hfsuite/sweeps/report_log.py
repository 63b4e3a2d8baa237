"""Ray Tune's `result.json`, written where it stays: in the trial's directory. Driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.logger import JsonLoggerCallback
from ray.tune.result import EXPR_RESULT_FILE

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class ReportLog(JsonLoggerCallback):
    """Appends every report of a trial to its file, at once.

    Ray Tune's own class writes to a folder of the driver, which is copied to the sweep's storage now and then: a killed
    driver would lose reports that MLflow has been told of. On storage that is no folder it remains so.
    """

    def log_trial_start(self, trial: Trial) -> None:
        """A trial begins, or goes on."""
        if trial.storage.storage_filesystem.type_name != "local":
            super().log_trial_start(trial)
            return
        if trial in self._trial_files:
            self._trial_files[trial].close()
        trial.init_local_path()
        self.update_config(trial, trial.config)
        file = Path(trial.storage.trial_fs_path, EXPR_RESULT_FILE)
        file.parent.mkdir(parents=True, exist_ok=True)
        is_cut = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")  # a driver was killed while it wrote
        self._trial_files[trial] = file.open("at")
        if is_cut:
            self._trial_files[trial].write("\n")

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """The sweep is over, whatever its trials still do."""
        for trial in trials:
            self.log_trial_end(trial)
