"""Where a sweep came from is recorded, and nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hfsuite.tracking import provenance, runs, secrets, store
from hfsuite.tracking.secrets import arguments
from hfsuite.tracking.sync import sync
from tests.tracking import made

SECRETS = ("hunter2", "hf_abcdefghijklmnopqrstuvwx", "s3cr3t")


@pytest.fixture
def module(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment in a repository of its own, uncommitted, with secrets where people put them."""
    project = own_directory / "project"
    project.mkdir()
    source = project / "mine.py"

    def git(*arguments: str) -> None:
        names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(project), *names, *arguments], check=True, capture_output=True)

    git("init", "-b", "trunk")
    source.write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    git("remote", "add", "origin", "https://ann:hunter2@example.org/mine.git")
    source.write_text('x = 2\nPASSWORD = "s3cr3t"\ntoken = "hf_abcdefghijklmnopqrstuvwx"\n')
    loaded = ModuleType("mine")
    loaded.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "mine", loaded)
    monkeypatch.setenv("HF_TOKEN", SECRETS[1])
    monkeypatch.setenv("RAY_ADDRESS", "ray://ann:hunter2@head:10001")
    monkeypatch.setattr(sys, "argv", ["/bin/hfsuite", "sweep", "mine", "--set", "password=s3cr3t", "--set", "lr=0.1"])
    return "mine"


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("--use-token --lr 3", "--use-token --lr 3"),
        ("--two-pass --lr 1", "--two-pass --lr 1"),
        ("--max-token 5 --token=7", "--max-token 5 --token=7"),
        ("--token abc --lr 1", "--token ... --lr 1"),
        ("--hub-token=abc x", "... x"),
        ("--db postgresql://me:pw@host/db", "--db ..."),
        ("hf_abcdefghijklmnop texts.csv", "... texts.csv"),
    ],
)
def test_arguments_are_recorded_one_by_one_and_what_may_be_secret_is_not(given: str, recorded: str) -> None:
    assert arguments(given.split()) == recorded.split()


def test_code_packages_machine_and_command(module: str) -> None:
    found = provenance.collect(module)
    assert (found["git"]["branch"], len(found["git"]["commit"])) == ("trunk", 40)
    assert "+x = 2" in found["git"]["diff"]
    assert found["source"].startswith("x = 2")
    assert found["packages"]["torch"]
    assert found["command"] == "hfsuite sweep mine --set password=... --set lr=0.1"
    assert found["environment"]["RAY_ADDRESS"] == "ray://head:10001"
    assert found["cluster"][0]["CPU"] == 4
    assert found["processor"]


def test_nothing_secret_reaches_storage_or_mlflow(module: str, own_directory: Path) -> None:
    directory, _ = made.sweep(provenance=provenance.collect(module))
    made.trial(directory, 0, [], config={"data": "https://ann:hunter2@example.org/rows.csv", "x": 1})
    sync(directory)
    written = [path for path in own_directory.rglob("*") if path.is_file() and "project" not in path.parts]
    assert {"mlflow.db", "source.py", "uncommitted.diff", "environment.json", "requirements.txt"} <= {
        path.name for path in written
    }
    for path in written:
        if path.name == "trial.json":
            continue  # the sweep's own storage holds the settings as they are: with them it is taken up again
        text = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in text], path


def test_it_can_be_read_in_mlflow(module: str) -> None:
    directory, _ = made.sweep(provenance=provenance.collect(module))
    sync(directory)
    client = store.open_store()
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    assert parent.data.tags["mlflow.source.git.branch"] == "trunk"
    assert parent.data.tags["hfsuite.git.is_dirty"] == "True"
    environment = client.download_artifacts(parent.info.run_id, "provenance/environment.json")
    assert json.loads(Path(environment).read_text())["python"] == provenance.platform.python_version()
    requirements = client.download_artifacts(parent.info.run_id, "provenance/requirements.txt")
    assert "\ntorch==" in Path(requirements).read_text()


def test_a_sweep_that_goes_on_with_other_code_says_so(module: str) -> None:
    known = provenance.collect(module)
    provenance.note_resumption(known, module)
    assert "resumed" not in known, "nothing has changed"
    Path(sys.modules[module].__file__ or "").write_text("x = 3\n")
    provenance.note_resumption(known, module)
    directory, _ = made.sweep(provenance=known)
    sync(directory)
    client = store.open_store()
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    assert parent.data.tags["hfsuite.provenance"] == "recorded; resumed with other code or packages: 1"
    (resumed,) = json.loads(Path(client.download_artifacts(parent.info.run_id, "provenance/resumed.json")).read_text())
    assert resumed["source"] == "x = 3\n"
    assert "+x = 3" in resumed["git"]["diff"]
    assert "packages" not in resumed, "they are the same"


def test_outside_a_repository_there_is_no_commit(own_directory: Path) -> None:
    assert provenance.collect("nowhere")["git"] is None
    assert provenance.collect("nowhere")["source"] is None


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ('AWS_SECRET_ACCESS_KEY = "abc/def"', "AWS_SECRET_ACCESS_KEY = ..."),
        ('os.environ["HF_TOKEN"] = "abcd"', 'os.environ["HF_TOKEN"] = ...'),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ..."),
        ('password: str = "s3cr3t"', "password: str = ..."),
        ("--api-key abc --lr 0.1", "--api-key ... --lr 0.1"),
        ("postgresql://ann:hunter2@host/db?user=ann&password=hunter2", "postgresql://host/db?user=...&password=..."),
        ("sqlite:////tmp/runs/mlflow.db", "sqlite:////tmp/runs/mlflow.db"),
        ('pad_token="<pad>" max_tokens=5 bypass=3', 'pad_token="<pad>" max_tokens=5 bypass=3'),
        ("SyntaxError: unexpected token < here", "SyntaxError: unexpected token < here"),
    ],
)
def test_secrets_are_known_by_their_names_and_forms(said: str, recorded: str) -> None:
    assert secrets.without_secrets(said) == recorded
