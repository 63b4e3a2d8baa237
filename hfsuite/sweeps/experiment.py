"""What can be done with an experiment: search, train, take up again, confirm. Driver.

Ranks import the modules that declare experiments, and so this one: what a sweep needs is imported when one begins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hfsuite.declaration import Declaration
from hfsuite.errors import NO_SWEEP, TrialFailed, UnknownName, did_you_mean
from hfsuite.sweeps.launching import launches
from hfsuite.sweeps.request import OF_CONFIRMATION, OF_TRAINING, Request, takes

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from hfsuite.search.searchers import AnySearcher
    from hfsuite.sweeps.confirm import Confirmation
    from hfsuite.sweeps.result import SweepResult, TrialResult


class Experiment(Declaration):
    """A trainer with a search space and an objective, which can be swept. Declare one in a module, as `experiment`.

    Its arguments are those of `hfsuite.declaration.Declaration`: name, trainer, space, metric, mode, defaults,
    only_where, progress, test.
    """

    @launches
    @takes(*(each.name for each in fields(Request)))
    def sweep(self, **asked: Any) -> SweepResult:
        """Searches. Returns when all trials have ended. Driver; of several threads one after another.

        Args:
            asked: see `Request`.

        Raises:
            ConfigurationError: something asked for cannot be; all mistakes are named, and nothing was started.
            TrackingError: the MLflow store cannot be used.
            MetricNotReported: the first report has no such metric.
        """
        from hfsuite.sweeps.job import Job
        from hfsuite.sweeps.sweep import run

        return run(Job(self, Request.of("sweep", asked)))

    @launches
    def resume(
        self,
        sweep: str | None = None,
        *,
        storage: str | os.PathLike[str] = Request.storage,
        searcher: AnySearcher | None = None,
        trial_scheduler: TrialScheduler | None = None,
        retry_failed: bool = False,
    ) -> SweepResult:
        """Takes an interrupted sweep up again: finished trials stay, others go on from their last checkpoint. Driver.

        Args:
            sweep: its name; by default the newest of this experiment in `storage` that has not completed.
            storage: where it is.
            searcher: one like the sweep's own, if that was an object and not a name. Ray Tune restores its state.
            trial_scheduler: likewise; it begins anew, since Ray Tune does not save it.
            retry_failed: whether failed trials are tried again.

        Raises:
            ConfigurationError: there is no such sweep, it is being run, or it was asked to do what cannot be any more.
            TrackingError: the MLflow store cannot be used.
        """
        from hfsuite.sweeps.finding import find_directory
        from hfsuite.sweeps.sweep import resume_sweep

        directory, found = find_directory(sweep, os.fspath(storage), experiment=self.name)
        return resume_sweep(
            self, directory, found, searcher=searcher, trial_scheduler=trial_scheduler, retry_failed=retry_failed
        )

    @launches
    @takes(*OF_TRAINING)
    def train(self, config: Mapping[str, Any] | None = None, **asked: Any) -> TrialResult:
        """Trains once; tracked as a trial is. Driver.

        Args:
            config: settings over the default values.
            asked: see `Request`.

        Raises:
            TrialFailed: the training failed; with the rank's traceback.
            ConfigurationError, TrackingError, MetricNotReported: as for `sweep`.
        """
        from hfsuite.sweeps.sweep import run_training

        trial = run_training(self, Request.of("train", asked, among=OF_TRAINING, set=config or {}))
        if trial.failure is not None:
            raise TrialFailed(trial.failure)
        return trial

    @launches
    @takes(*OF_CONFIRMATION)
    def confirm(self, sweep: str, *, top: int = 3, seeds: int = 5, **asked: Any) -> Confirmation:
        """Trains a sweep's finalists with the same fresh seeds and tests them. See `hfsuite.sweeps.confirm`. Driver.

        Args:
            sweep: its name, or the id of its run.
            top: how many of the best trials.
            seeds: how many seeds at most.
            asked: see `Request`.

        Raises:
            UnknownName: MLflow has no such sweep.
            ConfigurationError: it cannot be done, with every reason.
        """
        from hfsuite.sweeps.confirm import confirm
        from hfsuite.tracking import runs, store

        client = store.open_store()
        if (parent := runs.find_sweep(client, sweep)) is None:
            raise UnknownName(
                f"MLflow has no sweep {sweep!r}. {did_you_mean(sweep, runs.sweep_names(client), NO_SWEEP)}"
            )
        request = Request.of("confirm", asked, among=OF_CONFIRMATION)
        return confirm(client, parent, self, request, top=top, seeds=seeds)
