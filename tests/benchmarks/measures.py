"""What is measured, and what each figure must reach. All of a measure runs side by side, so that its ratio holds."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Diary = list[dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One measure: what was seen, and what must be reached."""

    name: str
    measured: str
    target: str
    reached: bool | None  # None: there is nothing to reach
    details: dict[str, Any]


def turnaround() -> list[Row]:
    """Toy trials one after another, with two workers each: what one costs, and how many fit into a minute."""
    trials = 20
    _, before = program("bare", trials)
    mine = program("ours", trials)
    _, after = program("bare", trials)  # the machine changes its pace
    bare = [gap for diary in (before, after) for gap in gaps(times(diary, "ends"))]
    ours = gaps(times(mine[1], "ends"))
    alone, each = statistics.median(bare), statistics.median(ours)
    others = {"Ray's pattern": program("ray_pattern", 4), "torchrun": program("torchrun", 4)}
    ratios, row = per_minute("toy", trials, mine, others, "ends", "15 x and 5 x")
    reached = ratios["Ray's pattern"] >= 15 and ratios["torchrun"] >= 5
    beyond = Row(
        "turnaround beyond the bare loop, median",
        f"{each - alone:.2f} s ({each:.2f} against {alone:.2f})",
        "at most 0.5 s",
        each - alone <= 0.5,
        {"bare_s": bare, "ours_s": ours},
    )
    return [beyond, Row(row.name, row.measured, row.target, reached, row.details)]


def sentiment() -> list[Row]:
    """Trials of the sentiment experiment: how many fit into a minute, where a trial takes longer than a start."""
    trials = 6
    mine = program("sentiment_ours", trials, 1)
    others = {"Ray's pattern": program("sentiment_ray_pattern", 3), "torchrun": program("sentiment_torchrun", 3, 1)}
    return [per_minute("sentiment", trials, mine, others, "trained", "printed")[1]]


def steps() -> list[Row]:
    """How fast a trial trains, against `torchrun` on the same trainer: in turn, since the machine changes its pace."""
    seconds: dict[str, list[float]] = {"sentiment_ours": [], "sentiment_torchrun": []}
    pairs = []
    for order in (list(seconds), list(seconds)[::-1], list(seconds)):
        pair = {}
        for name in order:
            _, diary = program(name, 1, 2)
            (taken,) = [entry["seconds"] for entry in diary if entry["event"] == "trained"]
            pair[name] = statistics.median(taken[3:])  # the first ones warm up
            seconds[name] += taken[3:]
        pairs.append(pair["sentiment_torchrun"] / pair["sentiment_ours"])
    ours, alone = (statistics.median(each) for each in seconds.values())
    ratio = alone / ours
    details = {"seconds_a_step": seconds, "ratio_of_each_round": pairs}
    measured = f"{ratio:.2f} of torchrun ({1 / ours:.2f} against {1 / alone:.2f} a second)"
    return [Row("optimizer steps a second, sentiment, median", measured, "at least 0.98", ratio >= 0.98, details)]


def reports() -> list[Row]:
    """What a report without a checkpoint costs a loop, against the same loop with but one, in turn."""
    many, pairs = 100, 5
    _, diary = program("reports", many, pairs)
    took = [end - begin for begin, end in zip(times(diary, "begins"), times(diary, "ends"), strict=True)]
    costs = [(reporting - silent) / (many - 1) for silent, reporting in zip(took[::2], took[1::2], strict=True)]
    cost = statistics.median(costs)
    waits = [entry["seconds"] for entry in diary if entry["event"] == "report"]
    return [
        Row(
            "cost of a report, against the loop without, median",
            f"{1000 * cost:.0f} ms",
            "at most 30 ms",
            cost <= 0.030,
            {"s_of_each_pair": costs, "s_in_each_report": waits},
        )
    ]


