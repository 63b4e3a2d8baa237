"""How far two checkpoints are apart, and when they are the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hfsuite.errors import CheckpointError
from hfsuite.reproduce.weights import _between

ONES = torch.ones(2, 3)


def folder(name: str, **tensors: torch.Tensor) -> Path:
    Path(name).mkdir()
    save_file({"w": ONES, **tensors}, Path(name, "model.safetensors"))
    return Path(name)


@pytest.mark.parametrize(
    ("other", "equal", "largest"),
    [
        (ONES, True, 0.0),
        (ONES + torch.tensor([0.0, 0.0, 0.5]), False, 0.5),
        (torch.full((2, 3), math.nan), False, math.inf),
        (ONES.to(torch.bfloat16), False, 0.0),
    ],
    ids=["the same", "other values", "no numbers", "another type"],
)
def test_equal_is_to_the_last_bit(own_directory: Path, other: torch.Tensor, equal: bool, largest: float) -> None:
    found = _between(folder("one", b=torch.tensor([-0.0])), folder("other", w=other, b=torch.tensor([-0.0])), 10)
    assert (found.equal, found.largest) == (equal, largest)
    assert math.isinf(found.relative) is math.isinf(largest)


def test_the_sign_of_zero_is_a_bit(own_directory: Path) -> None:
    found = _between(folder("one", b=torch.tensor([-0.0])), folder("other", b=torch.tensor([0.0])), 10)
    assert (found.equal, found.largest) == (False, 0.0)


@pytest.mark.parametrize("damage", ["cut", "gone", "other names", "another shape"])
def test_what_cannot_be_compared_says_why(own_directory: Path, damage: str) -> None:
    more: dict[str, Any] = {"other names": {"v": ONES.clone()}, "another shape": {"w": ONES[0].clone()}}.get(damage, {})
    one, other = folder("one"), folder("other", **more)
    if damage == "cut":
        (other / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes()[:-8])
    if damage == "gone":
        (other / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        _between(one, other, 10)
