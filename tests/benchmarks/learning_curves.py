"""A table of real learning curves, so that searchers can be compared on real fine-tuning without training again.

    python -m tests.benchmarks.learning_curves train PART.parquet --configurations 150 --seed 0 [--trials-per-gpu 12]
    python -m tests.benchmarks.learning_curves collect results/SWEEP PART.parquet       of a sweep that was cut off
    python -m tests.benchmarks.learning_curves train REST.parquet --seed 0 --without PART.parquet     what it left out
    python -m tests.benchmarks.learning_curves merge PART.parquet ...

The sentiment experiment on all its training rows, three epochs, twelve evaluations: configurations drawn quasi-randomly
from the whole width of `search_spaces/fine_tuning.py`, each with the same seeds. `merge` writes the table and its
picture. A row is an evaluation:

    configuration   its number; the five settings follow
    seed            of initial weights, order of rows and dropout
    step, epoch     of the optimizer; epochs of all training rows
    seconds         since training began, evaluations included, beside as many others on the same GPU as
                    `trials_per_gpu` says
    loss            of training, a mean since the evaluation before
    eval_loss, eval_accuracy      on the 1,000 validation rows
    test_accuracy   on the 1,000 test rows, at the end; NaN before
    outcome         of the whole training: completed; diverged (it ends no better than guessing, or with a loss that is
                    no number); failed (it has a single row then, if it never got to an evaluation)
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.train import ScalingConfig
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from experiments import sentiment
from hfsuite import Experiment, TransformersTrainer
from hfsuite.tracking.directory import REPORTS_FILE, SweepDirectory
from hfsuite.tracking.record import TrialRecord
from hfsuite.tracking.state import TrialState
from search_spaces import fine_tuning

if TYPE_CHECKING:
    import pandas as pd

TABLE = Path(__file__).parent / "data" / "sentiment_curves.parquet"
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "learning_curves.png"
EPOCHS, EVALUATIONS, SEED_OF_DRAWS = 3, 12, 0
GUESSING = 0.55  # accuracy; the classes are balanced


class TestAtEnd(TrainerCallback):
    """Says how long it has trained, and rates the last weights on the test part for the last report."""

    def __init__(self, trainer: Trainer, settings: dict[str, Any]) -> None:
        self.trainer, self.settings = trainer, settings
        self.began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "eval_loss" in logs:
            logs["training_s"] = time.monotonic() - self.began

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.trainer.evaluate(sentiment.tokenized(self.settings)["test"], metric_key_prefix="test")


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, **settings: Any) -> Trainer:
    """The experiment's own trainer, which saves nothing: 3,600 checkpoints are a terabyte."""
    trainer = sentiment.trainer_init_per_worker(train_dataset, eval_dataset, **settings)
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.add_callback(TestAtEnd(trainer, settings))
    return trainer


experiment = Experiment(
    name="learning-curves",
    trainer=TransformersTrainer(trainer_init_per_worker, scaling_config=ScalingConfig(num_workers=1)),
    space=fine_tuning.space | {"seed": tune.randint(0, 1_000), "configuration": tune.randint(0, 100_000)},
    metric="eval_accuracy",
    mode="max",
    defaults=sentiment.DEFAULTS
    | {"train_rows": 10_000, "validation_rows": 1_000, "num_train_epochs": EPOCHS, "evaluations": EVALUATIONS}
    | {"configuration": 0},
)


def draw(count: int) -> list[dict[str, Any]]:
    """Configurations of the suite's own quasi-random searcher; a longer list begins with a shorter one."""
    from ray.tune.schedulers import FIFOScheduler

    from hfsuite.search.searchers import make_searcher
    from hfsuite.search.trial_schedulers import Budget

    searcher: Any = make_searcher(
        "qmc", seed=SEED_OF_DRAWS, study_name="curves", directory=None, budget=Budget.of(FIFOScheduler())
    )
    searcher.set_search_properties("eval_accuracy", "max", dict(fine_tuning.space))
    return [searcher.suggest(str(number)) for number in range(count)]


def train(
    part: Path, count: int, seed: int, without: list[Path], trials_per_gpu: int | None, fixed: dict[str, Any]
) -> None:
    """Trains configurations with one seed, in warm workers, as many at once as fit, and writes their curves."""
    import pandas as pd
    from ray.tune.search import BasicVariantGenerator

    there = {
        pair for each in without for pair in pd.read_parquet(each)[["configuration", "seed"]].itertuples(index=False)
    }
    points = [
        {"trainer_init_config": configuration | {"configuration": number, "seed": seed}}
        for number, configuration in enumerate(draw(count))
        if (number, seed) not in there
    ]
    result = experiment.sweep(
        trials=len(points),
        searcher=BasicVariantGenerator(points_to_evaluate=points),
        trial_scheduler="fifo",
        gpu=1 / trials_per_gpu if trials_per_gpu else None,
        set=fixed,
        keep="none",
    )
    collect(Path(result.path), part)