def interruptions() -> list[Row]:
    """How long a rank's thread stands still for others of its process, against a process of its own, in turn."""
    lost: dict[str, list[float]] = {"ours": [], "alone": []}
    for _ in range(3):
        for way, values in lost.items():
            _, (entry,) = program(f"interruptions_{way}", 20)
            values.append(1000 * entry["lost"] / entry["seconds"])
    ours, alone = (statistics.median(values) for values in lost.values())
    measured = f"{ours:.1f} ms a second ({alone:.1f} in a process of its own)"
    return [Row("time a rank's thread stands still, median", measured, "printed", None, {"ms": lost})]


def checkpoints() -> list[Row]:
    """What it costs to save MiniLM and report the checkpoint, against saving it alone."""
    count, rows = 15, []
    for decisions in ("awaited", "pipelined"):
        _, diary = program(f"checkpoints_{decisions}", count)
        saved = [entry for entry in diary if entry["event"] == "saved"]
        reported = [entry for entry in diary if entry["event"] == "reported"]
        alone = statistics.median(entry["seconds"] for entry in saved)
        cost = statistics.median(entry["seconds"] for entry in reported if entry["rank"] == 0)
        row = Row(
            f"saving and reporting MiniLM's checkpoint, {decisions}, median",
            f"{cost / alone:.2f} x save_pretrained ({1000 * cost:.0f} against {1000 * alone:.0f} ms)",
            "at most 1.15 x",
            cost <= 1.15 * alone,
            {"saved": saved, "reported": reported},
        )
        rows.append(row)
    bytes_alone = statistics.median(entry["bytes"] for entry in saved)
    bytes_reported = sum(entry["bytes"] for entry in reported) / count
    row = Row(
        "bytes written for it by all ranks",
        f"{bytes_reported / bytes_alone:.4f} x save_pretrained ({bytes_alone / 1e6:.1f} MB)",
        "at most 1.01 x",
        bytes_reported <= 1.01 * bytes_alone,
        {"alone": bytes_alone, "reported": bytes_reported},
    )
    return [*rows, row]


def stops() -> list[Row]:
    """From a stop to the next trial's first step, and the steps trained in between."""
    _, diary = program("stops", 12)
    extra, decided = [], None
    for entry in sorted(diary, key=lambda each: each["at"]):
        match entry["event"]:
            case "decided":
                decided = entry
            case "trained" if decided is not None and entry["step"] > decided["step"]:
                extra.append(entry["step"])
    waits = waits_after_stops(diary)
    wait = statistics.median(waits)
    return [
        Row("steps trained after a stop", str(len(extra)), "0", not extra, {"stops": len(waits)}),
        Row(
            "from a stop to the next trial's first step, median",
            f"{wait:.2f} s",
            "at most 1 s",
            wait <= 1,
            {"s": waits},
        ),
    ]


def waits_after_stops(diary: Diary) -> list[float]:
    """Seconds from each decision to stop to the next trial's first step."""
    waits, decided = [], None
    for entry in sorted(diary, key=lambda each: each["at"]):
        if entry["event"] == "decided":
            decided = entry["at"]
        elif entry["event"] == "first step" and decided is not None:
            waits.append(entry["at"] - decided)
    return waits


def reuse() -> list[Row]:
    """Whether trials find living workers where Optuna proposes and ASHA stops, four at once."""
    mine, _ = program("four_slots", 40)
    warm = mine["warm"][4:]
    share = sum(map(bool, warm)) / len(warm)
    return [Row("trials with living workers, but the first four", f"{share:.2f}", "at least 0.95", share >= 0.95, mine)]


def memory() -> list[Row]:
    """How much the driver, the trial's actor and its workers grow over 60 warm trials, the ten before left out."""
    mine, diary = program("memory", 71)
    ends = times(diary, "ends")
    early, late = (_sizes_between(mine["memory"], *span) for span in ((ends[8], ends[12]), (ends[68], ends[70])))
    grown = {process: (late[process] - size) / 1e6 for process, size in early.items()}
    total = sum(grown.values())
    each = ", ".join(f"{process.rpartition(' ')[0] or process} {size:+.1f}" for process, size in grown.items())
    return [
        Row(
            "memory over 60 warm trials",
            f"{total:+.1f} MB ({each})",
            "at most +20 MB in all",
            total <= 20,
            {"mb": grown, "all": mine["memory"]},
        )
    ]


