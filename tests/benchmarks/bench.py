"""`make bench`: what trials cost, side by side with other ways of running them, as a table and as JSON.

    python -m tests.benchmarks.bench [--only NAME ...] [--out benchmarks.json]

Absolute times depend on the machine; everything is measured in one run, so that ratios hold on a noisy one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
console = Console(stderr=True)


@dataclass(frozen=True)
class Row:
    """One measure: what was seen, and what must be reached."""

    name: str
    measured: str
    target: str
    reached: bool | None
    details: dict[str, Any]


def program(name: str, *arguments: object, timeout_s: float = 1800) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs one of `programs.py`; its answer, and what rank 0 wrote down."""
    with tempfile.TemporaryDirectory() as folder:
        diary = Path(folder, "diary")
        environment = os.environ | {
            "BENCH_DIARY": str(diary),
            "OMP_NUM_THREADS": "1",  # as Ray sets it for workers of one CPU
            "HF_HUB_OFFLINE": "1",
            "RAY_TRAIN_V2_ENABLED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
        }
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.benchmarks.programs",
            name,
            folder,
            *map(str, arguments),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        lines = diary.read_text().splitlines() if diary.exists() else []
        return json.loads(done.stdout.strip().splitlines()[-1]), [json.loads(line) for line in lines]


def times(diary: list[dict[str, Any]], event: str) -> list[float]:
    return [entry["at"] for entry in diary if entry["event"] == event]


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def turnaround(trials: int) -> list[Row]:
    """Trials one after another, with two workers each: what one costs, and how many fit into a minute."""
    _, bare = program("bare", trials)
    mine, diary = program("ours", trials)
    ray, _ = program("ray_pattern", 3)
    torchrun, _ = program("torchrun", 4)
    alone = statistics.median(gaps(times(bare, "ends")))
    each = statistics.median(gaps(times(diary, "ends")))
    per_minute = {
        "ours": 60 * trials / mine["wall_s"],
        "ray": 60 * 3 / ray["wall_s"],
        "torchrun": 60 * 4 / torchrun["wall_s"],
    }
    against_ray = per_minute["ours"] / per_minute["ray"]
    against_torchrun = per_minute["ours"] / per_minute["torchrun"]
    details = {"bare_s": alone, "ours_s": each, "all_s": gaps(times(diary, "ends")), "per_minute": per_minute}
    return [
        Row(
            "turnaround beyond the bare loop, median",
            f"{each - alone:.2f} s ({each:.2f} against {alone:.2f})",
            "at most 0.5 s",
            each - alone <= 0.5,
            details,
        ),
        Row(
            "trials a minute, first start included",
            f"{per_minute['ours']:.1f}: {against_ray:.1f} x Ray's pattern ({per_minute['ray']:.1f}), "
            f"{against_torchrun:.1f} x torchrun ({per_minute['torchrun']:.1f})",
            "15 x and 5 x",
            against_ray >= 15 and against_torchrun >= 5,
            per_minute,
        ),
    ]


def reports() -> list[Row]:
    """What a report without a checkpoint costs: it waits for the trial scheduler's answer."""
    _, diary = program("reports", 100)
    cost = statistics.median(entry["seconds"] for entry in diary if entry["event"] == "report")
    return [Row("cost of a report, median", f"{1000 * cost:.0f} ms", "at most 30 ms", cost <= 0.030, {"seconds": cost})]


def stops() -> list[Row]:
    """From a stop to the next trial's first step, and the steps trained in between."""
    _, diary = program("stops", 12)
    extra, waits, decided = [], [], None
    for entry in sorted(diary, key=lambda each: each["at"]):
        match entry["event"]:
            case "decided":
                decided = entry
            case "first step" if decided is not None:
                waits.append(entry["at"] - decided["at"])
            case "report" if decided is not None and entry["step"] > decided["step"]:
                extra.append(entry["step"] - decided["step"])
    wait = statistics.median(waits)
    return [
        Row("steps trained after a stop", str(sum(extra)), "0", not extra, {"stops": len(waits)}),
        Row(
            "from a stop to the next trial's first step, median",
            f"{wait:.2f} s",
            "at most 1 s",
            wait <= 1,
            {"s": waits},
        ),
    ]


def reuse() -> list[Row]:
    """Whether trials find living workers where Optuna proposes and ASHA stops, four at once."""
    mine, _ = program("four_slots", 40)
    warm = mine["warm"][4:]
    share = sum(map(bool, warm)) / len(warm)
    return [Row("trials with living workers, but the first four", f"{share:.2f}", "at least 0.95", share >= 0.95, mine)]


def memory() -> list[Row]:
    """How much the driver and a worker grow from the tenth trial to the last of 60."""
    mine, diary = program("memory", 60)
    ends = [entry for entry in diary if entry["event"] == "ends"]
    worker = (ends[-1]["memory"] - ends[9]["memory"]) / 1e6
    driver = (
        statistics.median([rss for at, rss in mine["driver"] if at >= ends[-4]["at"]][:10])
        - statistics.median([rss for at, rss in mine["driver"] if ends[9]["at"] <= at][:10])
    ) / 1e6
    return [
        Row(
            "growth over 50 warm trials",
            f"driver {driver:+.1f} MB, worker {worker:+.1f} MB",
            "at most 20 MB in all",
            driver + worker <= 20,
            {"worker_mb": [each["memory"] / 1e6 for each in ends]},
        )
    ]


MEASURES: dict[str, Callable[[], list[Row]]] = {
    "turnaround": lambda: turnaround(20),
    "reports": reports,
    "stops": stops,
    "reuse": reuse,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    table = Table("measure", "measured", "must reach", "", title="What trials cost")
    for name in arguments.only:
        began = time.monotonic()
        for row in MEASURES[name]():
            rows.append(row)
            table.add_row(row.name, row.measured, row.target, {True: "yes", False: "[red]no[/]", None: ""}[row.reached])
            console.print(f"{row.name}: {row.measured} ({row.target}) in {time.monotonic() - began:.0f} s")
    Console().print(table)
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
    arguments.out.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
    print(f"{arguments.out} holds the same with every single time.")


if __name__ == "__main__":
    main()
