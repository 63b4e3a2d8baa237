"""What is measured on GPUs, and what each figure must reach; `tests/gpu/run.sh --bench` runs all of it."""

from __future__ import annotations

import functools
import math
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from tests.benchmarks.measures import Diary, Row, gaps, program, times, waits_after_stops


def gpu_turnaround() -> list[Row]:
    """Seconds a trial of two GPUs: ours, Ray's pattern, `torchrun` a trial, the bare loop in one living group."""
    from tests.benchmarks.turns import seconds_a_trial

    gpus, trials, few = min(2, gpus_there()), 12, 3
    steps = steps_of_seconds(4.0, gpus)
    _, diary = program("gpu_in_turns", trials, gpus, steps, **no_more_than(gpus))
    seconds, diaries = {way: seconds_a_trial(diary, way) for way in ("bare", "ours")}, {"in turns": diary}
    for way in ("torchrun", "ray_pattern"):
        _, diaries[way] = program(f"gpu_{way}", few, gpus, steps, **no_more_than(gpus))
        seconds[way] = gaps(times(diaries[way], "ends"))
    each = {way: statistics.median(values) for way, values in seconds.items()}
    details = {"s": seconds, "gpus": gpus, "steps": steps, "diaries": diaries}
    rows = []
    for way, title, factor in (("ray_pattern", "Ray's pattern", 7), ("torchrun", "torchrun", 5)):
        ratio = each[way] / each["ours"]
        measured = f"{ratio:.1f} x ({each['ours']:.1f} against {each[way]:.1f} s)"
        rows.append(
            Row(f"seconds a trial, {gpus} GPUs, against {title}", measured, f"{factor} x", ratio >= factor, details)
        )
    beyond = each["ours"] - each["bare"]
    measured = f"{beyond:+.2f} s ({each['ours']:.2f} against {each['bare']:.2f})"
    return [*rows, Row("beyond the bare loop", measured, "at most 1.0 s", beyond <= 1.0, details)]


def steps_of_seconds(wanted: float, gpus: int) -> int:
    """How many steps a trial needs to train for so long on this machine, in equal parts between its reports."""
    from tests.benchmarks.gpu_workload import REPORTS, STEPS

    _, diary = program("gpu_bare", 3, gpus, STEPS, **no_more_than(gpus))
    spans = zip(times(diary, "first step"), times(diary, "ends"), strict=True)
    a_step = statistics.median(end - begin for begin, end in spans) / STEPS
    return REPORTS * max(1, round(wanted / a_step / REPORTS))


def gpu_share(way: str, seed: int = 0) -> list[Row]:
    """Which part of a sweep's wall time its GPUs are in training steps: sentiment under ASHA, a trial on each GPU.

    The seed decides which trials come last, and a last one that trains to its end leaves the other GPUs idle.
    """
    gpus = gpus_there()
    title, trials = {"ours": (f"ours, seed {seed}", 30), "ray_pattern": ("Ray's pattern", 2 * gpus)}[way]
    answer, diary = program(f"gpu_share_{way}", trials, gpus, seed)
    trained = trained_between(diary, 0, math.inf)
    share = trained / (gpus * answer["wall_s"])
    begun = [entry["at"] for entry in diary if entry["event"] == "first step begins"]
    waited = "" if len(begun) == trials else f", {trials - len(begun)} of them in vain for a place"
    measured = f"{share:.2f} ({trained:.0f} of {gpus} x {answer['wall_s']:.0f} s, {trials} trials{waited})"
    reached, target = (share >= 0.85, "at least 0.85") if way == "ours" else (None, "")
    name = f"share of training steps, {gpus} GPUs, {title}"
    steady = trained_between(diary, min(begun), max(begun)) / (gpus * (max(begun) - min(begun)))
    last = max(entry["at"] for entry in diary if entry["event"] == "trained")
    start, end = min(begun) - answer["began"], answer["began"] + answer["wall_s"] - last
    shown = f"{steady:.2f}; before them {start:.0f} s, after the last step {end:.0f} s"
    return [
        Row(name, measured, target, reached, answer | {"diary": diary}),
        Row(f"{name}, from the first trial's first step to the last one's", shown, "", None, {}),
    ]


def trained_between(diary: Diary, begin: float, end: float) -> float:
    """Seconds of training steps in a span of time, of all GPUs together."""
    entries = [entry for entry in diary if entry["event"] == "trained"]
    spans = [(entry["at"] - entry["seconds"], entry["at"], entry["workers"]) for entry in entries]
    return sum(workers * max(0.0, min(until, end) - max(since, begin)) for since, until, workers in spans)