def _sizes_between(seen: list[dict[str, Any]], begin: float, end: float) -> dict[str, float]:
    """Each process's median size in a span of time; those that are not there all the time are left out."""
    spans = [entry["sizes"] for entry in seen if begin <= entry["at"] <= end]
    there = set.intersection(*(set(sizes) for sizes in spans))
    return {process: statistics.median(sizes[process] for sizes in spans) for process in sorted(there)}


def behind() -> list[Row]:
    """Whether a report costs Tune's loop more when many trials have finished before: a driver's time must not grow."""
    mine, _ = program("behind", 1_012, FORCE_COLOR="1")  # as on a terminal, with the live table
    cost: dict[int, list[float]] = {}  # seconds of a report, by the trial that made it
    for (number, _, before), (same, _, after) in itertools.pairwise(mine["reports"]):
        if number == same:
            cost.setdefault(number, []).append(after - before)
    medians = {
        finished: statistics.median(itertools.chain(*(cost[n] for n in range(finished, finished + 10))))
        for finished in (1, 10, 100, 1_000)
    }
    shown = ", ".join(f"{1000 * seconds:.1f} ms behind {finished:,}" for finished, seconds in medians.items())
    ratio = medians[1_000] / medians[10]
    return [
        Row(
            "time of Tune's loop a report, by finished trials",
            f"{ratio:.2f} x from 10 to 1,000 ({shown})",
            "at most 1.3 x",
            ratio <= 1.3,
            {"medians_s": medians, "wall_s": mine["wall_s"]},
        )
    ]


def recording() -> list[Row]:
    """What it takes to record a sweep's reports, against Ray's callback; of the slow one fewer trials are run."""
    rows = []
    for store, title in (("sqlite", "SQLite"), ("server", "an MLflow server on PostgreSQL")):
        few = 4 if store == "sqlite" else 1
        before, _ = program("record_rays", few, 100, store)
        mine, _ = program("record_ours", 100, 100, store)
        after, _ = program("record_rays", few, 100, store)  # the machine changes its pace
        assert (mine["points"], before["points"]) == (10_000, 100 * few)
        theirs = (before["wall_s"] + after["wall_s"]) / (2 * few * 100)
        each, own = mine["wall_s"] / 10_000, mine["driver_s"] / 10_000
        details = {"ours": mine, "rays": [before, after]}
        shown = f"{1000 * each:.1f} against {1000 * theirs:.0f} ms a report, of {few} trials"
        measured = f"{theirs / each:.0f} x Ray's callback ({shown})"
        name = f"recording 100 trials x 100 reports x 20 metrics into {title}"
        rows.append(Row(name, measured, "20 x", theirs >= 20 * each, details))
        slow = statistics.quantiles(mine["report_s"], n=20)[-1]
        took = f"{1000 * own:.2f} ms, of the slowest twentieth {1000 * slow:.2f}"
        rows.append(Row("the driver's own time for it, a report", took, "at most 2 ms", own <= 0.002, {"s": own}))
    return rows


def tracked() -> list[Row]:
    """How long the sentiment experiment trains with and without tracking, in turn: the machine changes its pace."""
    rounds: dict[str, list[float]] = {"off": [], "on": [], "slow": []}
    for order in (list(rounds), list(rounds)[::-1], list(rounds)):
        for how in order:
            _, diary = program("tracked", 2, 3, how)
            rounds[how].append(sum(sum(entry["seconds"]) for entry in diary if entry["event"] == "trained"))
    alone = statistics.median(rounds["off"])
    names = {"on": "tracking on", "slow": "a server that takes 1 s a call"}
    return [
        Row(
            f"training time of the sentiment experiment, {names[how]}",
            f"{statistics.median(rounds[how]) / alone:.3f} x without tracking",
            "at most 1.01 x",
            statistics.median(rounds[how]) <= 1.01 * alone,
            {"s": rounds},
        )
        for how in ("on", "slow")
    ]


