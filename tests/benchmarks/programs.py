"""One way of running trials a function, one process a measurement: `python -m tests.benchmarks.programs NAME FOLDER N`.

Each prints one line of JSON at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def bare(folder: Path, trials: int) -> dict[str, Any]:
    """The loop in one process group that lives: what a trial costs where nothing is managed."""
    _torchrun(folder, "-m", "tests.benchmarks.programs", "_bare_rank", str(folder), str(trials))
    return {}


def _bare_rank(folder: Path, trials: int) -> dict[str, Any]:
    import torch

    from tests.benchmarks import workload

    torch.distributed.init_process_group("gloo")
    for number in range(trials):
        workload.train(1e-3 * (number + 1), lambda metrics: None)
    torch.distributed.destroy_process_group()
    return {}


def torchrun(folder: Path, trials: int) -> dict[str, Any]:
    """Optuna proposes, and each trial is a `torchrun` of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        out = _torchrun(folder, "-m", "tests.benchmarks.programs", "_torchrun_rank", str(folder), str(lr))
        return float(out.strip().splitlines()[-1])

    began = time.time()
    optuna.create_study().optimize(objective, n_trials=trials)
    return {"wall_s": time.time() - began}


def _torchrun_rank(folder: Path, lr: float) -> None:
    import torch

    from tests.benchmarks import workload

    losses: list[float] = []
    torch.distributed.init_process_group("gloo")
    workload.train(float(lr), lambda metrics: losses.append(metrics["loss"]))
    if torch.distributed.get_rank() == 0:
        print(losses[-1])
    torch.distributed.destroy_process_group()


def ray_pattern(folder: Path, trials: int) -> dict[str, Any]:
    """As Ray documents it: a Tune function whose trial makes a TorchTrainer and calls `fit()`."""
    import ray
    import ray.train.torch
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.search.optuna import OptunaSearch

    from tests.benchmarks import workload

    def train_fn(config: dict[str, Any]) -> None:
        workload.train(config["lr"], ray.train.report)

    def trial(config: dict[str, Any]) -> None:
        ray.train.torch.TorchTrainer(
            train_fn,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(
                name=ray.tune.get_context().get_trial_id(),
                storage_path=str(folder / "ray"),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    began = time.time()
    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space={"lr": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(
            num_samples=trials, metric="loss", mode="min", search_alg=OptunaSearch(), max_concurrent_trials=1
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), name="sweep", verbose=0),
    ).fit()
    wall = time.time() - began
    assert not results.errors
    return {"wall_s": wall}


def ours(folder: Path, trials: int, cpus: int = 2, **options: Any) -> dict[str, Any]:
    """A sweep of this project, with its tracking."""
    import ray

    from tests.benchmarks import workload

    os.chdir(folder)
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    settings = {"diary": os.environ.get("BENCH_DIARY", "")} | options.pop("set", {})
    options = {"searcher": "random", "trial_scheduler": "fifo"} | options
    began = time.time()
    result = workload.experiment.sweep(trials=trials, storage=folder / "results", set=settings, **options)
    wall = time.time() - began
    assert all(trial.failure is None for trial in result.trials), [trial.failure for trial in result.trials]
    return {
        "wall_s": wall,
        "warm": [trial.warm_start for trial in result.trials],
        "states": [str(trial.state) for trial in result.trials],
    }


def reports(folder: Path, count: int) -> dict[str, Any]:
    """One trial with many reports."""
    return ours(folder, 1, set={"steps": 10 * count, "reports": count})


def four_slots(folder: Path, trials: int) -> dict[str, Any]:
    """TPE with ASHA, four trials at once."""
    return ours(folder, trials, cpus=8, searcher="tpe", trial_scheduler="asha", set={"steps": 90, "reports": 9}, seed=1)


def stops(folder: Path, trials: int) -> dict[str, Any]:
    """Every trial is stopped at its second report."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    from tests.benchmarks import workload

    class StopAtTwo(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result["training_iteration"] < 2:
                return str(TrialScheduler.CONTINUE)
            os.environ["RANK"] = "0"
            workload.note("decided", step=result["step"])
            return str(TrialScheduler.STOP)

    return ours(folder, trials, trial_scheduler=StopAtTwo(), set={"steps": 900, "reports": 90})


def memory(folder: Path, trials: int) -> dict[str, Any]:
    """Resident memory of the driver over time; the ranks write down theirs."""
    import psutil

    seen: list[tuple[float, int]] = []

    def watch() -> None:
        while True:
            seen.append((time.time(), psutil.Process().memory_info().rss))
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    return ours(folder, trials, set={"steps": 20, "reports": 2}) | {"driver": seen}


def main() -> None:
    name, folder, *numbers = sys.argv[1:]
    function: Callable[..., Any] = globals()[name]
    answer = function(Path(folder), *(float(n) if "." in n or "e" in n else int(n) for n in numbers))
    if not name.startswith("_"):
        print(json.dumps(answer))


def _torchrun(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    main()
