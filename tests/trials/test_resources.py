"""How many trials a cluster holds, by its nodes."""

from __future__ import annotations

from typing import Any

import pytest
from ray.train import ScalingConfig

from hfsuite.errors import ResourcesError
from hfsuite.trials import resources


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    def has(*nodes: dict[str, float]) -> None:
        monkeypatch.setattr(resources, "cluster_nodes", lambda: nodes)

    return has


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 4}], 2, 2),
        ([{"CPU": 2}], 2, 1),
        ([{"CPU": 4}], 9, 0),
        ([{"CPU": 3}, {"CPU": 3}], 2, 3),
        ([{"CPU": 1}, {"CPU": 1}], 2, 1),
    ],
)
def test_slots_on_cpus(cluster: Any, nodes: list[dict[str, float]], workers: int, expected: int) -> None:
    cluster(*nodes)
    assert resources.concurrent_trials(ScalingConfig(num_workers=workers), uses_ray_data=False) == expected


def test_gpus_count_and_fractions_share(cluster: Any) -> None:
    cluster({"CPU": 16, "GPU": 2})
    assert resources.concurrent_trials(ScalingConfig(num_workers=2, use_gpu=True), uses_ray_data=False) == 1
    sixth = ScalingConfig(num_workers=1, use_gpu=True, resources_per_worker={"GPU": 1 / 6})
    assert resources.concurrent_trials(sixth, uses_ray_data=False) == 10, "to Ray it is 0.1667, of which five fit a GPU"
    half = ScalingConfig(num_workers=1, use_gpu=True, resources_per_worker={"GPU": 0.5})
    assert resources.concurrent_trials(half, uses_ray_data=False) == 4


def test_a_strategy_can_forbid_what_the_sum_would_allow(cluster: Any) -> None:
    cluster({"CPU": 1}, {"CPU": 1})
    packed = ScalingConfig(num_workers=2, placement_strategy="STRICT_PACK")
    spread = ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD")
    assert resources.concurrent_trials(packed, uses_ray_data=False) == 0
    assert resources.concurrent_trials(spread, uses_ray_data=False) == 1
    cluster({"CPU": 4})
    assert resources.concurrent_trials(spread, uses_ray_data=False) == 0


def test_ray_data_needs_a_cpu_of_its_own(cluster: Any) -> None:
    cluster({"CPU": 2})
    resources.check_fits(ScalingConfig(num_workers=2), uses_ray_data=False)
    with pytest.raises(ResourcesError, match="2 CPU and 1 CPU beside it for Ray Data"):
        resources.check_fits(ScalingConfig(num_workers=2), uses_ray_data=True)


def test_local_mode_cannot_be_a_trial(cluster: Any) -> None:
    cluster({"CPU": 4})
    with pytest.raises(ResourcesError, match="num_workers is 0"):
        resources.check_fits(ScalingConfig(num_workers=0), uses_ray_data=False)
