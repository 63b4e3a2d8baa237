"""Trials whose workers change while they run: groups of equal workers, and schedulers that can do so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import PlacementGroupFactory
from ray.tune.schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    ResourceChangingScheduler,
)
from ray.tune.schedulers.resource_changing_scheduler import DistributeResources, DistributeResourcesToTopJob

from hfsuite.errors import ConfigurationError, ResourcesError
from hfsuite.search.trial_schedulers import Budget, check_trial_scheduler
from hfsuite.sweeps.reallocation import gang_of, reallocate_gangs
from hfsuite.trials.resources import TrialRequest


def asked_for(returned: Any, has: TrialRequest) -> Any:
    scheduler = ResourceChangingScheduler(resources_allocation_function=lambda *_: returned)
    reallocate_gangs(scheduler)
    trial: Any = SimpleNamespace(placement_group_factory=has)
    return scheduler.reallocate_trial_resources_if_needed(None, trial, {"training_iteration": 1})


def test_a_trial_gets_a_gang_of_its_owner_or_nothing_new() -> None:
    one = TrialRequest([{}, {"CPU": 1}], strategy="PACK")
    one.owner = "sweep"
    wider = PlacementGroupFactory([{"CPU": 1, "GPU": 0}, {"CPU": 1}], strategy="PACK")
    request = asked_for(wider, one)
    assert request == TrialRequest([{}, {"CPU": 1}, {"CPU": 1}], strategy="PACK")
    assert (request.owner, request.head_bundle_is_empty, len(request.bundles)) == ("sweep", True, 2)
    assert asked_for(wider, request) is None, "it has that"
    assert asked_for(None, one) is None
    assert asked_for({"cpu": 4}, one).bundles == [{"CPU": 4}]


def test_workers_that_are_not_equal_are_refused() -> None:
    with pytest.raises(ResourcesError, match="have equal resources, one bundle each"):
        gang_of(PlacementGroupFactory([{"CPU": 1}, {"CPU": 2}]), owner="")


@pytest.mark.parametrize(
    ("scheduler", "fault"),
    [
        (ResourceChangingScheduler(), "would leave it one with all resources"),
        (ResourceChangingScheduler(None, DistributeResourcesToTopJob()), "ToTopJob(add_bundles=True)"),
        (ResourceChangingScheduler(HyperBandScheduler()), "HyperBandScheduler as its base_scheduler does so too"),
        (
            ResourceChangingScheduler(PopulationBasedTraining(hyperparam_mutations={"settings": {"x": [1, 2]}})),
            "PopulationBasedTraining as its base_scheduler does so too",
        ),
        (ResourceChangingScheduler(ASHAScheduler(metric="loss", mode="min")), "has a metric already"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_a_sweep(scheduler: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_trial_scheduler(scheduler, "random", "settings", ["x"], 2)
    assert fault in str(refused.value)


def test_its_budget_is_that_of_its_base() -> None:
    scheduler = ResourceChangingScheduler(ASHAScheduler(max_t=7), DistributeResources(add_bundles=True))
    check_trial_scheduler(scheduler, "random", "settings", ["x"], 2)
    check_trial_scheduler(ResourceChangingScheduler(), "random", "settings", ["x"], 1)
    assert Budget.of(scheduler) == Budget(7)