def gpu_pack(workers: int, *, under_mps: bool = False) -> list[Row]:
    """Small trials that share GPUs as they are measured, against one on each: from the sweep's beginning to its end.

    Args:
        workers: of a trial; on as many GPUs.
        under_mps: whether those that share have NVIDIA's MPS.
    """
    trials, steps = 24, 400
    target = {1: 2.5, 2: 1.8}[workers]
    alone, alone_diary = program("gpu_pack", trials, workers, steps, "1", **no_more_than(workers))
    with mps() if under_mps else nullcontext({}) as variables:
        packed, diary = program("gpu_pack", trials, workers, steps, "auto", **no_more_than(workers), **variables)
    ratio, steady = alone["wall_s"] / packed["wall_s"], span(alone_diary) / span(diary)
    are_equal = alone["values"] == packed["values"]
    name = f"{trials} trials of {workers} GPUs, as measured{' under MPS' * under_mps}, against one at a time"
    shown = f"{ratio:.2f} x ({alone['wall_s']:.0f} against {packed['wall_s']:.0f} s), metrics {are_equal and 'equal'}"
    details = {"alone": alone, "packed": packed, "diary": diary}
    reached = ratio >= target and are_equal
    between = statistics.median(gaps_between_trials(diary))
    return [
        Row(name, shown, f"at least {target} x, equal metrics", reached, details),
        Row(f"{name}, from the first step to the last end", f"{steady:.2f} x", "", None, {}),
        Row(
            "start-up between trials that share a GPU, median", f"{between:.2f} s", "at most 1.0 s", between <= 1.0, {}
        ),
    ]


@contextmanager
def mps() -> Iterator[dict[str, str]]:
    """NVIDIA's MPS, for programs with these variables."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        control = functools.partial(subprocess.run, check=True, text=True, env=os.environ | variables)
        control(["nvidia-cuda-mps-control", "-d"])
        try:
            yield variables
        finally:
            control(["nvidia-cuda-mps-control"], input="quit\n")


def gpu_pack_ray_pattern(part: float = 0.25) -> list[Row]:
    """The trials of `gpu_pack_1`, and the same in Ray's documented pattern with parts of a GPU set by hand."""
    trials, steps = 24, 400
    theirs, _ = program("gpu_pack_ray_pattern", trials, steps, part, **no_more_than(1))
    packed, _ = program("gpu_pack", trials, 1, steps, "auto", **no_more_than(1))
    ratio = theirs["wall_s"] / packed["wall_s"]
    shown = f"{ratio:.2f} x ({theirs['wall_s']:.0f} against {packed['wall_s']:.0f} s)"
    name = f"{trials} trials that share a GPU, against Ray's pattern with a part of {part:g}"
    return [Row(name, shown, "at least 5 x", ratio >= 5, {"theirs": theirs, "packed": packed})]


def gpu_pack_large() -> list[Row]:
    """What finding out costs trials that need a GPU for themselves."""
    trials, steps = 6, 100
    alone, alone_diary = program("gpu_pack_large", trials, steps, "1", **no_more_than(1))
    packed, diary = program("gpu_pack_large", trials, steps, "auto", **no_more_than(1))
    ratio, are_equal = alone["wall_s"] / packed["wall_s"], alone["values"] == packed["values"]
    shown = f"{ratio:.3f} x ({alone['wall_s']:.1f} against {packed['wall_s']:.1f} s), metrics {are_equal and 'equal'}"
    details = {"alone": alone, "packed": packed, "diaries": [alone_diary, diary]}
    return [
        Row(f"{trials} LoRA trials of a billion parameters, as measured, against one a GPU", shown, "at least 0.98 x",
            ratio >= 0.98, details)
    ]  # fmt: skip


def gpu_pack_mixed() -> list[Row]:
    """Trials that are lost because others need the GPU's memory: 1 to 30 GB each, on one GPU."""
    trials = 48
    answer, _ = program("gpu_pack_mixed", trials, **no_more_than(1))
    shared = sum(share is not None and share < 0.9 for share in answer["shares"])
    shown = f"{len(answer['failures'])} of {trials} ({shared} shared a GPU)"
    is_reached = not answer["failures"] and shared > trials / 2
    return [Row(f"lost of {trials} trials of mixed batch sizes that share a GPU", shown, "0", is_reached, answer)]


def span(diary: Diary) -> float:
    """Seconds from the first step of all to the last trial's end."""
    return max(times(diary, "ends")) - min(times(diary, "first step"))


def gaps_between_trials(diary: Diary) -> list[float]:
    """Seconds from the end of a trial in a process to the first step of the next one there."""
    ended: dict[int, float] = {}
    found = []
    for entry in sorted(diary, key=lambda each: each["at"]):
        if entry["event"] == "ends":
            ended[entry["process"]] = entry["at"]
        elif entry["event"] == "first step" and entry["process"] in ended:
            found.append(entry["at"] - ended.pop(entry["process"]))
    return found


