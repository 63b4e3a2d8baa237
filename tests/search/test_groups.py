"""What would be drawn inside of another setting is refused where it is declared."""

from __future__ import annotations

from typing import Any

import pytest
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from hfsuite.errors import ConfigurationError

DEFAULTS: dict[str, Any] = {"optim": {"lr": 0.1, "wd": 0.0}, "layers": [1, 2], "lr": 0.1, "kind": None}


def declare(space: dict[str, Any], **defaults: Any) -> Experiment:
    return Experiment(
        name="groups",
        trainer=AccelerateTrainer(lambda _: None, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
        space=space,
        metric="loss",
        mode="min",
        defaults={**DEFAULTS, **defaults},
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim": {"lr": tune.loguniform(1e-5, 1e-1), "wd": 0.1}}, "draws 'optim.lr' inside of 'optim'.*'optim_lr'"),
        ({"optim": {"deep": {"lr": tune.grid_search([1, 2])}}}, "draws 'optim.deep.lr'.*'optim_deep_lr'"),
        ({"optim": {"lr": tune.sample_from(lambda _: 1.0)}}, "draws 'optim.lr'"),
        ({"layers": [1, tune.randint(1, 3)]}, "draws 'layers.1' inside of 'layers'.*'layers_1'"),
        ({"layers": (1, {"width": tune.randint(1, 3)})}, "draws 'layers.1.width'"),
        ({"kind": tune.choice([1, tune.uniform(0, 1)])}, "a domain among the values of 'kind'"),
        ({"kind": tune.choice([{"lr": tune.uniform(0, 1)}, {"lr": 1.0}])}, "among the values of 'kind'.*'kind_lr'"),
        ({"kind": tune.grid_search([{"lr": [tune.uniform(0, 1)]}])}, "among the values of 'kind'.*'kind_lr_0'"),
        ({"lr": tune.choice([0.1, tune.uniform(0, 1)])}, "among the values of 'lr'"),
        ({"kind": {"grid_search": tune.choice([1, 2])}}, "lists for 'kind' must be a list"),
        ({"kind": {"grid_search": 5}}, "lists for 'kind' must be a list, got 5"),
    ],
)  # fmt: skip
def test_a_domain_that_no_record_would_show_is_refused_in_one_sentence(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        declare(space)
    assert len(caught.value.faults) == 1


def test_a_domain_is_no_default_value_and_no_fixed_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'kind' is given a domain.*give a value"):
        declare({"lr": tune.uniform(0, 1)}, kind=tune.uniform(0, 1))
    with pytest.raises(ConfigurationError, match=r"'optim\.lr' is given a list to try"):
        declare({"lr": tune.uniform(0, 1)}, optim={"lr": tune.grid_search([1])})
    (fault,) = declare({"lr": tune.uniform(0, 1)}).setting_faults({"optim": {"lr": tune.uniform(0, 1)}})
    assert "'optim.lr' is given a domain" in fault


def test_a_name_that_ray_would_divide_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be called 'a/b'.*Call it 'a_b'"):
        declare({"lr": tune.uniform(0, 1)}, **{"a/b": 1})
    with pytest.raises(ConfigurationError, match=r"cannot be called 'optim\.c/d'.*Call it 'c_d'"):
        declare({"optim": tune.choice([{"c/d": 1}, {"e": 1}]), "lr": tune.uniform(0, 1)})
    with pytest.raises(ConfigurationError, match="Names of settings are texts, got 3"):
        declare({"lr": tune.uniform(0, 1)}, kind={3: 1})
    (fault,) = declare({"lr": tune.uniform(0, 1)}).setting_faults({"optim": {"c/d": 1}})
    assert "'optim.c/d'" in fault


def test_groups_of_constants_stay_and_so_do_choices_among_them() -> None:
    declare({
        "optim": {"lr": 0.1, "wd": [1, 2]},
        "layers": [3, 4],
        "lr": {"grid_search": [0.1, 0.2]},
        "kind": tune.choice([{"lr": 0.1}, [1, 2], None]),
    })  # fmt: skip


def test_other_mistakes_are_named_beside_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare({"optim": {"lr": tune.uniform(0, 1)}, "unknown": 1, "lr": tune.choice(["a"])})
    assert len(caught.value.faults) == 3
