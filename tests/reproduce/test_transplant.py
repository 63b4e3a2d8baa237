"""An experiment's module stands without Ray and hfsuite, or everything that holds it back is named."""

from __future__ import annotations

import ast

import pytest

from hfsuite.errors import ConfigurationError
from hfsuite.reproduce.transplant import transplant

MODULE = '''"""Mine."""

from __future__ import annotations

import ray.train
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from torch import nn

from hfsuite import AccelerateTrainer, Experiment, split_batch
from hfsuite.errors import ConfigurationError as Wrong
from search_spaces import vision

SIZE = 3  # of something


# Why this is so.
@staticmethod
def loop(settings):
    ray.train.report({"x": split_batch(8, ray.train.get_context().get_world_size())}, checkpoint=Checkpoint("x"))
    raise Wrong


def data():
    return __import__("importlib").util.find_spec("sklearn")


experiment = Experiment(
    name="mine",
    trainer=AccelerateTrainer(loop, accelerate_config={"mixed_precision": "bf16"}, scaling_config=ScalingConfig()),
    space={"x": tune.uniform(0, 1), **vision.space},
)

if __name__ == "__main__":
    from hfsuite.cli import run_module

    run_module(experiment)
'''


def test_imports_are_replaced_and_what_declares_the_experiment_goes() -> None:
    found = transplant(MODULE, "mine")
    imports = [each for each in ast.walk(ast.parse(found.code)) if isinstance(each, ast.Import | ast.ImportFrom)]
    roots = {(each.module or "" if isinstance(each, ast.ImportFrom) else each.names[0].name) for each in imports}
    assert roots == {"__future__", "standalone", "torch", "batch"}
    assert "from standalone import ConfigurationError as Wrong" in found.code
    assert "# Why this is so.\n@staticmethod\ndef loop" in found.code
    assert "SIZE = 3  # of something" in found.code
    assert "experiment" not in found.code.replace("experiments", "")
    assert (found.function, found.runner, found.accelerate_config) == (
        "loop",
        "train_loop",
        {"mixed_precision": "bf16"},
    )
    assert {"torch", "scikit-learn"} <= found.packages, "also what is only named in a text"


def test_all_that_cannot_be_taken_along_is_named() -> None:
    source = MODULE.replace("SIZE = 3", "SIZE = tune.uniform(0, 1)").replace(
        "    raise Wrong", "    print(SIZE)\n    ray.train.get_dataset_shard('train')\n    from . import helper"
    )
    with pytest.raises(ConfigurationError) as raised:
        transplant(source, "mine")
    assert len(raised.value.faults) == 3
    for part in ("uses tune, which only exists with Ray", "ray.train.get_dataset_shard", "its own package"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("line", "replaced"),
    [
        ("import os, ray, torch", ["import os", "from standalone import ray", "import torch"]),
        ("import ray.train as rt", ["from standalone import ray", "rt = ray.train"]),
        ("from ray import train", ["from standalone import ray", "train = ray.train"]),
        ("def f():\n    import ray", ["def f():", "    from standalone import ray"]),
        ("try:\n    import hfsuite\nexcept ImportError:\n    pass", ["try:", "    pass"]),
    ],
)
def test_imports_are_replaced_wherever_and_however_they_stand(line: str, replaced: list[str]) -> None:
    found = transplant(MODULE.replace("SIZE = 3  # of something", line), "mine")
    assert "\n".join(replaced) in found.code
    compile(found.code, "mine", "exec")


def test_what_lies_beside_the_module_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"it imports helper_of_mine, which is no installed package"):
        transplant(MODULE.replace("SIZE = 3  # of something", "import helper_of_mine"), "mine")


def test_a_trainer_is_found_by_its_keywords_too() -> None:
    source = MODULE.replace("AccelerateTrainer(loop,", "AccelerateTrainer(train_loop_per_worker=loop,")
    assert transplant(source.replace("experiment =", "experiment: object ="), "mine").function == "loop"
    with pytest.raises(ConfigurationError, match="accelerate_config is not a dict that is written out"):
        transplant(MODULE.replace('{"mixed_precision": "bf16"}', '"a.yaml"'), "mine")


def test_without_a_trainer_there_is_nothing_to_run() -> None:
    with pytest.raises(ConfigurationError, match="makes no TransformersTrainer or AccelerateTrainer"):
        transplant("x = 1\n", "mine")
