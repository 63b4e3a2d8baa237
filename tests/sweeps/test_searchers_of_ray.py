"""Searchers of Ray Tune's whose libraries are installed; docs/searchers.md says what was seen of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import program, toy
from tests.sweeps.searching import LIBRARIES, SPACE, TRIALS, chosen, experiment

pytestmark = pytest.mark.slow
TYPES = {"x": float, "size": int, "kind": str, "is_deep": bool, "betas": tuple}


def installed(name: str) -> None:
    for library in LIBRARIES[name]:
        pytest.importorskip(library)


@pytest.mark.parametrize("name", LIBRARIES)
def test_it_searches_and_trials_have_pythons_own_values(name: str, own_directory: Path) -> None:
    installed(name)
    diary = own_directory / "diary"
    result = experiment.sweep(trials=TRIALS, set={"diary": str(diary)}, name="searched", **chosen(name))
    assert [trial.failure for trial in result.trials] == [None] * TRIALS
    assert len({trial.config["x"] for trial in result.trials}) == TRIALS
    for trial in result.trials:
        assert {key: type(trial.config[key]) for key in SPACE} == TYPES
        record = json.loads(Path(f"results/searched/trial_{trial.number:03d}/trial.json").read_text())
        assert {key: type(record["config"][key]) for key in SPACE} == TYPES | {"betas": list}
    told = {repr({key: trial.config[key] for key in SPACE}) for trial in result.trials}
    assert {entry["got"] for entry in toy.read(diary)} == told


@pytest.mark.parametrize("name", ["hyperopt", "nevergrad"])
def test_a_killed_sweep_goes_on_with_a_searcher_like_its_own(name: str, own_directory: Path) -> None:
    installed(name)
    diary = own_directory / "diary"
    sweep = program.start("-m", "tests.sweeps.searching", name)
    program.wait_for_lines(diary, 3, sweep)
    sweep.kill()
    sweep.communicate()
    program.wait_for_free_cpus(120)
    before = {entry["got"] for entry in toy.read(diary)}
    result = experiment.resume("cut", searcher=chosen(name)["searcher"])
    assert [trial.failure for trial in result.trials] == [None] * TRIALS
    assert [trial.iterations for trial in result.trials] == [3] * TRIALS
    told = {repr({key: trial.config[key] for key in SPACE}) for trial in result.trials}
    assert before <= told, "those that had begun go on with what they had"
    assert len(told) == TRIALS
