"""Trials whose workers change while they run: Ray Tune's ResourceChangingScheduler. Driver.

It pauses a trial at a report, and lets it go on from its checkpoint in a placement group of other bundles. Ray Tune's
own functions that say which know nothing of gangs: their groups have no place for a trial's driver, and belong to
nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.execution.placement_groups import PlacementGroupFactory, resource_dict_to_pg_factory
from ray.tune.schedulers.resource_changing_scheduler import ResourceChangingScheduler

from hfsuite.errors import ResourcesError
from hfsuite.trials.resources import TrialRequest


def reallocate_gangs(scheduler: ResourceChangingScheduler) -> None:
    """Has a scheduler ask for gangs of workers, one a bundle, whatever its function returns.

    Args:
        scheduler: is changed.
    """
    scheduler.reallocate_trial_resources_if_needed = _Reallocation(scheduler)


@dataclass(frozen=True)
class _Reallocation:
    """What a trial shall have from now on; None if that is what it has."""

    scheduler: ResourceChangingScheduler

    def __call__(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> TrialRequest | None:
        own = type(self.scheduler).reallocate_trial_resources_if_needed
        asked = own(self.scheduler, controller, trial, result)
        if not asked:
            return None
        request = gang_of(asked, owner=trial.placement_group_factory.owner)
        return None if request == trial.placement_group_factory else request


def gang_of(asked: PlacementGroupFactory | Mapping[str, float], *, owner: str) -> TrialRequest:
    """The group of a trial whose workers have these bundles.

    Raises:
        ResourcesError: they are not equal, as workers are.
    """
    group = asked if isinstance(asked, PlacementGroupFactory) else resource_dict_to_pg_factory(dict(asked))
    wanted = [{name: amount for name, amount in bundle.items() if amount} for bundle in group.bundles]
    bundles = [bundle for bundle in wanted if bundle]
    if not bundles or any(bundle != bundles[0] for bundle in bundles):
        raise ResourcesError(
            f"The workers of a trial have equal resources, one bundle each, and the resources_allocation_function "
            f"returned {group.bundles}: return a PlacementGroupFactory of equal bundles, or use "
            "DistributeResources(add_bundles=True)."
        )
    request = TrialRequest([{}, *bundles], strategy=group.strategy)
    request.owner = owner
    return request
