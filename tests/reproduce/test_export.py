"""An exported trial needs nothing of this project, and trains to the same losses."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import hfsuite
from hfsuite.reproduce.export import TAKEN_ALONG, taken_along
from tests import program
from tests.reproduce import project
from tests.reproduce.test_reproduce import reproduced, said
from tests.tracking import stores


def test_what_is_taken_along_of_the_project_is_there_and_needs_nothing_else_of_it() -> None:
    here = {module.rpartition(".")[2] for module in TAKEN_ALONG}
    own = {path.stem for path in Path(hfsuite.__path__[0]).rglob("*.py")} - {"transformers", "accelerate"}
    for module in TAKEN_ALONG:
        tree = ast.parse(taken_along(module))
        imported = {each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
        assert not {name for name in imported if str(name).startswith("hfsuite")}, module
        assert own & imported <= here, module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "settings", "workers"),
    [
        ("experiments.digits", ["epochs=2"], 1),
        ("experiments.sentiment", ["num_train_epochs=1", "train_rows=64", "validation_rows=32"], 2),
    ],
)
def test_it_runs_without_hfsuite_and_ray_to_the_same_losses(
    own_directory: Path, experiment: str, settings: list[str], workers: int
) -> None:
    fixed = [part for each in settings for part in ("--set", each)]
    code, out, err = said(
        "sweep", experiment, "--trials", "1", "--workers", str(workers), "--searcher", "random", "--name", "s",
        "--json", *fixed,
    )  # fmt: skip
    assert code == 0, err
    best = json.loads(out)["best"]
    code, out, err = said("export", "s:best", "exported")
    assert code == 0, err
    folder = own_directory / "exported"
    model = "ViTForImageClassification" if experiment.endswith("digits") else "BertForSequenceClassification"
    python = environment_of(folder / "requirements.txt", own_directory / "venv")
    for name in ("hfsuite", "ray", "mlflow", "optuna"):
        imported = subprocess.run([python, "-c", f"import {name}"], capture_output=True, cwd=folder, env=bare())
        assert b"ModuleNotFoundError" in imported.stderr, name
    loads = f"from transformers import {model}; {model}.from_pretrained('model')"
    subprocess.run([python, "-c", loads], check=True, cwd=folder, capture_output=True, env=bare())
    done = subprocess.run(
        [python, "-m", "torch.distributed.run", "--master-port", str(program.free_port()), "--nproc-per-node",
         str(workers), "train.py"],
        cwd=folder, capture_output=True, text=True, env=bare(), timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    again = {name: value for line in lines for name, value in line.items()}
    for name in ("loss", "eval_loss", "eval_accuracy"):
        assert again[name] == best["metrics"][name], name
    assert "| config.learning_rate |" in (folder / "README.md").read_text()
    assert "id2label" not in out, "the labels have names"


@pytest.mark.slow
def test_a_server_gives_its_models_back(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_directory / "project"
    project.make(folder)
    monkeypatch.chdir(folder)
    with stores.server(own_directory):
        code, _, err = said("train", "line", "--workers", "1", "--name", "t")
        assert code == 0, err
        code, found = reproduced("--set", "seed=3", run="t")
        assert (code, found["verdict"]) == (3, "DIVERGED")
        assert found["weights_largest_difference"] > 0, "both models were fetched"
        code, _, err = said("export", "t", "exported")
        assert code == 0, err
    assert (folder / "exported" / "model" / "model.safetensors").stat().st_size > 100
    code, _, err = said("export", "t", "exported")
    assert code == 2
    assert "is not empty" in err


@pytest.mark.slow
def test_what_lies_beside_the_module_is_taken_along(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_directory / "project"
    source = project.make(folder)
    text = source.read_text().replace(f'Path("{folder / "rows.csv"}")', 'Path(__file__).parent / "rows.csv"')
    source.write_text(text)
    monkeypatch.chdir(folder)
    code, _, err = said("train", "line", "--workers", "1", "--name", "t", "--set", "epochs=1")
    assert code == 0, err
    exported = own_directory / "exported"
    code, _, err = said("export", "t", str(exported))
    assert code == 0, err
    assert "`rows.csv`" in (exported / "README.md").read_text()
    (folder / "rows.csv").unlink()
    done = subprocess.run([sys.executable, "train.py"], cwd=exported, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (exported / "metrics.jsonl").read_text().count("loss") == 1


@pytest.mark.slow
def test_a_model_that_is_not_whole_is_not_exported(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_directory / "project"
    project.make(folder)
    monkeypatch.chdir(folder)
    code, _, err = said("train", "line", "--workers", "1", "--name", "t")
    assert code == 0, err
    for path in Path("mlartifacts").rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:40])
    code, _, err = said("export", "t", "exported")
    assert code == 2
    assert "cannot be exported: what MLflow has is not what was recorded" in err
    assert not Path("exported").exists()


def bare() -> dict[str, str]:
    """Nothing of this project on the path, and nothing from a hub."""
    return {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(Path.home())}


def environment_of(requirements: Path, folder: Path) -> Path:
    """A virtual environment with what the file names and nothing else; its packages are those that are installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (target,) = folder.glob("lib/python*/site-packages")
    wanted = {
        canonicalize_name(line.partition("==")[0]) for line in requirements.read_text().splitlines() if line[0] != "#"
    }
    installed = Path(sysconfig.get_paths()["purelib"])
    for info in installed.glob("*.dist-info"):
        if canonicalize_name(info.name.split("-")[0]) not in wanted:
            continue
        names = {line.split(",")[0].split("/")[0] for line in (info / "RECORD").read_text().splitlines()}
        for name in names - {"..", ""}:
            if (installed / name).exists() and not (target / name).exists():
                (target / name).symlink_to(installed / name)
    return folder / "bin" / "python"


def test_a_folder_with_something_in_it_is_refused(own_directory: Path) -> None:
    from hfsuite.errors import ConfigurationError
    from hfsuite.reproduce.export import export
    from hfsuite.tracking import store

    Path("full").mkdir()
    Path("full", "mine").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        export(store.open_store(), "s:best", Path("full"))
