"""A path that is there for the driver, and not for a rank in a folder of its own, is told whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from transformers import AutoModel, AutoTokenizer

from hfsuite.ranks.relative_paths import meant


def wrapped() -> None:
    try:
        Path("rows.txt").read_text()
    except OSError as error:
        raise RuntimeError("there are no rows") from error


READS: dict[str, tuple[Callable[[], Any], str]] = {
    "open": (lambda: Path("rows.txt").read_text(), "rows.txt"),
    "of a word": (lambda: Path("rows").read_text(), "rows"),
    "in a folder": (lambda: Path("data/rows.csv").read_text(), "data/rows.csv"),
    "from here": (lambda: Path("./data/../rows.txt").read_text(), "rows.txt"),
    "numpy": (lambda: np.load("rows.npy"), "rows.npy"),
    "torch": (lambda: torch.load("rows.pt"), "rows.pt"),
    "safetensors": (lambda: safetensors.torch.load_file("w.safetensors"), "w.safetensors"),
    "pandas": (lambda: pd.read_csv("data/rows.csv"), "data/rows.csv"),
    "a listing": (lambda: os.listdir("data"), "data"),
    "load_dataset": (lambda: datasets.load_dataset("csv", data_files="rows.csv"), "rows.csv"),
    "load_from_disk": (lambda: datasets.load_from_disk("data"), "data"),
    "a folder's model": (lambda: AutoModel.from_pretrained("./model"), "model"),
    "a word's model": (lambda: AutoModel.from_pretrained("model"), "model"),
    "a tokenizer": (lambda: AutoTokenizer.from_pretrained("data/model"), "data/model"),
    "a file to be made": (lambda: Path("data/new.txt").write_text(""), "data"),
    "wrapped": (wrapped, "rows.txt"),
}


@pytest.fixture
def made_in(tmp_path: Path, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the driver; a rank's folder is another."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "of the driver"
    for _, name in READS.values():
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _raise(error: Exception) -> None:
    raise error


def raised(read: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:
        read()
    return caught.value


@pytest.mark.parametrize("how", READS)
def test_the_whole_path_is_told(how: str, made_in: str) -> None:
    read, name = READS[how]
    assert meant(raised(read), made_in) == os.path.join(made_in, "data/new.txt" if "made" in how else name)


@pytest.mark.parametrize(
    "read",
    [
        lambda: Path("other.txt").read_text(),  # nowhere
        lambda: Path("/proc/none/rows.txt").read_text(),
        lambda: Path("../rows.txt").read_text(),
        lambda: Path("").read_text(),
        lambda: AutoModel.from_pretrained("./"),
        lambda: int("rows.txt"),  # of a path no word
        lambda: _raise(OSError(errno.ENOSPC, "No space left", "rows.txt")),
        lambda: _raise(FileExistsError(errno.EEXIST, "File exists", "data")),
        lambda: _raise(ConnectionError("could not reach 'data', see rows.txt.")),
    ],
)
def test_of_nothing_else_a_path_is_told(read: Callable[[], Any], made_in: str) -> None:
    assert meant(raised(read), made_in) == ""
