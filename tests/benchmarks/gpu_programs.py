"""What is measured on GPUs, one process a measurement: see `programs`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import ways


def gpu_bare(folder: Path, trials: int, gpus: int, steps: int) -> dict[str, Any]:
    """The loop in one process group that lives."""
    ways.launch("tests.benchmarks.gpu_workload", str(folder), "1e-5", str(trials), str(steps), workers=gpus)
    return {}


def gpu_ours(folder: Path, trials: int, gpus: int, steps: int, **options: Any) -> dict[str, Any]:
    """A sweep of such trials."""
    from tests.benchmarks import gpu_workload

    given = {"steps": steps} | options.pop("set", {})
    return ways.ours(gpu_workload.experiment, folder, trials, set=given, **{"workers": gpus, "gpu": 1.0} | options)


def gpu_pack(folder: Path, trials: int, workers: int, steps: int, share: str) -> dict[str, Any]:
    """A sweep of such trials that share GPUs: a number says how, or "auto"."""
    gpu = share if share == "auto" else float(share)
    return gpu_ours(folder, trials, workers, steps, gpu=gpu, cpus=os.cpu_count())


def gpu_pack_mixed(folder: Path, trials: int) -> dict[str, Any]:
    """Trials that take little memory and much share a GPU."""
    from tests.benchmarks import gpu_workload

    return ways.ours(
        gpu_workload.of_mixed_sizes, folder, trials, cpus=os.cpu_count() or 1, workers=1, gpu="auto",
        set={"steps": 80, "pause_s": 0.1}, may_fail=True,  # as if they waited for data: it pays to share
    )  # fmt: skip


def gpu_pack_large(folder: Path, trials: int, steps: int, share: str) -> dict[str, Any]:
    """Trials that need a GPU for themselves: LoRA of a model with a billion parameters."""
    from tests.benchmarks import gpu_experiments

    gpu = share if share == "auto" else float(share)
    return ways.ours(
        gpu_experiments.large_experiment, folder, trials, cpus=os.cpu_count() or 1, workers=1, gpu=gpu,
        set={"global_batch_size": 8, "steps": steps},
    )  # fmt: skip


def gpu_pack_ray_pattern(folder: Path, trials: int, steps: int, part: str) -> dict[str, Any]:
    """Trials of `gpu_pack` in Ray's documented pattern, each with a part of the GPU that somebody chose."""
    from tests.benchmarks import gpu_workload

    def train_fn(config: dict[str, Any]) -> None:
        import ray.train.torch

        gpu_workload.train(config["lr"], ray.train.torch.get_device(), ray.train.report, steps=steps)

    space = gpu_workload.experiment.space
    return ways.ray_pattern(
        train_fn, space, "loss", folder, trials, workers=1, gpu=float(part), at_once=int(1 / float(part))
    )


def gpu_in_turns(folder: Path, trials: int, gpus: int, steps: int) -> dict[str, Any]:
    """A sweep of such trials and the loop in one process group that lives, beside one another: a trial each in turn."""
    from tests.benchmarks.turns import give_turn

    arguments = (str(folder), "1e-5", str(trials), str(steps), "bare")
    with torchrun_beside(folder, "tests.benchmarks.gpu_workload", *arguments, workers=gpus):
        answer = gpu_ours(folder, trials, gpus, steps, set={"in_turns_as": "ours"})
        give_turn("ours", ranks=gpus)  # there may be one left
    return answer


@contextmanager
def torchrun_beside(folder: Path, *module_and_arguments: str, workers: int) -> Iterator[None]:
    """A `torchrun` that takes turns with the block. If one fails the other ends too; the first failure is raised."""
    from tests.benchmarks.turns import FAILED

    failed = folder / FAILED
    with ThreadPoolExecutor(1) as beside:
        launched = beside.submit(ways.launch, *module_and_arguments, workers=workers)
        launched.add_done_callback(lambda done: failed.touch() if done.exception() else None)
        try:
            yield
        except Exception as error:
            if failed.exists():
                raise RuntimeError(f"torchrun failed: {launched.exception()}") from error
            failed.touch()
            raise
        launched.result()


