"""An experiment's module without Ray and hfsuite: what it imports from them comes from `standalone`. Pure functions.

Only a module's own code is looked at. What cannot be taken along is named, all of it at once.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from hfsuite.errors import ConfigurationError

TRAINERS = {"TransformersTrainer": "train_transformers", "AccelerateTrainer": "train_loop"}
LEFT_OUT = ("ray", "hfsuite", "search_spaces")
HERE = {  # where a name of theirs is found in the exported folder
    "split_batch": "batch", "Batch": "batch", "Seeds": "seeds", "Checkpoint": "standalone",
    "TransformersCheckpoint": "standalone", "ConfigurationError": "standalone", "report": "standalone",
}  # fmt: skip
OF_RAY_TRAIN = {
    "report", "get_context", "get_checkpoint", "get_all_reported_checkpoints", "Checkpoint", "torch",
}  # fmt: skip


@dataclass(frozen=True)
class Transplant:
    """An experiment's module that stands alone.

    Args:
        code: its text.
        function: the name of its training function.
        runner: which function of `standalone` runs that.
        accelerate_config: of its `AccelerateTrainer`, as far as it is written there.
        packages: distributions whose modules it names.
    """

    code: str
    function: str
    runner: str
    accelerate_config: dict[str, object]
    packages: frozenset[str]


def transplant(source: str, module: str) -> Transplant:
    """Rewrites the source of an experiment's module.

    Args:
        source: its text.
        module: its name, for messages.

    Raises:
        ConfigurationError: it needs what cannot be taken along; all of it is named.
    """
    tree = ast.parse(source)
    function, runner, config = _trainer(tree, module)
    kept, dropped, lines, end = [], set[str](), source.splitlines(), 0
    for node in tree.body:
        before, start, end = lines[end : _start(node)], _start(node), node.end_lineno or 0
        if _is_declaration(node) or _is_main(node):
            continue
        text = lines[start:end]
        if isinstance(node, ast.Import | ast.ImportFrom) and _root(node) in LEFT_OUT:
            text, gone = _imported(node)
            dropped |= gone
        if text:
            kept += [*before, *text]
    code = "\n".join([*kept, ""])
    faults = [*_unsupported(ast.parse(code), dropped)]
    if faults:
        raise ConfigurationError([f"{module} cannot be exported: {fault}" for fault in faults])
    return Transplant(code, function, runner, config, frozenset(_packages(ast.parse(code))))


def _start(node: ast.stmt) -> int:
    """The number of lines before it; its decorators belong to it."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)]) - 1


def _trainer(tree: ast.Module, module: str) -> tuple[str, str, dict[str, object]]:
    """The training function, what runs it, and its accelerate configuration."""
    for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in TRAINERS and call.args and isinstance(call.args[0], ast.Name):
            config: dict[str, object] = {}
            for keyword in call.keywords:
                if keyword.arg == "accelerate_config" and not isinstance(keyword.value, ast.Constant):
                    try:
                        config = dict(ast.literal_eval(keyword.value))
                    except ValueError as error:
                        raise ConfigurationError(
                            f"{module} cannot be exported: its accelerate_config is not written out there."
                        ) from error
            return call.args[0].id, TRAINERS[name], config
    raise ConfigurationError(
        f"{module} cannot be exported: it makes no {' or '.join(TRAINERS)} from a function by its name."
    )


def _is_declaration(node: ast.stmt) -> bool:
    """`experiment = Experiment(...)`, and a trainer on its own."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)] if isinstance(node, ast.Assign) else []
    names = {getattr(each.func, "id", getattr(each.func, "attr", "")) for each in calls}
    return bool(names & {"Experiment", *TRAINERS})


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def _root(node: ast.Import | ast.ImportFrom) -> str:
    name = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
    return name.partition(".")[0]


def _imported(node: ast.Import | ast.ImportFrom) -> tuple[list[str], set[str]]:
    """The lines that take its place, and the names for which there is nothing."""
    if isinstance(node, ast.Import):
        return (["from standalone import ray"], set()) if _root(node) == "ray" else ([], {_root(node)})
    found: dict[str, list[str]] = {}
    gone = set()
    for each in node.names:
        if each.name in HERE and node.module != "search_spaces":
            found.setdefault(HERE[each.name], []).append(
                each.name if each.asname is None else f"{each.name} as {each.asname}"
            )
        else:
            gone.add(each.asname or each.name)
    return [f"from {place} import {', '.join(names)}" for place, names in sorted(found.items())], gone


def _unsupported(tree: ast.Module, dropped: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in dropped:
            yield f"line {node.lineno} uses {node.id}, which only exists with Ray and hfsuite."
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ray.train" and node.attr not in OF_RAY_TRAIN:
            yield f"line {node.lineno} uses ray.train.{node.attr}, which only Ray has."
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno} imports from its own package: move what it needs into the module."


def _packages(tree: ast.Module) -> Iterator[str]:
    """Distributions of modules that it imports, or names in a text, as `find_spec("a_package_of_data")` does."""
    known = importlib.metadata.packages_distributions()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names = [node.value]
        for name in names:
            yield from known.get(name.partition(".")[0], [])
