"""What is measured, one process a measurement: `python -m tests.benchmarks.programs NAME FOLDER NUMBER...`.

Each prints one line of JSON at the end; what happened when is in the diary (`workload.note`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks import gpu_programs, interruptions, tracking, ways, workload


def bare(folder: Path, trials: int) -> dict[str, Any]:
    """The toy loop in one process group that lives: what a trial costs where nothing is managed."""
    ways.launch("tests.benchmarks.workload", str(folder), "1e-3", str(trials))
    return {}


def ours(folder: Path, trials: int, **options: Any) -> dict[str, Any]:
    """A sweep of toy trials."""
    return ways.ours(workload.experiment, folder, trials, **options)


def torchrun(folder: Path, trials: int) -> dict[str, Any]:
    """The same trials, each a `torchrun`."""
    return ways.torchrun("tests.benchmarks.workload", folder, trials, 1)


def ray_pattern(folder: Path, trials: int) -> dict[str, Any]:
    """The same trials in Ray's documented pattern."""

    def train_fn(config: dict[str, Any]) -> None:
        import ray.train

        workload.train(config["lr"], ray.train.report)

    return ways.ray_pattern(train_fn, workload.experiment.space, "loss", folder, trials)


def reports(folder: Path, count: int, pairs: int) -> dict[str, Any]:
    """The same loop with one report and with many, in turn."""
    from ray import tune

    space = {"reports": tune.grid_search([1, count] * pairs)}
    experiment = dataclasses.replace(workload.experiment, space=space)
    return ways.ours(experiment, folder, 2 * pairs, searcher="grid", set={"steps": 10 * count})


def interruptions_ours(folder: Path, seconds: int) -> dict[str, Any]:
    """A loop in Python in a rank."""
    return ways.ours(interruptions.experiment, folder, 1, set={"seconds": seconds})


def interruptions_alone(folder: Path, seconds: int) -> dict[str, Any]:
    """The same in a process of its own."""
    interruptions.spin(seconds)
    return {}


def four_slots(folder: Path, trials: int) -> dict[str, Any]:
    """TPE with ASHA, four trials at once."""
    return ours(folder, trials, cpus=8, searcher="tpe", trial_scheduler="asha", set={"steps": 90, "reports": 9}, seed=1)


def stops(folder: Path, trials: int) -> dict[str, Any]:
    """Every trial is stopped at its second report."""
    return ours(folder, trials, trial_scheduler=stop_at_two(), set={"steps": 900, "reports": 90, "trace": True})


def stop_at_two() -> Any:
    """A trial scheduler that stops each trial at its second report, and writes down when it has decided so."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class StopAtTwo(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result["training_iteration"] < 2:
                return str(TrialScheduler.CONTINUE)
            workload.note("decided", step=result["step"])
            return str(TrialScheduler.STOP)

    return StopAtTwo()


def memory(folder: Path, trials: int) -> dict[str, Any]:
    """Resident memory over time of the driver, of the trial's actor and of its workers."""
    import psutil

    seen: list[dict[str, Any]] = []
    kinds = {"ray::TrialWorker": "worker", "ray::AccelerateTrainerTrial": "trial's actor"}
    known: dict[int, str] = {}

    def watch() -> None:
        driver = psutil.Process()
        while True:
            sizes = {"driver": driver.memory_info().rss}
            for process in driver.children(recursive=True):
                with suppress(psutil.Error):
                    title = " ".join(process.cmdline()).partition(".")[0]  # names the actor, and what it does
                    if kind := known.setdefault(process.pid, kinds.get(title.strip(), "")):
                        sizes[f"{kind} {process.pid}"] = process.memory_info().rss
                    else:
                        del known[process.pid]
            seen.append({"at": time.time(), "sizes": sizes})
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    return ours(folder, trials, set={"steps": 20, "reports": 2}) | {"memory": seen}


def behind(folder: Path, trials: int) -> dict[str, Any]:
    """What a report costs the driver's main thread, which is Tune's loop, with ever more finished trials behind it."""
    from hfsuite.sweeps.observer import SweepObserver

    seen: list[tuple[int, int, float]] = []
    original = SweepObserver.on_trial_result

    def on_trial_result(
        self: Any, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        original(self, iteration, trials, trial, result, **info)
        seen.append((self.result(trial).number, result["training_iteration"], time.thread_time()))

    SweepObserver.on_trial_result = on_trial_result  # type: ignore[method-assign]
    return ours(folder, trials, workers=1, cpus=1, set={"steps": 4, "reports": 4}) | {"reports": seen}


def checkpoints_awaited(folder: Path, count: int, decisions: str = "awaited") -> dict[str, Any]:
    """One trial that saves MiniLM again and again, with and without a report."""
    from tests.benchmarks import checkpoints

    return ways.ours(checkpoints.experiment, folder, 1, set={"count": count}, decisions=decisions)


def checkpoints_pipelined(folder: Path, count: int) -> dict[str, Any]:
    """The same, where a report does not wait for its answer."""
    return checkpoints_awaited(folder, count, "pipelined")


def sentiment_ours(folder: Path, trials: int, epochs: int) -> dict[str, Any]:
    """A sweep of the sentiment experiment."""
    from tests.benchmarks import sentiment

    return ways.ours(sentiment.experiment, folder, trials, set={"num_train_epochs": epochs, "global_batch_size": 32})


def sentiment_torchrun(folder: Path, trials: int, epochs: int) -> dict[str, Any]:
    """The same trials, each a `torchrun`."""
    return ways.torchrun("tests.benchmarks.sentiment", folder, trials, epochs)


def sentiment_ray_pattern(folder: Path, trials: int) -> dict[str, Any]:
    """The same trials in Ray's documented pattern."""
    from tests.benchmarks import sentiment

    settings = sentiment.experiment.defaults | {"diary": os.environ["BENCH_DIARY"]}
    space = settings | {"learning_rate": sentiment.experiment.space["learning_rate"]}
    return ways.ray_pattern(sentiment.as_ray_documents_it, space, "eval_loss", folder, trials)


def record_ours(folder: Path, trials: int, reports: int, store: str) -> dict[str, Any]:
    """A sweep's events, recorded by this project."""
    return tracking.ours(folder, trials, reports, store)


def record_rays(folder: Path, trials: int, reports: int, store: str) -> dict[str, Any]:
    """The same events, recorded by Ray's callback."""
    return tracking.rays(folder, trials, reports, store)


def lookups(folder: Path, trials: int, count: int) -> dict[str, Any]:
    """Finding a trial's run again."""
    return tracking.lookups(folder, trials, count)


def tracked(folder: Path, trials: int, epochs: int, how: str) -> dict[str, Any]:
    """The sentiment experiment without tracking, with it, and with a server that takes a second a call."""
    with tracking.sweeps_tracked(how, folder):
        return sentiment_ours(folder, trials, epochs)


def main() -> None:
    name, folder, *given = sys.argv[1:]
    program: Callable[..., Any] = (globals() | vars(gpu_programs))[name]
    print(json.dumps(program(Path(folder), *(int(each) if each.isdigit() else each for each in given))))


if __name__ == "__main__":
    main()
