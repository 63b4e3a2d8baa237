"""What is asked for, checked before anything starts: from the job to a sentence for each mistake. Driver.

Each check is a function. Those of a stage are all made, so that its mistakes are told at once; a later stage, which
takes longer, only where those before it have found nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args

from hfsuite.errors import ConfigurationError, did_you_mean
from hfsuite.naming import sweep_name_fault
from hfsuite.search.searchers import check_searcher
from hfsuite.search.trial_schedulers import check_trial_scheduler
from hfsuite.seeds import seed_fault
from hfsuite.sweeps import cluster
from hfsuite.sweeps.job import SEARCH, Job
from hfsuite.sweeps.request import AUTO, GROW, STAY, AtEnd
from hfsuite.sweeps.storage import check_storage
from hfsuite.tracking import keeping, store
from hfsuite.tracking.lock import DriverLock
from hfsuite.trials import resources

Check = Callable[[Job], list[str]]
TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "trials": ((Integral,), "a whole number"),
    "workers": ((Integral, type(None)), "a whole number, or None for the trainer's"),
    "gpu": ((bool, Real, type(None)), "True, False, 'auto', the part of a GPU, or None for the trainer's"),
    "storage": ((str, os.PathLike), "a folder or a URI"),
    "at_end": ((str, type(None)), "stay, spread, grow, or None"),
    "set": ((Mapping,), "a dict from names of settings to values"),
    "name": ((str, type(None)), "a text, or None for the experiment's and the time"),
    "deterministic": ((bool, type(None)), "True, False, or None: on CPUs"),
    "try_defaults": ((bool,), "True or False"),
}


NOWHERE, MEASURED = ("storage", ""), ("gpu", AUTO)


def check(job: Job, known: Sequence[str] = ()) -> None:
    """Makes all checks of a job. Afterwards Ray runs.

    Args:
        job: what is asked for.
        known: mistakes that the caller has found already; they are told with those of the first stage.

    Raises:
        ConfigurationError: every mistake of the first stage that finds one.
    """
    if wrong := types(job):  # nothing can be computed with these
        raise ConfigurationError([*known, *wrong])
    faults = list(known)
    for stage in STAGES:
        for each in stage:
            faults += each(job)
        if faults:
            raise ConfigurationError(faults)


def _refused(make: Callable[[], Any]) -> list[str]:
    """Why something cannot be; empty if it can."""
    try:
        make()
    except ConfigurationError as error:
        return list(error.faults)
    return []


# ---- that need nothing but what was written


def types(job: Job) -> list[str]:
    """Of what is asked for, where other checks compute with it."""
    given = {name: getattr(job.request, name) for name in TYPES}
    return [
        f"{name} must be {words}, got {value!r}."
        for name, value in given.items()
        for kinds, words in [TYPES[name]]
        if (name, value) != MEASURED
        and (
            not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or (name, value) == NOWHERE
        )
    ]


def settings(job: Job) -> list[str]:
    """Values of settings that are fixed."""
    return job.experiment.setting_faults(job.fixed)


def trials(job: Job) -> list[str]:
    """How many."""
    count = job.request.trials
    return [] if count >= 1 else [f"The number of trials must be at least 1, got {count}."]


def seed(job: Job) -> list[str]:
    """The sweep's."""
    return list(filter(None, [seed_fault(job.request.seed)]))


def name(job: Job) -> list[str]:
    """It becomes a folder's."""
    given = job.request.name
    return [] if given is None else list(filter(None, [sweep_name_fault(given)]))


def searcher(job: Job) -> list[str]:
    """Its name, and whether it can search this space."""
    searches = job.purpose.kind == SEARCH
    return _refused(lambda: check_searcher(job.request.searcher, job.choices.told(job.can_vary) if searches else None))


def worker_policy(job: Job) -> list[str]:
    """How long workers live."""
    return _refused(lambda: job.request.policy)


def keep(job: Job) -> list[str]:
    """Which checkpoints stay."""
    return _refused(lambda: keeping.parse_keep(job.request.keep))


def workers(job: Job) -> list[str]:
    """How many, and their GPUs."""
    return _refused(lambda: job.trainer)


def at_end(job: Job) -> list[str]:
    """What becomes of GPUs for which no trial waits."""
    asked, known = job.request.at_end, get_args(AtEnd)
    if asked is None or asked == STAY or workers(job):
        return []
    if asked not in known:
        return [f"at_end cannot be {asked!r}. {did_you_mean(asked, known)}"]
    if job.is_moved_otherwise:
        name = type(job.request.trial_scheduler).__name__
        return [f"at_end cannot be {asked!r} with {name}, which moves trials itself: leave it out."]
    if job.gpu_share not in (None, AUTO, 1.0):
        return [
            f"at_end cannot be {asked!r} where each worker has {job.gpu_share:g} GPUs: let the parts be measured "
            "(--gpu-share auto), or give each worker one (--gpu-share 1)."
        ]
    if asked == GROW and job.experiment.trainer.is_streamed:
        return ["at_end cannot be 'grow' where Ray Data is dealt out: the rows of an epoch depend on the workers."]
    return []


def fits_here(job: Job) -> list[str]:
    """This machine can hold a trial, where Ray will be started on it."""
    if workers(job) or cluster.is_there():
        return []
    scaling, uses_ray_data = job.trainer.scaling_config, job.trainer.is_streamed
    return _refused(lambda: resources.check_fits_here(scaling, uses_ray_data=uses_ray_data))


def trial_scheduler(job: Job) -> list[str]:
    """Its name, and whether it goes with the searcher."""
    size = 1 if workers(job) else job.trainer.scaling_config.num_workers
    argument, asked = job.experiment.trainer.config_argument, job.request
    return _refused(
        lambda: check_trial_scheduler(asked.trial_scheduler, asked.searcher, argument, job.experiment.defaults, size)
    )


# ---- that need a storage, then Ray


def storage(job: Job) -> list[str]:
    """It takes a file, and has no sweep of this name."""
    return _refused(lambda: check_storage(job.storage, job.name)) if job.purpose.resumed is None else []


def is_free(job: Job) -> list[str]:
    """Nobody else runs the sweep that is taken up again."""
    return [] if job.purpose.resumed is None else _refused(DriverLock(job.directory).check_free)


def tracking(job: Job) -> list[str]:
    """The address of the tracking store is one, and its server answers.

    Raises:
        TrackingError: it is not, or does not.
    """
    store.check_address(job.purpose.resumed.tracking_uri if job.purpose.resumed is not None else None)
    return []


def connects(job: Job) -> list[str]:
    """There is a Ray cluster; if none is named, it starts here."""
    return _refused(cluster.connect)


def fits(job: Job) -> list[str]:
    """The cluster can hold a trial."""
    scaling, uses_ray_data = job.trainer.scaling_config, job.trainer.is_streamed
    return _refused(lambda: resources.check_fits(scaling, uses_ray_data=uses_ray_data))


STAGES: tuple[tuple[Check, ...], ...] = (
    (settings, trials, seed, name, searcher, worker_policy, keep, workers, at_end, trial_scheduler, fits_here),
    (storage, is_free, tracking),
    (connects,),
    (fits,),
)
