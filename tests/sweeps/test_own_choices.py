"""Sweeps over tuples, classes and enums: nothing is warned of, and trials, records and repetitions have the same."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from hfsuite.own_values import as_written
from hfsuite.tracking import runs, store
from hfsuite.tracking.recipe import RECIPE_FILE
from tests import choices, program, toy


def recipe_of(run_id: str) -> dict[str, Any]:
    found: dict[str, Any]
    found = json.loads(Path(store.open_store().download_artifacts(run_id, RECIPE_FILE)).read_text())
    return found


def got(diary: Path) -> list[str]:
    return [entry["got"] for entry in toy.read(diary)]


@pytest.mark.parametrize("searcher", ["random", pytest.param("grid", marks=pytest.mark.slow)])
def test_trials_get_the_experiments_own_values_and_records_what_a_file_holds(
    searcher: str, own_directory: Path
) -> None:
    diary = own_directory / "diary"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = choices.experiment.sweep(
            trials=2, searcher=searcher, trial_scheduler="fifo", set={"diary": str(diary)}, name="own"
        )
    assert [trial.failure for trial in result.trials] == [None, None]
    told = sorted(repr({name: trial.config[name] for name in choices.SPACE}) for trial in result.trials)
    assert sorted(got(diary)) == told
    assert "__ref_ph" not in "".join(told)
    for trial in result.trials:
        assert trial.config["model"] in (choices.Small, choices.Large)
        assert type(trial.config["kind"]) is choices.Kind
        record = json.loads(Path(f"results/own/trial_{trial.number:03d}/trial.json").read_text())
        recipe = recipe_of(str(trial.run_id))
        for each in (record, recipe):
            assert each["config"] == as_written(trial.config)
            other = ["other"] if trial.config["other"] is not None else []
            assert sorted(each["not_written"]) == ["colour", "model", *other]
        params = store.open_store().get_run(str(trial.run_id)).data.params
        assert json.loads(params["betas"]) == list(trial.config["betas"])
        assert params["colour"] == str(trial.config["colour"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_with_them_and_its_trials_are_repeated(own_directory: Path) -> None:
    diary = own_directory / "diary"
    options = ("--searcher", "random", "--trial-scheduler", "fifo", "--seed", "1", "--name", "cut")
    fixed = ("--set", f"diary={diary}", "--set", "reports=40", "--set", "colour=Colour.BLUE")
    sweep = program.hfsuite("sweep", "tests.choices", "--trials", "6", *options, *fixed)
    program.wait_for_lines(diary, 45, sweep)
    sweep.kill()
    _, said = sweep.communicate()
    assert "__ref_ph" not in said
    program.wait_for_free_cpus()
    resumed = program.hfsuite("resume", "cut")
    out, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert "Warning" not in said
    client = store.open_store()
    parent = runs.find_sweep(client, "cut")
    assert parent is not None
    recipes = [recipe_of(run.info.run_id) for run in runs.children(client, parent)]
    assert len(recipes) == 6
    of_records = {json.dumps({name: recipe["config"][name] for name in ("x", "betas", "kind")}) for recipe in recipes}
    assert {recipe["config"]["colour"] for recipe in recipes} == {"Colour.BLUE"}
    assert len(of_records) == 6
    seen = set(got(diary))
    assert len(seen) == 6, "a trial that went on has what it had"
    assert all("'colour': <Colour.BLUE: 2>" in each and "'betas': (" in each for each in seen)

    again = program.hfsuite("reproduce", "cut:best", "--json")
    out, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    found = json.loads(out)
    assert (found["verdict"], found["largest"], found["plan"]) == ("WITHIN TOLERANCE", None, []), "there are no weights"
    assert got(diary)[-1] in seen
    large = next(recipe["number"] for recipe in recipes if "Large" in recipe["config"]["model"])
    refused = program.hfsuite("reproduce", f"cut:{large}", GONE="model")
    _, said = refused.communicate(timeout=300)
    assert refused.returncode != 0
    assert "model was <class 'tests.choices.Large'>, which no file can hold" in " ".join(said.split())
