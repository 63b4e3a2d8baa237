"""A winner is confirmed over fresh seeds on data that no search saw, or it is said that nobody can tell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow.fs import LocalFileSystem
from ray.train import Checkpoint

from hfsuite import TransformersCheckpoint
from hfsuite.ranks.examination import TEST_FILE, Examination
from hfsuite.search.rounds import Rounds
from hfsuite.tracking import runs, store
from tests.reproduce import project
from tests.reproduce.test_reproduce import said


@pytest.mark.slow
def test_finalists_are_trained_with_the_same_seeds_and_tested(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_directory / "project"
    project.make(folder)
    monkeypatch.chdir(folder)
    code, _, err = said(
        "sweep", "line", "--trials", "4", "--searcher", "random", "--trial-scheduler", "fifo", "--name", "s"
    )
    assert code == 0, err
    code, out, err = said("confirm", "s", "--top", "2", "--seeds", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["finalists"]) == 2
    means = [each["mean"] for each in found["finalists"]]
    assert means == sorted(means), "smaller is better"
    for each in found["finalists"]:
        assert each["mean"] == pytest.approx(sum(each["values"]) / len(each["values"]))
        assert each["optimism"] == pytest.approx(each["mean"] - each["selected"])
    client = store.open_store()
    parent = runs.find_sweep(client, "s")
    again = runs.find_sweep(client, found["name"])
    assert parent is not None
    assert again is not None
    assert again.data.tags[runs.CONFIRMS] == parent.info.run_id
    assert parent.data.tags[runs.CONFIRMED_RUN] == found["winner_run_id"]
    assert "over" in client.get_run(found["winner_run_id"]).data.tags[runs.CONFIRMED]
    trials = runs.children(client, again)
    seeds = [run.data.params["seed"] for run in trials]
    assert seeds[::2] == seeds[1::2], "each seed for both"
    assert len(set(seeds)) == len(seeds) / 2
    assert len({run.data.params["lr"] for run in trials}) == 2
    for run in trials:
        assert run.data.metrics["test.loss"] > 0
    assert {run.data.tags[runs.WARM_START] for run in trials} >= {"True"}, "workers outlive trials here too"


def test_without_a_test_or_a_sweep_it_is_said(own_directory: Path) -> None:
    from hfsuite.errors import ConfigurationError, UnknownName
    from tests import toy
    from tests.tracking import made

    with pytest.raises(UnknownName, match="MLflow has no sweep 'none'"):
        toy.experiment.confirm("none")
    directory, _ = made.sweep(state="completed", ended_at=made.now())
    from hfsuite.tracking.sync import sync

    sync(directory)
    with pytest.raises(ConfigurationError) as raised:
        toy.experiment.confirm("made", seeds=0)
    assert len(raised.value.faults) == 3
    for part in ("at least one", "has no trial with a result", "declares no test"):
        assert part.lower() in str(raised.value).lower()


def test_rounds_end_when_the_question_is_settled_and_leave_out_a_seed_that_failed() -> None:
    values = {0: 0.5, 1: 0.4, 2: math.nan, 3: 0.4, 4: 0.6, 5: 0.3}
    rounds = Rounds(
        [{"x": 1}, {"x": 2}], [7, 8, 9, 10], with_seed=lambda point, seed: {**point, "seed": seed},
        value_of=values.__getitem__, is_settled=lambda found: bool(found) and len(found[0]) == 2,
    )  # fmt: skip
    proposed = []
    for number in range(6):
        proposed.append(rounds.suggest(f"t{number}"))
        rounds.on_trial_complete(f"t{number}", {})
    assert [(each["x"], each["seed"]) for each in proposed] == [(1, 7), (2, 7), (1, 8), (2, 8), (1, 9), (2, 9)]
    assert rounds.values == [[0.5, 0.6], [0.4, 0.3]], "the second seed failed with the first configuration"
    assert rounds.failures == [1, 0]
    assert rounds.suggest("t6") == Rounds.FINISHED


def test_a_configuration_that_always_fails_does_not_take_the_others_with_it() -> None:
    rounds = Rounds(
        [{"x": 1}, {"x": 2}, {"x": 3}], [7, 8], with_seed=lambda point, seed: {**point, "seed": seed},
        value_of=lambda number: float(number), is_settled=lambda _: False,
    )  # fmt: skip
    for number in range(6):
        rounds.suggest(f"t{number}")
        rounds.on_trial_complete(f"t{number}", {}, error=number % 3 == 1)
    assert (rounds.standing, rounds.failures) == ([0, 2], [0, 2, 0])
    assert rounds.values == [[0.0, 3.0], [2.0, 5.0]]


def test_of_equally_good_checkpoints_the_one_that_is_still_there_is_tested(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported, tested = [], []
    for place, (loss, is_there) in enumerate([(0.5, True), (0.4, False), (0.4, True), (0.6, True)]):
        folder = own_directory / f"checkpoint_{place}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if is_there:
            TransformersCheckpoint.seal(folder)
        reported.append(SimpleNamespace(metrics={"loss": loss}, checkpoint=Checkpoint(str(folder))))
    storage = SimpleNamespace(storage_filesystem=LocalFileSystem(), experiment_fs_path=str(own_directory))
    context = SimpleNamespace(get_world_rank=lambda: 0, get_storage=lambda: storage)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr("ray.train.get_all_reported_checkpoints", lambda: reported)

    def rate(checkpoint: TransformersCheckpoint, settings: dict[str, int]) -> dict[str, float]:
        tested.append(Path(checkpoint.path).name)
        return {"loss": 0.3}

    Examination(rate, "loss", "min").hold({"x": 1})
    assert tested == ["checkpoint_2"]
    assert json.loads((own_directory / TEST_FILE).read_text()) == {"loss": 0.3}
    for each in reported:
        each.metrics["accuracy"] = 1.0
    with pytest.raises(ValueError, match="must return 'accuracy', got loss"):
        Examination(rate, "accuracy", "max").hold({})
