"""A winner is confirmed over fresh seeds on data that no search saw, or it is said that nobody can tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    values = {0: 0.5, 1: 0.4, 2: None, 3: 0.4, 4: 0.6, 5: 0.3}
    rounds = Rounds(
        [{"x": 1}, {"x": 2}], [7, 8, 9, 10], with_seed=lambda point, seed: {**point, "seed": seed},
        value_of=values.__getitem__, is_settled=lambda found: bool(found) and len(found[0]) == 2,
    )  # fmt: skip
    proposed = []
    for number in range(6):
        proposed.append(rounds.suggest(f"t{number}"))
        rounds.on_trial_complete(f"t{number}", {}, error=values[number] is None)
    assert [(each["x"], each["seed"]) for each in proposed] == [(1, 7), (2, 7), (1, 8), (2, 8), (1, 9), (2, 9)]
    assert rounds.values == [[0.5, 0.6], [0.4, 0.3]], "the second seed failed with the first configuration"
    assert rounds.suggest("t6") == Rounds.FINISHED
