"""What the shell completes: names of experiments and of sweeps, from files alone. It must answer at once."""

from __future__ import annotations

from pathlib import Path

from hfsuite.cli.here import experiments_here
from hfsuite.sweeps.request import DEFAULTS

SWEEP_FILE = ".hfsuite/sweep.json"  # as in `hfsuite.tracking.directory`, which takes half a second to import
STORAGE = Path(str(DEFAULTS["storage"]))


def modules(incomplete: str) -> list[tuple[str, str]]:
    """Names of the experiments below the working directory, with what they are.

    Args:
        incomplete: what has been typed.
    """
    return [(name, summary) for name, summary in experiments_here().items() if name.startswith(incomplete)]


def sweeps(incomplete: str) -> list[str]:
    """Names of the sweeps in the storage that is used if no other is named, the newest first.

    Args:
        incomplete: what has been typed.
    """
    records = sorted(STORAGE.glob(f"*/{SWEEP_FILE}"), key=lambda each: -each.stat().st_mtime)
    return [name for each in records if (name := each.parts[-3]).startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Names of runs: of each sweep its best, and once a sweep is named whole, its trials.

    Args:
        incomplete: what has been typed.
    """
    sweep, colon, _ = incomplete.partition(":")
    if not colon:
        return [f"{name}:best" for name in sweeps(incomplete)]
    found = [each.name.removeprefix("trial_") for each in Path(STORAGE, sweep).glob("trial_*/")]
    numbers = sorted(int(each) for each in found if each.isdigit())
    names = [f"{sweep}:{each}" for each in ["best", *numbers]]
    return [name for name in names if name.startswith(incomplete)]
