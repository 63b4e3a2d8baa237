"""A checkpoint on its way to storage, where ranks of one node hand over the same directory."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hfsuite.ranks.upload import _second_name


def test_ranks_that_hand_over_the_same_file_do_not_disturb_each_other(own_directory: Path) -> None:
    source, target = own_directory / "weights", own_directory / "kept"
    source.write_text("weights")
    with ThreadPoolExecutor(8) as ranks:
        list(ranks.map(lambda _: _second_name(str(source), str(target)), range(200)))
    assert target.read_text() == "weights"
    assert sorted(path.name for path in own_directory.iterdir()) == ["kept", "weights"]


def test_where_a_folder_knows_no_second_names_files_are_copied(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    source, target = own_directory / "weights", own_directory / "kept"
    source.write_text("weights")
    monkeypatch.setattr(os, "link", refuse)
    _second_name(str(source), str(target))
    source.unlink()
    assert target.read_text() == "weights"
    assert [path.name for path in own_directory.iterdir()] == ["kept"]
