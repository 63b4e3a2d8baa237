"""`hfsuite new`: a shipped experiment as a module of one's own, to be changed."""

from __future__ import annotations

import ast
import keyword
import re
import shutil
import sys
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
    if fault := _name_fault(name, folder):
        raise ConfigurationError(fault)
    known = shipped("experiments")
    if source not in known:
        raise UnknownName(f"No experiment {source!r} comes with hfsuite. {did_you_mean(source, known)}")
    file = folder / f"{name}.py"
    text = with_own_space(known[source].read_text(encoding="utf-8"))
    text = text.replace(f"experiments.{source}", name)
    text = NAME.sub(f'    name="{name}",', text)
    read = [each for each in known[source].parent.iterdir() if each.name in text and each.suffix != ".py"]
    for each in read:
        if (mine := folder / each.name).exists() and mine.read_bytes() != each.read_bytes():
            raise ConfigurationError(
                f"{source} reads a file {each.name} beside it, and there is another one of that name here: move yours, "
                "or go to another folder."
            )
    try:
        for each in read:
            shutil.copyfile(each, folder / each.name)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder} takes no files: {error.strerror}. Go to a folder of your own.") from error
    return file


def _name_fault(name: str, folder: Path) -> str | None:
    """A sentence if a module cannot be called so in a folder."""
    if keyword.iskeyword(name):
        return f"{name!r} is a word of Python's own, so no module can be called that: choose another name."
    if not name.isidentifier():
        return f"{name!r} cannot be a module's name: letters, digits and _, no digit first."
    if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists():
        return f"There is a module {name} here already: choose another name."
    from importlib.metadata import packages_distributions  # for which no other command shall wait

    if name in sys.stdlib_module_names or name in packages_distributions():
        return f"{name} is an installed module, which a {name}.py here would hide: choose another name."
    return None


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
