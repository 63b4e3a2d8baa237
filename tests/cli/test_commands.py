"""The command line: what it prints, where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest

from hfsuite.cli import app
from hfsuite.cli.outcome import run_command

MODULES = {
    "noexperiment.py": '"""Nothing here."""\nx = 1\n',
    "othername.py": "from tests.toy import experiment as mine\n",
    "needs.py": "import a_package_that_is_not_there\n",
    "raises.py": "value = 1\nraise RuntimeError('boom')\n",
    "broken.py": "def f(:\n",
}


@pytest.fixture
def package(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = own_directory / "mine"
    folder.mkdir()
    for name, source in MODULES.items():
        (folder / name).write_text(source)
    monkeypatch.syspath_prepend(str(own_directory))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(app, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("experiments.sentimnt", "sentiment comes with hfsuite: hfsuite new NAME --from sentiment"),
        ("digit", "There is no module 'digit' here. digits comes with hfsuite"),
        ("othernam", "There is no module 'othernam' here"),
        ("mine.noexperiment", "mine.noexperiment declares no experiment: it must assign"),
        ("mine.othername", "It has one called 'mine': rename it."),
        ("mine.needs", "needs the module 'a_package_that_is_not_there', which is not installed"),
        ("mine.raises", "Importing mine.raises fails: RuntimeError: boom (line 2)"),
        ("mine.broken", "Importing mine.broken fails: SyntaxError"),
        ("nofile.py", "There is no file 'nofile.py' here"),
        ("/etc/hostname.py", "There is no file '/etc/hostname.py' here"),
    ],
)
def test_a_module_that_cannot_be_used_is_explained(
    package: Path, capsys: pytest.CaptureFixture[str], module: str, message: str
) -> None:
    code, out, err = run(capsys, "sweep", module)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_every_mistake_of_a_command_line_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "sweep", "tests.toy", "--set", "reports=many", "--set", "seed", "--set", "xx=1", "--searcher", "tpee",
        "--workers", "9", "--json", "--cpu", "--gpu-share", "0.5",
    )  # fmt: skip
    assert (code, out) == (2, "")
    for part in ("reports must be a whole number", "--set takes KEY=VALUE, got 'seed'", "no setting 'xx'",
                 "--cpu and --gpu-share contradict each other",
                 "no searcher 'tpee'"):  # fmt: skip
        assert part in err
    assert "A trial of 9 workers" in run(capsys, "sweep", "tests.toy", "--workers", "9")[2]
    assert not Path("mlartifacts").exists(), "nothing is recorded"


@pytest.mark.parametrize(
    "arguments", [["sweep"], ["sweep", "tests.toy", "--nope"], ["swep"], ["train", "x", "--seed", "a"]]
)
def test_a_command_line_that_cannot_be_read_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in err


def test_list_names_what_cannot_be_read(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = own_directory / "search_spaces"
    package.mkdir()
    (package / "half.py").write_text("def f(:\n")
    (own_directory / "mine.py").write_text("from hfsuite import Experiment\nexperiment = Experiment(\n")
    found = json.loads(run(capsys, "list", "--json")[1])
    assert found["search_spaces"]["search_spaces.half"].startswith("(cannot be read: invalid syntax")
    assert found["experiments"]["mine"].startswith("(cannot be read: ")


def test_an_experiment_that_nobody_can_read_again_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "sweep", "__main__")
    assert code == 2
    assert "put it into a file" in err


def test_list_names_experiments_and_spaces(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    code, out, _ = run(capsys, "list", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"experiments.sentiment", "experiments.digits"} <= set(found["experiments"])
    assert {"search_spaces.fine_tuning", "search_spaces.vision"} <= set(found["search_spaces"])
    assert all(found["experiments"].values()), "each has a summary"


def test_best_of_nothing_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "best")
    assert code == 2
    assert "mlflow.db. Run one: hfsuite sweep MODULE" in err
    assert not Path("mlflow.db").exists(), "who only reads makes none"


def test_a_sweep_prints_one_json_object_and_best_finds_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "sweep", "tests.toy", "--trials", "1", "--workers", "1", "--set", "reports=3", "--json", "--name", "one"
    )
    assert code == 0, err
    said = json.loads(out)
    assert (said["sweep"], len(said["trials"]), said["best"]["number"]) == ("one", 1, 0)
    assert "loss" in err, "progress goes to standard error"
    code, out, _ = run(capsys, "best", "--json")
    best = json.loads(out)
    assert code == 0
    assert (best["sweep"], best["run_id"]) == ("one", said["best"]["run_id"])
    assert best["value"] == said["best"]["metrics"]["loss"]
    assert best["checkpoint"] == said["best"]["checkpoint"]
    assert best["config"] == said["best"]["config"], "in their own types"
    code, out, _ = run(capsys, "best")
    assert code == 0
    assert "config.x" in out, "a metric may have the same name"
    code, out, err = run(capsys, "best", "onne")
    assert code == 2
    assert "Did you mean 'one'?" in err


def test_no_success_exits_with_1_and_ends_with_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "sweep", "tests.toy", "--trials", "1", "--workers", "1", "--set", "fails_at=1", "--name", "bad"
    )
    assert code == 1
    assert "failed" in out
    assert err.rstrip().endswith("ArithmeticError: asked to fail at step 1")
    assert "trial_000, rank 0" in err


def test_adapters_are_loaded_with_their_base_model_if_it_has_a_name(tmp_path: Path) -> None:
    from hfsuite import TransformersCheckpoint
    from hfsuite.cli.sweep import load_command
    from hfsuite.tracking.adapters import CLASSES

    def command(**config: str) -> str:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        return load_command(TransformersCheckpoint(tmp_path), "here")

    named = command(task_type="CAUSAL_LM", base_model_name_or_path="somebody/base")
    assert "from peft import AutoPeftModelForCausalLM; print(AutoPeftModelForCausalLM.from_pretrained('here'))" in named
    assert "load_peft_weights('here')" in command(task_type="CAUSAL_LM", base_model_name_or_path="")
    own = {"FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction"}
    for task in CLASSES:
        name = own.get(task, f"AutoPeft{CLASSES[task][4:]}")
        assert f"import {name};" in command(task_type=task, base_model_name_or_path="a/b")
        assert hasattr(peft, name)
    (tmp_path / "base_model").mkdir()
    (tmp_path / "base_model" / "config.json").write_text("{}")
    assert "AutoModelForCausalLM.from_pretrained('here/base_model'), 'here')" in command(task_type="CAUSAL_LM")