def gpu_tokens(gpus: int, rows: int) -> list[Row]:
    """Tokens a second in a trial of the language model with a billion parameters, against `torchrun`.

    Args:
        gpus: how many it has.
        rows: of a GPU and step.
    """
    from tests.benchmarks.gpu_experiments import BILLION
    from tests.benchmarks.turns import STEPS_A_TURN

    name = f"tokens a second, language model, {gpus} GPUs, {rows} rows each, first trial of its workers"
    target = "at least 0.99"
    if gpus > gpus_there():
        return [Row(name, f"not run: there are {gpus_there()} GPUs", target, None, {})]
    turns, warm_up = 27, 2
    _, diary = program("gpu_tokens", gpus, rows * gpus, turns * STEPS_A_TURN)
    counted = range(warm_up, turns - 1)  # beside the last one of `torchrun`, ours evaluates and saves
    spans = [entry for entry in diary if entry["event"] == "turn" and entry["turn"] in counted]
    seconds = {way: [each["seconds"] for each in spans if each["way"] == way] for way in ("ours", "torchrun")}
    pairs = [alone / ours for ours, alone in zip(*seconds.values(), strict=True)]
    spread = statistics.quantiles(pairs, n=4)
    tokens = rows * gpus * BILLION["context"] * STEPS_A_TURN * len(counted)
    ours, alone = (tokens / sum(each) for each in seconds.values())
    shown = f"{ours:,.0f} against {alone:,.0f}; half of the turns {spread[0]:.3f} to {spread[2]:.3f}"
    return [Row(name, f"{ours / alone:.3f} of torchrun ({shown})", target, ours >= 0.99 * alone, {"s": seconds})]


def gpu_checkpoints() -> list[Row]:
    """Saving and reporting two gigabytes, against saving them alone, and what an asynchronous upload costs training."""
    rows = []
    for decisions in ("awaited", "pipelined"):
        _, diary = program("gpu_checkpoints", 5, decisions)
        saved = [entry["seconds"] for entry in diary if entry["event"] == "saved"]
        reported = [entry["seconds"] for entry in diary if entry["event"] == "reported"]
        size = next(entry["bytes"] for entry in diary if entry["event"] == "saved")
        alone, both = statistics.median(saved[1:]), statistics.median(reported[1:])
        measured = f"{both / alone:.2f} x save_pretrained ({both:.2f} against {alone:.2f} s, {size / 1e9:.2f} GB)"
        name, details = f"saving and reporting 2 GB, {decisions}", {"saved_s": saved, "reported_s": reported}
        rows.append(Row(name, measured, "at most 1.1 x", both <= 1.1 * alone, details))
    _, diary = program("gpu_uploads", 5)
    rounds = [entry for entry in diary if entry["event"] == "round"][2:]  # the first ones warm up
    beside, without = ([each["seconds"] for each in rounds if each["reported"] is it] for it in (True, False))
    lost = statistics.median(beside) - statistics.median(without)
    longer = sum(each["reported"] and not each["over"] for each in rounds)  # a part of its cost is in the next round
    measured = f"{lost:+.2f} s ({statistics.median(beside):.2f} against {statistics.median(without):.2f} s of training)"
    measured += f"; {longer} uploads outlasted their training" if longer else ""
    details = {"rounds": rounds}
    name = "training time lost to an asynchronous upload of 2 GB"
    return [*rows, Row(name, measured, "at most 0.2 s", lost <= 0.2, details)]


def gpu_stops() -> list[Row]:
    """From the decision to stop a trial to the first step of the next one."""
    gpus = min(2, gpus_there())
    _, diary = program("gpu_stops", 10, gpus, **no_more_than(gpus))
    waits = waits_after_stops(diary)
    wait = statistics.median(waits)
    name = f"from a stop to the next trial's first step, {gpus} GPUs, median"
    return [Row(name, f"{wait:.2f} s", "at most 1.5 s", wait <= 1.5, {"s": waits})]


def gpus_there() -> int:
    """How many this machine has."""
    import torch

    return int(torch.cuda.device_count())


def no_more_than(gpus: int) -> dict[str, str]:
    """An environment in which a process sees so many, and runs one trial of them at a time."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible.split(",")[:gpus])}


GPU_MEASURES: dict[str, Callable[[], list[Row]]] = {
    **{each.__name__: each for each in (gpu_turnaround, gpu_checkpoints, gpu_stops)},
    **{each.__name__: each for each in (gpu_pack_ray_pattern, gpu_pack_large, gpu_pack_mixed)},
    **{f"gpu_share_{seed}": partial(gpu_share, "ours", seed) for seed in (0, 1)},
    **{f"gpu_pack_{workers}": partial(gpu_pack, workers) for workers in (1, 2)},
    "gpu_pack_1_mps": partial(gpu_pack, 1, under_mps=True),
    "gpu_share_ray_pattern": partial(gpu_share, "ray_pattern"),
    **{f"gpu_tokens_{gpus}": partial(gpu_tokens, gpus, max(8, 16 // gpus)) for gpus in (1, 2, 4)},
    "gpu_tokens_4_few_rows": partial(gpu_tokens, 4, 4),  # Python takes longer for a step than the GPUs
}
