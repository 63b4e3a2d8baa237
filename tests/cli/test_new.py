"""Shipped experiments are copied as modules of one's own, and what there is to run here is found."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import hfsuite
from hfsuite.cli.here import experiments_here
from hfsuite.cli.loading import load_experiment
from hfsuite.cli.new import shipped, write
from hfsuite.errors import ConfigurationError, UnknownName

ROOT = Path(hfsuite.__file__).parents[1]
OWN = '"""Mine."""\nfrom hfsuite import Experiment\n\nexperiment = Experiment()\n'


@pytest.mark.parametrize("source", ["sentiment", "digits", "language_model"])
def test_a_copy_is_complete_in_itself(own_directory: Path, source: str) -> None:
    text = write(f"of_{source}", source, own_directory).read_text()
    assert "search_spaces" not in text
    original = load_experiment(str(ROOT / "experiments" / f"{source}.py"))
    copied = load_experiment(f"of_{source}.py")
    assert copied.name == f"of_{source}"
    assert (dict(copied.defaults), copied.only_where) == (dict(original.defaults), original.only_where)
    assert {name: str(vars(domain)) for name, domain in copied.space.items()}.keys() == original.space.keys()
    assert experiments_here() == {f"of_{source}": text.removeprefix('"""').partition("\n")[0]}


def test_what_cannot_be_written_is_refused(own_directory: Path) -> None:
    (own_directory / "taken.py").write_text("")
    (own_directory / "package").mkdir()
    (own_directory / "package" / "__init__.py").write_text("")
    for taken in ("taken", "package"):
        with pytest.raises(ConfigurationError, match=f"There is a module {taken} here already"):
            write(taken, "digits", own_directory)
    for installed in ("torch", "datasets", "json"):
        with pytest.raises(ConfigurationError, match=rf"{installed} is an installed module, which a {installed}\.py"):
            write(installed, "digits", own_directory)
    with pytest.raises(ConfigurationError, match="'lambda' is a word of Python's own"):
        write("lambda", "digits", own_directory)
    with pytest.raises(ConfigurationError, match="'my-own' cannot be a module's name"):
        write("my-own", "digits", own_directory)
    with pytest.raises(UnknownName, match="Did you mean 'sentiment'"):
        write("mine", "sentment", own_directory)


def test_nothing_is_written_over(own_directory: Path) -> None:
    (own_directory / "state_of_the_union.txt.xz").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match=r"reads a file state_of_the_union\.txt\.xz beside it, and there is"):
        write("mine", "language_model", own_directory)
    assert (own_directory / "state_of_the_union.txt.xz").read_bytes() == b"mine"
    assert not (own_directory / "mine.py").exists()
    (own_directory / "state_of_the_union.txt.xz").unlink()
    write("one", "language_model", own_directory)
    write("two", "language_model", own_directory)  # the same file


def test_ones_own_experiments_are_found_wherever_they_lie(own_directory: Path) -> None:
    for place in ("topics.py", "jobs/nested/deep.py", "experiments/shown.py", "results/no.py", ".venv/no.py"):
        file = own_directory / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(OWN)
    (own_directory / "broken.py").write_text(OWN + "x = (\n")
    (own_directory / "other.py").write_text('from hfsuite import Seeds\n\n"Experiment("\n')
    found = experiments_here()
    assert list(found) == ["broken", "experiments.shown", "jobs.nested.deep", "topics"]
    assert found["topics"] == "Mine."
    with pytest.raises(UnknownName, match="Did you mean 'topics'"):
        load_experiment("topcs")
    with pytest.raises(UnknownName, match="sentiment comes with hfsuite: hfsuite new NAME --from sentiment"):
        load_experiment("somewhere.sentiment")


def test_only_hfsuite_is_installed_and_all_of_it() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "hfsuite").rglob("*.py")}
    moved = set(setuptools["package-dir"])
    assert {name for name in setuptools["packages"] if name not in moved} == {".".join(each.parts) for each in folders}
    assert all(name.startswith("hfsuite.") for name in moved)
    assert {"sentiment", "digits", "language_model"} <= set(shipped("experiments"))
