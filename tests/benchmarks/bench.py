"""`make bench`: what trials cost, side by side with other ways of running them, as a table and as JSON.

    python -m tests.benchmarks.bench [--only NAME ...] [--out benchmarks.json]

A measure that fails has a row that says so, and the status is 1 then; a target that is missed does not change it.

Measures that need GPUs begin with gpu_ and run if they are named: `tests/gpu/run.sh` does so.

Absolute times depend on the machine; everything is measured in one run, so that ratios hold on a noisy one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks import measures
from tests.benchmarks.commands import commands
from tests.benchmarks.gpu_measures import GPU_MEASURES
from tests.benchmarks.measures import Row

MEASURES = measures.MEASURES | {"commands": commands}
console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=MEASURES | GPU_MEASURES, default=list(MEASURES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and (named := [name for name in arguments.only if name in GPU_MEASURES]):
        parser.error(f"there is no GPU here for {', '.join(named)}")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    machine = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray", "transformers", "accelerate", "optuna", "mlflow")},
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "gpus": gpus,
    }
    rows: list[Row] = []
    failed = False
    table = Table("measure", "measured", "must reach", "", title="What trials cost")
    for name in arguments.only:
        began = time.monotonic()
        measured = rows_of((MEASURES | GPU_MEASURES)[name], name)
        failed |= measured is None
        for row in measured or [Row(name, "failed: see above", "", False, {})]:
            rows.append(row)
            table.add_row(row.name, row.measured, row.target, {True: "yes", False: "[red]no[/]", None: ""}[row.reached])
            arguments.out.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
            console.print(f"{row.name}: {row.measured} ({row.target}) in {time.monotonic() - began:.0f} s")
    Console().print(table)
    print(f"{arguments.out} holds the same with every single time.")
    sys.exit(int(failed))


def rows_of(measure: Callable[[], list[Row]], name: str) -> list[Row] | None:
    """None if it fails: what others have measured, and will, is not lost with it."""
    try:
        return measure()
    except Exception:  # noqa: BLE001  of any kind
        console.print(f"{name} failed:\n{traceback.format_exc()}", markup=False)
        return None


if __name__ == "__main__":
    main()
