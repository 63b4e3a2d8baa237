"""What a rank prints, and where it works."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pyarrow.fs

from hfsuite.ranks.surroundings import OutputFile, in_scratch, name_of_scratch, python_numbers, remove_scratch


def test_output_goes_to_the_file_and_afterwards_where_it_went_before(tmp_path: Path) -> None:
    local = pyarrow.fs.LocalFileSystem()
    output = OutputFile(local, str(tmp_path), tmp_path / "rank_0.log")
    before = [os.fstat(number)[:2] for number in (1, 2)]
    open_before = len(os.listdir("/proc/self/fd"))
    with output:
        os.write(1, b"from C++\n")
        os.write(2, b"an error\n")
    assert output.path.read_text() == "from C++\nan error\n"
    assert [os.fstat(number)[:2] for number in (1, 2)] == before
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_output_on_other_storage_is_copied_after_that_of_an_earlier_attempt(tmp_path: Path) -> None:
    storage = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    assert storage.type_name != "local"
    storage.create_dir("trial")
    for attempt in ("first\n", "second\n"):
        with OutputFile(storage, "trial", tmp_path / "node" / "rank_0.log"):
            os.write(1, attempt.encode())
    assert (tmp_path / "trial" / "rank_0.log").read_text() == "first\nsecond\n"
    assert not list((tmp_path / "node").iterdir())


def test_the_last_rank_of_a_node_removes_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "rank_0.log").touch()
    scratch = tmp_path / ".scratch_a_0"
    home = os.getcwd()
    with in_scratch(scratch, 0, 2):
        Path("model.bin").touch()
        with in_scratch(scratch, 1, 2):
            assert Path("model.bin").exists(), "ranks of a node share it"
        assert scratch.exists()
    assert not scratch.exists()
    os.chdir(home)


def test_working_directories_that_killed_ranks_left_are_removed_but_not_those_of_another_actor(tmp_path: Path) -> None:
    own, another, earlier = name_of_scratch("owner"), name_of_scratch("owner"), name_of_scratch("a driver before")
    for name in (own, another, earlier):
        Path(tmp_path, f"{name}_2026-01-01_0").mkdir()
    remove_scratch(pyarrow.fs.LocalFileSystem(), str(tmp_path), own)
    assert [path.name for path in tmp_path.iterdir()] == [f"{another}_2026-01-01_0"]


def test_numbers_become_pythons_own() -> None:
    import numpy as np
    import torch

    found = python_numbers({"a": np.float32(0.5), "b": {"c": torch.tensor(2)}, "d": "text", "e": np.ones(2)})
    assert [type(value) for value in (found["a"], found["b"]["c"], found["d"])] == [float, int, str]
    assert found["e"].tolist() == [1.0, 1.0]


def test_what_ray_tune_cannot_compute_with_is_a_number_or_a_text() -> None:
    """Ray Tune keeps means of all that call themselves numbers, and ends a whole sweep where it cannot add them."""
    import numpy as np
    import torch

    given = {
        "decimal": Decimal("0.2"), "fraction": Fraction(1, 4), "half": torch.tensor(0.5, dtype=torch.bfloat16),
        "complex": 1j, "large": 10**400, "larger": 10**5000, "true": True, "whole": 3, "endless": math.inf,
    }  # fmt: skip
    found = python_numbers(given)
    assert [found[name] for name in ("decimal", "fraction", "half", "true", "whole")] == [0.2, 0.25, 0.5, True, 3]
    assert [type(found[name]) for name in ("complex", "large", "larger")] == [str] * 3
    assert all(len(text) < 100 for text in found.values() if isinstance(text, str))
    assert found["endless"] == math.inf
    nothing = python_numbers({"mean": np.ma.masked_all(3).mean()})["mean"]
    assert nothing != nothing, "NumPy's own would be 0.0"
