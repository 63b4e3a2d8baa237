"""What is measured on GPUs, and what each figure must reach; `tests/gpu/run.sh --bench` runs all of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tests.benchmarks.measures import Row, gaps, program, times, waits_after_stops


def gpu_turnaround() -> list[Row]:
    """Seconds a trial of two GPUs: ours, Ray's pattern, `torchrun` a trial, the bare loop in one living group."""
    gpus, trials, few = min(2, gpus_there()), 10, 3
    seconds, diaries = {}, {}
    for way, count in (("bare", trials), ("ours", trials), ("torchrun", few), ("ray_pattern", few)):
        _, diaries[way] = program(f"gpu_{way}", count, gpus)
        seconds[way] = gaps(times(diaries[way], "ends"))
    each = {way: statistics.median(values) for way, values in seconds.items()}
    details = {"s": seconds, "gpus": gpus, "diaries": diaries}
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


def gpu_share() -> Iterator[Row]:
    """Which part of a sweep's wall time its GPUs are in training steps: sentiment under ASHA, a trial on each GPU."""
    gpus = gpus_there()
    for way, title, trials in (("ours", "ours", 30), ("ray_pattern", "Ray's pattern", 2 * gpus)):
        answer, diary = program(f"gpu_share_{way}", trials, gpus)
        trained = sum(entry["seconds"] for entry in diary if entry["event"] == "trained")
        share = trained / (gpus * answer["wall_s"])
        measured = f"{share:.2f} ({trained:.0f} of {gpus} x {answer['wall_s']:.0f} s, {trials} trials)"
        reached, target = (share >= 0.85, "at least 0.85") if way == "ours" else (None, "")
        details = answer | {"diary": diary}
        yield Row(f"share of training steps, {gpus} GPUs, {title}", measured, target, reached, details)


def gpu_tokens(gpus: int) -> list[Row]:
    """Tokens a second in a trial of the language model with a billion parameters, against `torchrun`."""
    from tests.benchmarks.gpu_experiments import BILLION

    name, target = f"tokens a second, language model, {gpus} GPUs", "at least 0.99"
    if gpus > gpus_there():
        return [Row(name, f"not run: there are {gpus_there()} GPUs", target, None, {})]
    rates: dict[str, list[float]] = {"ours": [], "torchrun": []}
    for way in ("ours", "torchrun", "ours", "torchrun"):
        _, diary = program(f"gpu_tokens_{way}", gpus)
        steady = [entry for entry in diary if entry["event"] == "trained" and entry["steady"]]
        steps, took = (sum(entry[each] for entry in steady) for each in ("steps", "seconds"))
        rates[way].append(steps * BILLION["global_batch_size"] * BILLION["context"] / took)
    ours, alone = (statistics.mean(values) for values in rates.values())
    measured = f"{ours / alone:.3f} of torchrun ({ours:,.0f} against {alone:,.0f})"
    return [Row(name, measured, target, ours >= 0.99 * alone, {"rates": rates})]


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
    measured = f"{lost:+.2f} s ({statistics.median(beside):.2f} against {statistics.median(without):.2f} s of training)"
    details = {"rounds": rounds}
    name = "training time lost to an asynchronous upload of 2 GB"
    return [*rows, Row(name, measured, "at most 0.2 s", lost <= 0.2, details)]


def gpu_stops() -> list[Row]:
    """From the decision to stop a trial to the first step of the next one."""
    gpus = min(2, gpus_there())
    _, diary = program("gpu_stops", 10, gpus)
    waits = waits_after_stops(diary)
    wait = statistics.median(waits)
    name = f"from a stop to the next trial's first step, {gpus} GPUs, median"
    return [Row(name, f"{wait:.2f} s", "at most 1.5 s", wait <= 1.5, {"s": waits})]


def gpus_there() -> int:
    """How many this machine has."""
    import torch

    return int(torch.cuda.device_count())


GPU_MEASURES: dict[str, Callable[[], Iterable[Row]]] = {
    **{each.__name__: each for each in (gpu_turnaround, gpu_share, gpu_checkpoints, gpu_stops)},
    **{f"gpu_tokens_{gpus}": partial(gpu_tokens, gpus) for gpus in (1, 2, 4)},
}
