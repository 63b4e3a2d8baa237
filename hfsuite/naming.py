"""What experiments, sweeps and reported numbers may be called. Pure functions."""

from __future__ import annotations

import re
from typing import Any

EXPERIMENT_BYTES = 100  # of an experiment's name: the folders of its sweeps have longer ones
SWEEP_BYTES = 200  # file systems take 255, and a repetition's name is longer
WORDS = re.compile(r"(?!-)[\w.@+=-]+")  # by file systems, shells and addresses nothing else is meant by these


def experiment_name_fault(name: Any) -> str | None:
    """A sentence if an experiment cannot be called so."""
    said = "An experiment's name is used for folders"
    if not isinstance(name, str) or not all(map(WORDS.fullmatch, name.split(" "))) or not _is_folder(name):
        return f"{said}, so it cannot be {_cut(name)}: take letters, digits, single blanks and ._-@+=, no - first."
    if (size := len(name.encode())) > EXPERIMENT_BYTES:
        return f"{said}: at most {EXPERIMENT_BYTES} bytes, got {size}."
    return None


def sweep_name_fault(name: str) -> str | None:
    """A sentence if a sweep cannot be called so."""
    if not WORDS.fullmatch(name) or not _is_folder(name):
        return f"A sweep's name may have letters, digits and ._-@+= in it, no - first, got {_cut(name)}."
    if (size := len(name.encode())) > SWEEP_BYTES:
        return f"A sweep's name becomes a folder's: at most {SWEEP_BYTES} bytes, got {size}."
    return None


def is_number_name(name: Any) -> bool:
    """Whether a reported number can be called so: a line of text, without blanks around it."""
    return isinstance(name, str) and name != "" and name == name.strip() and name.isprintable()


def _is_folder(name: str) -> bool:
    """Whether it is more than blanks and dots, and has no blanks around it."""
    return name.strip(" .") != "" and name == name.strip()


def _cut(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= SWEEP_BYTES else f"{text[:SWEEP_BYTES]}..."
