"""A recorded trial is run again in new processes, and judged: the same, or what was different and what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import program
from tests.reproduce import project

SWEEP = (
    "sweep", "line", "--trials", "3", "--searcher", "random", "--trial-scheduler", "fifo", "--workers", "1",
    "--name", "s",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a sweep of three trials has run; its results are gone, MLflow's are there."""
    folder = tmp_path_factory.mktemp("work") / "project"
    project.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, _, err = said(*SWEEP)
        assert code == 0, err
        shutil.rmtree("results")
    return folder


@pytest.fixture(autouse=True)
def in_project(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)


def said(*arguments: str, **environment: str) -> tuple[int, str, str]:
    running = program.hfsuite(*arguments, **environment)
    out, err = program.output(running, timeout_s=240)
    return running.returncode, out, err


def reproduced(*arguments: str, run: str = "s:best", **environment: str) -> tuple[int, dict[str, Any]]:
    code, out, err = said("reproduce", run, *arguments, "--json", **environment)
    assert out.strip(), err
    return code, json.loads(out)


def subjects(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["subject"]: each for each in found["plan"]}


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    """A file with a part of it replaced, as long as this is open."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(before)


def test_the_same_comes_out_to_the_last_bit() -> None:
    code, found = reproduced()
    assert (code, found["verdict"], found["plan"]) == (0, "BITWISE", [])
    assert found["compared"] == 4 * 4, "loss, step, epoch and the report's number at four reports"
    assert found["losses_compared"] == 16
    assert found["weights_equal"] is True
    folder = f"reproduction/{found['repeated_by'][:8]}"
    files = {path.name for path in Path("mlartifacts").rglob(f"{folder}/*")}
    assert files == {"verdict.json", "verdict.md", "curves.png"}


@pytest.mark.slow
def test_another_seed_has_diverged() -> None:
    code, found = reproduced("--set", "seed=5")
    assert (code, found["verdict"]) == (3, "DIVERGED")
    assert found["began_at"] == 1
    assert found["left_at"]["step"] == 4, "the first report"
    assert "seed" in found["causes"]


def test_wrong_settings_are_named_before_anything_is_trained() -> None:
    code, _, err = said("reproduce", "s:best", "--set", "sead=5", "--set", "lr=fast")
    assert code == 2
    assert "no setting 'sead'. Did you mean 'seed'?" in err
    assert "lr must be a number" in err
    assert "different" not in err, "there is no plan of what cannot be"


@pytest.mark.slow
def test_one_changed_row_is_found_before_it_is_trained_on() -> None:
    with changed(Path("rows.csv"), "e-01", "e+00"):
        code, out, err = said("reproduce", "s:best", "--plan-only", "--json")
        assert code == 0, err
        assert subjects(json.loads(out))["training"]["effect"] == "other rows"
        code, found = reproduced()
    assert (code, found["verdict"]) == (3, "DIVERGED")
    assert "training" in found["causes"]


@pytest.mark.slow
def test_a_changed_line_of_the_experiment_is_undone_by_restoring_the_code() -> None:
    with changed(Path("line.py"), "Dropout(0.1)", "Dropout(0.2)"):
        code, found = reproduced()
        assert (code, found["verdict"]) == (3, "DIVERGED")
        assert subjects(found)["experiment's code"]["here"] == "1 lines differ"
        code, found = reproduced("--restore-code")
        assert (code, found["verdict"]) == (0, "BITWISE")
        assert project.git(Path(), "worktree", "list").count("\n") == 0, "the worktree is gone"
        assert "Dropout(0.2)" in Path("line.py").read_text(), "the user's own tree is as it was"


@pytest.mark.slow
def test_a_module_that_is_gone_comes_out_of_the_record() -> None:
    before = Path("line.py").read_text()
    Path("line.py").unlink()
    try:
        code, found = reproduced()
    finally:
        Path("line.py").write_text(before)
    assert (code, found["verdict"]) == (0, "BITWISE")


@pytest.mark.slow
def test_another_version_that_was_recorded_is_named_and_does_not_decide() -> None:
    with changed(artifact_of("s", "provenance/requirements.txt"), "transformers==", "transformers==0."):
        code, found = reproduced()
    assert (code, found["verdict"]) == (0, "BITWISE")
    assert subjects(found)["transformers"]["weight"] == "result"


@pytest.mark.slow
def test_another_number_of_threads_changes_the_last_bits_at_most() -> None:
    code, found = reproduced(OMP_NUM_THREADS="2", RAY_ADDRESS="")  # workers of another Ray have their own environment
    assert code == 0
    assert found["verdict"] == ("BITWISE" if found["began_at"] is None else "WITHIN TOLERANCE")
    assert subjects(found)["threads"]["here"] == "2"


@pytest.mark.slow
def test_another_world_size_is_never_bitwise() -> None:
    code, found = reproduced("--workers", "2", "--tolerance", "0.5")
    assert (code, found["verdict"]) == (0, "WITHIN TOLERANCE")
    assert subjects(found)["world size"]["recorded"] == "1"


@pytest.mark.slow
def test_another_split_of_an_equal_batch_is_found_and_within_tolerance() -> None:
    with (
        changed(Path("line.py"), "LARGEST = 16", "LARGEST = 8"),
        changed(Path("line.py"), "torch.nn.Dropout(0.1)", "torch.nn.Dropout(0.0)"),
    ):
        code, _, err = said("train", "line", "--workers", "1", "--name", "split", "--set", "lr=0.01", "--set", "seed=3")
        assert code == 0, err
    with changed(Path("line.py"), "torch.nn.Dropout(0.1)", "torch.nn.Dropout(0.0)"):
        code, out, err = said("diff", "s:best", "s:1", "--json")
        assert code == 0, err
        assert json.loads(out)["differences"]
        code, found = reproduced(run=run_of("split"))
    assert (code, found["verdict"]) == (0, "WITHIN TOLERANCE")
    assert subjects(found)["batch of a rank"]["recorded"] == "8 x 2"
    assert subjects(found)["batch of a rank"]["here"] == "16 x 1"


@pytest.mark.slow
def test_half_a_checkpoint_is_named_and_weights_are_judged_by_their_digest() -> None:
    whole = {path: path.read_bytes() for path in Path("mlartifacts").rglob("model.safetensors")}
    for path, content in whole.items():
        path.write_bytes(content[:-40])
    try:
        code, found = reproduced()
    finally:
        for path, content in whole.items():
            path.write_bytes(content)
    assert (code, found["verdict"]) == (0, "BITWISE")
    assert "its weights are others" in subjects(found)["kept checkpoint"]["here"]


@pytest.mark.slow
def test_without_weights_equal_numbers_are_not_called_bitwise() -> None:
    code, _, err = said("train", "line", "--workers", "1", "--name", "bare", "--set", "saves=false")
    assert code == 0, err
    code, found = reproduced(run=run_of("bare"))
    assert (code, found["verdict"]) == (0, "WITHIN TOLERANCE")
    assert (found["largest"], found["weights"]) == (None, "not recorded")


@pytest.mark.slow
def test_a_trial_that_was_stopped_early_is_run_to_where_it_was_stopped_or_on() -> None:
    code, _, err = said("train", "line", "--workers", "1", "--name", "early", "--reports", "2")
    assert code == 0, err
    recipe = artifact_of("early", "recipe.json")
    with changed(recipe, '"state": "completed"', '"state": "pruned"'):
        code, found = reproduced(run=run_of("early"))
        assert (code, found["verdict"], found["compared"]) == (0, "BITWISE", 2 * 4)
        code, found = reproduced("--to-end", run=run_of("early"))
    assert (code, found["compared"]) == (0, 2 * 4), "what was reported is compared, and nothing else"


def run_of(name: str) -> str:
    """The id of the run of a sweep, or of a single training."""
    from hfsuite.tracking import runs, store

    client = store.open_store()
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`{runs.SWEEP}` = '{name}' and tags.`{runs.KIND}` != 'trial'")
    return str(run.info.run_id)


def artifact_of(name: str, path: str) -> Path:
    (found,) = Path("mlartifacts").rglob(f"{run_of(name)}/artifacts/{path}")
    return found