def gpu_torchrun(folder: Path, trials: int, gpus: int, steps: int) -> dict[str, Any]:
    """The same trials, each a `torchrun`."""
    return ways.torchrun("tests.benchmarks.gpu_workload", folder, trials, 1, steps, workers=gpus)


def gpu_ray_pattern(folder: Path, trials: int, gpus: int, steps: int) -> dict[str, Any]:
    """The same trials in Ray's documented pattern."""
    from tests.benchmarks import gpu_workload

    def train_fn(config: dict[str, Any]) -> None:
        import ray.train.torch

        gpu_workload.train(config["lr"], ray.train.torch.get_device(), ray.train.report, steps=steps)

    space = gpu_workload.experiment.space
    return ways.ray_pattern(train_fn, space, "loss", folder, trials, workers=gpus, gpu=True)


def gpu_stops(folder: Path, trials: int, gpus: int) -> dict[str, Any]:
    """Every trial is stopped at its second report."""
    from tests.benchmarks import gpu_workload
    from tests.benchmarks.programs import stop_at_two

    return gpu_ours(folder, trials, gpus, gpu_workload.STEPS, trial_scheduler=stop_at_two())


def gpu_share_ours(folder: Path, trials: int, gpus: int, seed: int) -> dict[str, Any]:
    """The sentiment experiment under ASHA, a trial on each GPU, and more workers where GPUs would be idle."""
    from tests.benchmarks import gpu_experiments

    return ways.ours(
        gpu_experiments.sentiment_experiment, folder, trials, cpus=2 * gpus, trial_scheduler="asha", searcher="tpe",
        gpu=1.0, at_end="grow", set=gpu_experiments.settings_of_share(gpus), seed=seed,
    )  # fmt: skip


def gpu_share_ray_pattern(folder: Path, trials: int, gpus: int, _: int) -> dict[str, Any]:
    """The same in Ray's documented pattern."""
    from hfsuite.search.trial_schedulers import make_trial_scheduler
    from tests.benchmarks import gpu_experiments

    experiment = gpu_experiments.sentiment_experiment
    fixed = {**gpu_experiments.settings_of_share(gpus), "diary": os.environ["BENCH_DIARY"]}
    space = {**experiment.defaults, **experiment.space, **fixed}
    return ways.ray_pattern(
        gpu_experiments.sentiment_as_ray_documents_it, space, "eval_accuracy", folder, trials, mode="max", workers=1,
        gpu=True, at_once=gpus, scheduler=make_trial_scheduler("asha"), no_longer_than=900,
    )  # fmt: skip


def gpu_tokens(folder: Path, gpus: int, rows: int, steps: int) -> dict[str, Any]:
    """A trial of the language model, and the same script under `torchrun` beside it: they train in turns."""
    from tests.benchmarks import gpu_experiments

    alone = folder / "torchrun"
    alone.mkdir()
    arguments = (str(alone), str(rows), str(steps))
    with torchrun_beside(folder, "tests.benchmarks.gpu_experiments", *arguments, workers=gpus):
        experiment, settings = gpu_experiments.language_model_experiment, {"global_batch_size": rows, "steps": steps}
        return ways.ours(experiment, folder, 1, workers=gpus, set=settings)


def gpu_checkpoints(folder: Path, count: int, decisions: str) -> dict[str, Any]:
    """Saving two gigabytes, with and without a report."""
    from tests.benchmarks import checkpoints

    given = {"count": count, "model": "2 GB"}
    return ways.ours(checkpoints.experiment, folder, 1, set=given, decisions=decisions, workers=1, gpu=True)


def gpu_uploads(folder: Path, count: int) -> dict[str, Any]:
    """Training beside an asynchronous upload, and without."""
    from tests.benchmarks import checkpoints

    return ways.ours(checkpoints.beside_uploads, folder, 1, set={"count": count}, decisions="pipelined")
