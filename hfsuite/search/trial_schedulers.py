"""Trial schedulers by name: Ray Tune's own, which stop trials that fall behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandForBOHB,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    ResourceChangingScheduler,
    TrialScheduler,
)
from ray.tune.schedulers.resource_changing_scheduler import DistributeResources

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean
from hfsuite.search.populations import keep_within_domains

LONGEST = 10_000  # reports; beyond any trial, so that a schedule ends when the training does and not before

SCHEDULERS: dict[str, tuple[str, Callable[[], TrialScheduler]]] = {
    "asha": (
        "after reports 1, 3, 9, ... only the best third goes on",
        lambda: ASHAScheduler(max_t=LONGEST, grace_period=1, reduction_factor=3),
    ),
    "median": (
        "stops what is below the median of the others' running averages",
        lambda: MedianStoppingRule(time_attr="training_iteration", grace_period=1, min_samples_required=3),
    ),
    "fifo": ("stops nothing", FIFOScheduler),
}


def check_trial_scheduler(
    scheduler: str | TrialScheduler, searcher: Any, configuration: str, settings: Collection[str], workers: int = 1
) -> None:
    """Refuses a name that does not exist, and a scheduler of Ray Tune's that cannot work in this sweep.

    Args:
        scheduler: a name, or one of Ray Tune's.
        searcher: which shall propose beside it.
        configuration: what the settings are called in Ray Tune's configuration, "trainer_init_config" for example.
        settings: the names of those that a trial is given.
        workers: of a trial.

    Raises:
        UnknownName: with the nearest names.
        ConfigurationError: it has a metric of its own; or it is Population Based Training, and a searcher proposes
            too, or its mutations name no settings; or it changes resources in a way that a trial's workers cannot have.
    """
    if isinstance(scheduler, str):
        if scheduler not in SCHEDULERS:
            raise UnknownName(f"There is no trial scheduler {scheduler!r}. {did_you_mean(scheduler, SCHEDULERS)}")
    elif not isinstance(scheduler, TrialScheduler):
        raise ConfigurationError(f"A trial scheduler is a name or one of Ray Tune's schedulers, got {scheduler!r}.")
    elif _has_metric(scheduler) or _has_metric(_base(scheduler)):
        raise ConfigurationError(
            f"This {type(scheduler).__name__} has a metric already, its own or another sweep's: make a new one without "
            "metric and mode, which the experiment names."
        )
    elif isinstance(scheduler, PopulationBasedTraining) and searcher not in (None, "grid"):
        raise ConfigurationError(
            f"{type(scheduler).__name__} changes settings itself and cannot be combined with a searcher, "
            f"got {searcher!r}: use the searcher 'grid', which draws the first population."
        )
    elif isinstance(scheduler, PopulationBasedTraining) and set(scheduler._hyperparam_mutations) != {configuration}:
        raise ConfigurationError(
            f"hyperparam_mutations of {type(scheduler).__name__} names {sorted(scheduler._hyperparam_mutations)}: "
            f"put the settings below {configuration!r}, where trials have them: {{{configuration!r}: {{...}}}}."
        )
    elif isinstance(scheduler, PopulationBasedTraining):
        unknown = [name for name in scheduler._hyperparam_mutations[configuration] if name not in settings]
        if unknown:  # Ray Tune would find out at the first exploit, and end the sweep
            raise ConfigurationError(
                " ".join(
                    f"hyperparam_mutations names {name!r}, which no trial has. {did_you_mean(name, settings)}"
                    for name in unknown
                )
            )

    elif isinstance(scheduler, ResourceChangingScheduler):
        _check_reallocation(scheduler, workers)


def _check_reallocation(scheduler: ResourceChangingScheduler, workers: int) -> None:
    base, function = _base(scheduler), scheduler._resources_allocation_function
    if isinstance(base, PopulationBasedTraining | HyperBandScheduler | ResourceChangingScheduler):
        raise ConfigurationError(
            f"ResourceChangingScheduler pauses trials, and {type(base).__name__} as its base_scheduler does so too: "
            "neither would find them as it left them. Give it ASHAScheduler, MedianStoppingRule or FIFOScheduler."
        )
    if workers > 1 and isinstance(function, DistributeResources) and not function.add_bundles:
        raise ConfigurationError(
            f"A trial has {workers} workers, one bundle each, and {type(function).__name__} would leave it one with "
            "all resources: give ResourceChangingScheduler(resources_allocation_function="
            f"{type(function).__name__}(add_bundles=True)), which adds workers."
        )


def _base(scheduler: TrialScheduler) -> TrialScheduler:
    """What decides about trials: of a scheduler that changes resources the one inside of it."""
    return scheduler._base_scheduler if isinstance(scheduler, ResourceChangingScheduler) else scheduler


def _has_metric(scheduler: TrialScheduler) -> bool:
    return getattr(scheduler, "_metric", None) is not None


def make_trial_scheduler(
    scheduler: str | TrialScheduler, space: Mapping[str, Any] = MappingProxyType({})
) -> TrialScheduler:
    """The trial scheduler of a sweep. Driver.

    Args:
        scheduler: one of `SCHEDULERS`, or any of Ray Tune's, which is taken as it is; a population is kept within the
            domains of its mutations.
        space: as Ray Tune's configuration has it, {"trainer_init_config": {...}} for example.
    """
    if isinstance(scheduler, str):
        return SCHEDULERS[scheduler][1]()
    if isinstance(scheduler, PopulationBasedTraining):
        keep_within_domains(scheduler, space)
    return scheduler


def what_hyperband_needs(scheduler: TrialScheduler, *, slots: int, trials: int, are_drawn_ahead: bool) -> str | None:
    """A sentence if Ray Tune's HyperBand stops no trial of a sweep, or none that ends by itself; None otherwise.

    Its first bracket trains whatever it is given to the end. The next one, which stops trials, begins when the first is
    full: of trials that run, wait or are paused, since those that are over leave it.

    Args:
        scheduler: of the sweep.
        slots: how many trials run at a time.
        trials: how many there are to be.
        are_drawn_ahead: whether trials wait for a slot to be free, as those of the searcher "grid" do; any other
            searcher proposes one when there is one.
    """
    if not isinstance(scheduler, HyperBandScheduler) or isinstance(scheduler, HyperBandForBOHB):
        return None  # that for BOHB begins with the bracket that stops most
    places, limit = scheduler._get_n0(0), f"max_t ({scheduler._max_t_attr:g} {scheduler._time_attr})"
    if trials <= places:
        return (
            f"HyperBand stops none of {trials} trials: its first bracket has {places} places, and trains all that it "
            f"holds to their end. Run more trials, give it a smaller {limit}, or use 'asha'."
        )
    if slots < places and not are_drawn_ahead:
        return (
            f"HyperBand stops nothing where trials end by themselves within its {limit}: its first bracket, which "
            f"stops none, has {places} places, and with {slots} at a time they are never all taken. Give it a smaller "
            "max_t, or use 'asha', which waits for nobody."
        )
    return None


@dataclass(frozen=True)
class Budget:
    """How much a trial scheduler ever gives to a trial. Small enough to be saved with the searcher's state.

    Args:
        longest: in units of `time_attribute`; None where the scheduler sets no end.
        time_attribute: the reported number that the scheduler counts by.
    """

    longest: float | None
    time_attribute: str = "training_iteration"

    @classmethod
    def of(cls, scheduler: TrialScheduler) -> Budget:
        """The budget of a scheduler of Ray Tune's. Its name there differs by class."""
        scheduler = _base(scheduler)
        longest = getattr(scheduler, "_max_t", None) or getattr(scheduler, "_max_t_attr", None)
        return cls(longest, getattr(scheduler, "_time_attr", "training_iteration"))

    def is_spent(self, report: Mapping[str, Any]) -> bool:
        """Whether a trial that was stopped at this report got all that there is: then it was not pruned."""
        return self.longest is not None and report.get(self.time_attribute, 0) >= self.longest
