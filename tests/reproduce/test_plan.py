"""Differences of two surroundings, the worst first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hfsuite.reproduce.plan import Weight, differences, of_interruptions
from hfsuite.reproduce.surroundings import Surroundings
from tests.reproduce.test_verdict import run

FACTS: dict[str, Any] = {
    "threads": 1, "device": "cpu", "batch": {"per_device": 16, "accumulation": 1}, "seeds": {"seed": 1},
    "inputs": [
        {"context": "training", "name": "rows", "rows": 10, "digest": "a" * 32},
        {"context": "base model", "name": "bert", "digest": "b" * 32},
    ],
}  # fmt: skip
OTHER_ROWS = {"context": "training", "name": "rows", "rows": 10, "digest": "c" * 32}
COMMIT = {"commit": "1" * 40, "diff_digest": "1"}
SAME = Surroundings(
    environment={"git": COMMIT, "processor": "p", "environment": {"OMP_NUM_THREADS": "1"}, "module": "m"},
    packages={"torch": "2.1", "transformers": "5.1", "left-pad": "1"},
    source="x = 1\ny = 2\n", source_digest="1", diff=None,
    facts=FACTS, config={"lr": 0.1, "seed": 1}, seed=1, workers=1,
    deterministic=True,
)  # fmt: skip
OTHER_DIFF = {**SAME.environment, "git": {**COMMIT, "diff_digest": "2"}}


def test_the_same_has_none() -> None:
    assert differences(SAME, SAME) == []


@pytest.mark.parametrize(
    ("changes", "subject", "weight"),
    [
        ({"source": "x = 1\ny = 3\n", "source_digest": "2"}, "experiment's code", Weight.RESULT),
        ({"source": None, "source_digest": None}, "experiment's code", Weight.RESULT),
        ({"source_digest": "2"}, "experiment's code", Weight.RESULT),
        ({"diff": "+ x", "environment": OTHER_DIFF}, "uncommitted changes", Weight.RESULT),
        ({"environment": {**SAME.environment, "git": {**COMMIT, "commit": "2" * 40}}}, "commit", Weight.RESULT),
        ({"environment": {**SAME.environment, "processor": "q"}}, "processor", Weight.LAST_BITS),
        ({"packages": {**SAME.packages, "torch": "2.2"}}, "torch", Weight.LAST_BITS),
        ({"packages": {**SAME.packages, "transformers": "5.2"}}, "transformers", Weight.RESULT),
        ({"packages": {**SAME.packages, "left-pad": "2"}}, "other packages", Weight.NOTHING),
        ({"config": {"lr": 0.2, "seed": 1}}, "lr", Weight.RESULT),
        ({"config": {"lr": 0.1, "seed": 2}}, "seed", Weight.RESULT),
        ({"workers": 2}, "world size", Weight.RESULT),
        ({"deterministic": False}, "deterministic", Weight.LAST_BITS),
        ({"facts": {**FACTS, "threads": 2}}, "threads", Weight.LAST_BITS),
        ({"facts": {**FACTS, "batch": {"per_device": 8, "accumulation": 2}}}, "batch of a rank", Weight.LAST_BITS),
        ({"facts": {**FACTS, "device": "H200"}}, "device", Weight.LAST_BITS),
        ({"facts": {**FACTS, "seeds": {"seed": 2}}}, "seeds in use", Weight.RESULT),
        ({"facts": {**FACTS, "inputs": [OTHER_ROWS, FACTS["inputs"][1]]}}, "training", Weight.RESULT),
        ({"facts": {**FACTS, "inputs": FACTS["inputs"][:1]}}, "base model", Weight.RESULT),
    ],
)  # fmt: skip
def test_each_difference_is_found_and_weighed(changes: dict[str, Any], subject: str, weight: Weight) -> None:
    (found,) = differences(SAME, replace(SAME, **changes))
    assert (found.subject, found.weight) == (subject, weight)


def test_what_was_not_in_one_piece_is_said() -> None:
    assert of_interruptions(run()) == []
    (found,) = of_interruptions(run(restarts=[20]))
    assert (found.subject, found.weight) == ("interruption", Weight.LAST_BITS)
    (end,) = of_interruptions(run(state="failed"))
    assert (end.recorded, end.weight) == ("failed after step 20", Weight.NOTHING)
    changed = replace(run(restarts=[20]), resumed=({"command": "hfsuite resume", "source": "x", "packages": {}},))
    assert of_interruptions(changed)[0].recorded == "experiment's code, packages changed when it was resumed"


def test_the_worst_stands_first() -> None:
    found = differences(
        SAME, replace(SAME, packages={**SAME.packages, "left-pad": "2", "torch": "3"}, source="z", source_digest="2")
    )
    assert [each.subject for each in found] == ["experiment's code", "torch", "other packages"]


def test_what_is_not_known_yet_is_no_difference() -> None:
    assert differences(SAME, replace(SAME, facts={})) == []