def collect(sweep: Path, part: Path) -> None:
    """Writes the curves of all trainings of a sweep that have ended, also of one that was cut off."""
    import pandas as pd

    directory = SweepDirectory.at(str(sweep.parent), sweep.name)
    ended = [trial for trial in directory.read_trials() if trial.state in (TrialState.COMPLETED, TrialState.FAILED)]
    table = pd.DataFrame(row for trial in ended for row in rows_of(trial, sweep / trial.directory / REPORTS_FILE))
    table = table.astype({"step": "int32", "seed": "int16", "configuration": "int16", "global_batch_size": "int16"})
    part.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(part, index=False, compression="zstd")
    print(table.groupby("outcome")["configuration"].nunique().to_string(), f"\n{len(table)} rows in {part}")


def rows_of(trial: TrialRecord, file: Path) -> Iterator[dict[str, Any]]:
    """The evaluations of one trial; one row without numbers if it never got to one."""
    settings = {name: trial.config[name] for name in ("configuration", *fine_tuning.space, "seed")}
    lines = file.read_text().splitlines() if file.is_file() else []
    reports = [json.loads(line) for line in lines] or [{}]
    last = reports[-1]
    is_sound = last.get("eval_accuracy", 0.0) > GUESSING and math.isfinite(last.get("eval_loss", math.nan))
    outcome = "failed" if trial.state is TrialState.FAILED else "completed" if is_sound else "diverged"
    for report in reports:
        numbers = {name: report.get(name, math.nan) for name in ("epoch", "loss", "eval_loss", "eval_accuracy")}
        yield {
            **settings,
            "step": report.get("step", 0),
            "seconds": report.get("training_s", math.nan),
            **numbers,
            "test_accuracy": report.get("test_accuracy", math.nan),
            "outcome": outcome,
        }


def merge(parts: list[Path]) -> None:
    """One table of all parts, and its picture."""
    import pandas as pd

    table = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    table = table.sort_values(["configuration", "seed", "step"], ignore_index=True)
    if table.duplicated(["configuration", "seed", "step"]).any():
        raise SystemExit("The parts overlap: a configuration was trained twice with the same seed.")
    TABLE.parent.mkdir(exist_ok=True)
    table.to_parquet(TABLE, index=False, compression="zstd")
    draw_picture(table)
    seeds = table["seed"].nunique()
    print(f"{table['configuration'].nunique()} configurations, {seeds} seeds, {len(table)} rows in {TABLE}")
    print(table.groupby("outcome").size().to_string())


def draw_picture(table: pd.DataFrame) -> None:
    """Validation accuracy over epochs, coloured by learning rate, and what the end of training has to do with it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import LogNorm

    figure, (curves, ends) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    norm, colours = LogNorm(table["learning_rate"].min(), table["learning_rate"].max()), pyplot.get_cmap("viridis")
    for _, curve in table[table["outcome"] != "failed"].groupby(["configuration", "seed"]):
        colour = colours(norm(curve["learning_rate"].iloc[0]))
        curves.plot(curve["epoch"], curve["eval_accuracy"], color=colour, alpha=0.5, linewidth=0.8)
    curves.set(xlabel="epochs", ylabel="accuracy on the validation part", title="Every training of the table")
    last = table[table["outcome"] != "failed"].groupby(["configuration", "seed"]).last().reset_index()
    dots = ends.scatter(
        last["eval_accuracy"], last["test_accuracy"], c=last["learning_rate"], norm=norm, cmap=colours, s=12
    )
    ends.axline((0.7, 0.7), slope=1, color="grey", linewidth=0.6)
    ends.set(xlabel="accuracy on the validation part, at the end", ylabel="on the test part", title="Ends")
    figure.colorbar(dots, ax=ends, label="learning rate")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("part", type=Path)
    training.add_argument("--configurations", type=int, default=150)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument(
        "--without", type=Path, nargs="*", default=[], metavar="PART", help="what they have is left out"
    )
    training.add_argument("--trials-per-gpu", type=int, default=None, help="without it, on CPUs")
    training.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="to try it out on fewer rows")
    collecting = commands.add_parser("collect")
    collecting.add_argument("sweep", type=Path)
    collecting.add_argument("part", type=Path)
    merging = commands.add_parser("merge")
    merging.add_argument("parts", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "merge":
        merge(given.parts)
    elif given.command == "collect":
        collect(given.sweep, given.part)
    else:
        fixed = {key: json.loads(value) for key, _, value in (each.partition("=") for each in given.set)}
        train(given.part, given.configurations, given.seed, given.without, given.trials_per_gpu, fixed)


if __name__ == "__main__":
    main()
