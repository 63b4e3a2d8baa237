"""`hfsuite new`: a shipped experiment as a module of one's own, to be changed."""

from __future__ import annotations

import ast
import keyword
import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean

PACKAGE = Path(__file__).parents[1]
IMPORT = re.compile(r"^from search_spaces import (\w+)\n", re.MULTILINE)
DECLARATION = "\n\nexperiment = Experiment("
NAME = re.compile(r'^    name="\w+",$', re.MULTILINE)


def new(
    name: Annotated[str, typer.Argument(help="Of the experiment and its module.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="Which of the shipped ones.")] = "sentiment",
) -> int:
    """Write NAME.py here: a shipped experiment with its search space, complete in itself."""
    file = write(name, source, Path.cwd())
    typer.echo(f"{file.name} is a copy of {source}: change it, then run it with: hfsuite sweep {name}")
    return 0


def shipped(kind: str) -> dict[str, Path]:
    """The modules that come with hfsuite, by name.

    Args:
        kind: "experiments" or "search_spaces". Installed, they lie in the package; in a source tree, beside it.
    """
    folder = next((each for each in (PACKAGE / "shipped" / kind, PACKAGE.parent / kind) if each.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("[!_]*.py"))} if folder is not None else {}


def write(name: str, source: str, folder: Path) -> Path:
    """Writes the module and what it reads from beside it; returns its file.

    Raises:
        ConfigurationError: the name cannot be a module's, or is taken.
        UnknownName: no such experiment is shipped.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(f"{name!r} cannot be a module's name: letters, digits and _, no digit first.")
    known = shipped("experiments")
    if source not in known:
        raise UnknownName(f"No experiment {source!r} comes with hfsuite. {did_you_mean(source, known)}")
    file = folder / f"{name}.py"
    if file.exists():
        raise ConfigurationError(f"There is a {file.name} here already: choose another name.")
    text = with_own_space(known[source].read_text(encoding="utf-8"))
    text = text.replace(f"experiments.{source}", name)
    text = NAME.sub(f'    name="{name}",', text)
    for beside in known[source].parent.iterdir():
        if beside.name in text and beside.suffix != ".py":
            shutil.copyfile(beside, folder / beside.name)
    file.write_text(text, encoding="utf-8")
    return file


def with_own_space(text: str) -> str:
    """An experiment's source with the search space in it that it imports."""
    found = IMPORT.search(text)
    if found is None:
        return text
    module = found[1]
    space = shipped("search_spaces")[module].read_text(encoding="utf-8")
    tree = ast.parse(space)
    doc, first = ast.get_docstring(tree) or "", next(each for each in tree.body if isinstance(each, ast.AnnAssign))
    lines = re.sub(r"^(\w+): [^=]+ = ", lambda each: f"{each[1].upper()} = ", "\n".join(
        space.splitlines()[first.lineno - 1 :]
    ), flags=re.MULTILINE)  # fmt: skip
    about = "\n".join(f"# {line}".rstrip() for line in doc.splitlines())
    text = IMPORT.sub("", text).replace("from ray.train import", "from ray import tune\nfrom ray.train import", 1)
    text = re.sub(rf"\b{module}\.(\w+)", lambda each: each[1].upper(), text)
    return text.replace(DECLARATION, f"\n\n{about}\n{lines}\n{DECLARATION[1:]}", 1)