def lookups() -> list[Row]:
    """Whether a trial's run is found as fast in a large sweep."""
    few, many = (statistics.median(program("lookups", trials, 50)[0]["s"]) for trials in (20, 2_000))
    measured = f"{many / few:.2f} x ({1000 * many:.1f} against {1000 * few:.1f} ms)"
    name = "finding a trial's run again among 2,000 trials, against 20"
    return [Row(name, measured, "at most 1.5 x", many <= 1.5 * few, {"s": [few, many]})]


MEASURES: dict[str, Callable[[], list[Row]]] = {
    each.__name__: each
    for each in (
        turnaround,
        sentiment,
        steps,
        reports,
        interruptions,
        checkpoints,
        stops,
        reuse,
        memory,
        behind,
        recording,
        tracked,
        lookups,
    )
}


def program(name: str, *arguments: object, timeout_s: float = 1800, **environment: str) -> tuple[dict[str, Any], Diary]:
    """Runs one of `programs.py`; its answer, and what was written down while it ran."""
    with tempfile.TemporaryDirectory() as folder:
        diary = Path(folder, "diary")
        variables = (
            os.environ
            | environment
            | {
                "BENCH_DIARY": str(diary),
                "OMP_NUM_THREADS": "1",  # as Ray sets it for workers of one CPU
                "HF_HUB_OFFLINE": "1",
                "RAY_TRAIN_V2_ENABLED": "1",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            }
        )
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
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, cwd=ROOT,
            start_new_session=True,
        ) as started:  # fmt: skip
            try:
                printed, errors = started.communicate(timeout=timeout_s)
            except BaseException:
                os.killpg(started.pid, signal.SIGTERM)  # `torchrun` ends its ranks then, Ray its workers
                raise
        if started.returncode:
            raise RuntimeError(f"{name} failed:\n{printed[-2000:]}\n{errors[-4000:]}")
        lines = diary.read_text().splitlines() if diary.exists() else []
        answer = json.loads(printed.strip().splitlines()[-1])
        if "wall_s" in answer:  # a measure of several programs may be cut short
            print(f"{name} {' '.join(map(str, arguments))}: {answer['wall_s']:.0f} s", file=sys.stderr, flush=True)
        return answer, [json.loads(line) for line in lines]


def per_minute(
    name: str,
    trials: int,
    mine: tuple[dict[str, Any], Diary],
    others: dict[str, tuple[dict[str, Any], Diary]],
    event: str,
    target: str,
) -> tuple[dict[str, float], Row]:
    """Trials a minute in a sweep of so many, its first start included, and how often those of other ways fit into it.

    Of the slow ways fewer trials are run; each of the rest is counted as their median one.

    Args:
        name: of what is trained.
        trials: in the sweep.
        mine: what the sweep's program answered, and its diary.
        others: likewise, by the name of the way.
        event: what rank 0 notes at the end of a trial.
        target: of the ratios.
    """
    walls = {}
    for way, (answer, diary) in ({"ours": mine} | others).items():
        ends = times(diary, event)
        walls[way] = answer["wall_s"] + (trials - len(ends)) * statistics.median(gaps(ends))
    rates = {way: 60 * trials / wall for way, wall in walls.items()}
    ratios = {way: rates["ours"] / rates[way] for way in others}
    shown = ", ".join(f"{ratio:.1f} x {way} ({rates[way]:.1f})" for way, ratio in ratios.items())
    ends = {way: times(diary, event) for way, (_, diary) in ({"ours": mine} | others).items()}
    title = f"trials a minute, {name}, {trials} trials, first start included"
    return ratios, Row(title, f"{rates['ours']:.1f}: {shown}", target, None, {"a_minute": rates, "ends": ends})


def times(diary: Diary, event: str) -> list[float]:
    return [entry["at"] for entry in diary if entry["event"] == event]


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]
