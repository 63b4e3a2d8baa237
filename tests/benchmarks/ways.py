"""The ways of running trials that are compared: this project's, Ray's documented pattern, and `torchrun` a trial."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SEARCH = {"searcher": "random", "trial_scheduler": "fifo"}  # so that all train alike, and to the end


def ours(
    experiment: Any, folder: Path, trials: int, *, cpus: int = 2, may_fail: bool = False, **options: Any
) -> dict[str, Any]:
    """A sweep of this project, with its tracking."""
    _start_ray(cpus)
    os.chdir(folder)
    settings = {"diary": os.environ.get("BENCH_DIARY", "")} | options.pop("set", {})
    began = time.time()
    result = experiment.sweep(trials=trials, storage=folder / "results", set=settings, **(SEARCH | options))
    wall = time.time() - began
    failures = [trial.failure for trial in result.trials if trial.failure is not None]
    assert may_fail or not failures, failures
    return {
        "began": began,
        "wall_s": wall,
        "failures": failures,
        "warm": [trial.warm_start for trial in result.trials],
        "lost": [trial.workers_lost for trial in result.trials],
        "states": [str(trial.state) for trial in result.trials],
        "shares": [trial.gpu_share for trial in result.trials],
        "values": [trial.metrics.get(result.metric) for trial in result.trials],
    }


def ray_pattern(
    train_fn: Callable[[dict[str, Any]], None], space: Mapping[str, Any], metric: str, folder: Path, trials: int,
    *, mode: str = "min", workers: int = 2, gpu: bool | float = False, at_once: int = 1, scheduler: Any = None,
    no_longer_than: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """As Ray documents it: a Tune function whose trial makes a TorchTrainer and calls `fit()`.

    A trial that a scheduler stops keeps the place of its workers until the sweep ends (ray #54305): with as many such
    trials as places the others wait for ever, so a scheduler comes with `no_longer_than`, in seconds.
    """
    import ray
    import ray.train.torch
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.search.optuna import OptunaSearch

    def trial(config: dict[str, Any]) -> None:
        ray.train.torch.TorchTrainer(
            train_fn,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=bool(gpu),
                resources_per_worker={"CPU": 1, "GPU": float(gpu)} if gpu else None,
            ),
            run_config=ray.train.RunConfig(
                name=ray.tune.get_context().get_trial_id(),
                storage_path=str(folder / "ray"),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    _start_ray(4 if not gpu else 4 * at_once)
    began = time.time()
    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            num_samples=trials,
            metric=metric,
            mode=mode,
            search_alg=OptunaSearch(),
            max_concurrent_trials=at_once,
            scheduler=scheduler,
            time_budget_s=no_longer_than,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), name="sweep", verbose=0),
    ).fit()
    wall = time.time() - began
    assert not results.errors
    return {"began": began, "wall_s": wall}


def torchrun(module: str, folder: Path, trials: int, *arguments: object, workers: int = 2) -> dict[str, Any]:
    """Optuna proposes, and each trial is a `torchrun` of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-3, log=True)
        printed = launch(module, str(folder), str(lr), *map(str, arguments), workers=workers)
        return float(printed.strip().splitlines()[-1])

    began = time.time()
    optuna.create_study().optimize(objective, n_trials=trials)
    return {"wall_s": time.time() - began}


def launch(*module_and_arguments: str, workers: int = 2) -> str:
    """One `torchrun` of so many processes; what they print."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(workers), "-m", *module_and_arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _start_ray(cpus: int) -> None:
    import ray

    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
