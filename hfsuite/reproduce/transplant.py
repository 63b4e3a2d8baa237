"""An experiment's module without Ray and hfsuite: what it imports from them comes from `standalone`. Pure functions.

Only a module's own code is looked at. What cannot be taken along is named, all of it at once.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hfsuite.errors import ConfigurationError

TRAINERS = {  # what the training function is called there, and what runs it
    "TransformersTrainer": ("trainer_init_per_worker", "train_transformers"),
    "AccelerateTrainer": ("train_loop_per_worker", "train_loop"),
}
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
    source = _without(source, _only_for_launching(tree, function))
    lines, dropped = source.splitlines(), set[str]()
    for node in sorted(_imports(ast.parse(source)), key=lambda each: -each.lineno):  # from the end: line numbers stay
        replaced, without = _replaced(node)
        dropped |= without
        lines[node.lineno - 1 : node.end_lineno] = [" " * node.col_offset + line for line in replaced]
    code = "\n".join([*lines, ""])
    tree = ast.parse(code)
    faults = [f"{module} cannot be exported: {fault}" for fault in dict.fromkeys(_unsupported(tree, dropped))]
    if faults:
        raise ConfigurationError(faults)
    return Transplant(code, function, runner, config, frozenset(_packages(tree)))


def _only_for_launching(tree: ast.Module, function: str) -> list[ast.stmt]:
    """Statements that make and run experiments, and those that need one of these or Ray, unless the training does."""
    binding: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in _bound(node):
            binding.setdefault(name, []).append(node)
    needed, wanted = list[ast.stmt](), [function]
    while wanted:
        for node in binding.pop(wanted.pop(), []):
            needed.append(node)
            wanted += _used(node)
    others = [node for node in tree.body if node not in needed or _is_declaration(node)]
    nowhere = {name for node in _imports(tree) if node in tree.body for name in _replaced(node)[1]}
    gone = [node for node in others if _declares(node) or _is_main(node)]
    while True:
        lost = nowhere.union(*map(_bound, gone))
        more = [node for node in others if node not in gone and not _is_import(node) and _used(node) & lost]
        if not more:
            return gone
        gone += more


def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Those of what is left out, at any depth."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and any(root in LEFT_OUT for root in _roots(node))
    ]


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement gives a value to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    inside = list(ast.walk(node))
    imports = [each for each in inside if isinstance(each, ast.Import | ast.ImportFrom)]
    return (
        {each.id for each in inside if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
        | {each.name for each in inside if isinstance(each, ast.FunctionDef | ast.ClassDef)}
        | {(alias.asname or alias.name).partition(".")[0] for each in imports for alias in each.names}
    )


def _used(node: ast.stmt) -> set[str]:
    """Names whose values a statement may ask for, now or when it is called."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def _without(code: str, gone: Sequence[ast.stmt]) -> str:
    """A module without some of its statements, and the comments before them."""
    lines, kept, end = code.splitlines(), [], 0
    numbers = {node.lineno for node in gone}
    for node in ast.parse(code).body:
        before, start, end = lines[end : _start(node)], _start(node), node.end_lineno or 0
        if node.lineno not in numbers:
            kept += [*before, *lines[start:end]]
    return "\n".join([*kept, ""])


def _start(node: ast.stmt) -> int:
    """The number of lines before it; its decorators belong to it."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)]) - 1


def _trainer(tree: ast.Module, module: str) -> tuple[str, str, dict[str, object]]:
    """The training function, what runs it, and its accelerate configuration."""
    for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name not in TRAINERS:
            continue
        named = {each.arg: each.value for each in call.keywords}
        function = call.args[0] if call.args else named.get(TRAINERS[name][0])
        if not isinstance(function, ast.Name):
            break
        config: dict[str, object] = {}
        given = named.get("accelerate_config", ast.Constant(None))
        if not (isinstance(given, ast.Constant) and given.value is None):
            try:
                config = dict(ast.literal_eval(given))
            except (ValueError, TypeError) as error:
                raise ConfigurationError(
                    f"{module} cannot be exported: its accelerate_config is not a dict that is written out there."
                ) from error
        return function.id, TRAINERS[name][1], config
    raise ConfigurationError(
        f"{module} cannot be exported: it makes no {' or '.join(TRAINERS)} from a function by its name."
    )


def _is_declaration(node: ast.stmt) -> bool:
    """`experiment = Experiment(...)`, and a trainer on its own."""
    return isinstance(node, ast.Assign | ast.AnnAssign) and _declares(node)


def _declares(node: ast.stmt) -> bool:
    """Whether an experiment or a trainer is made in it."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    names = {getattr(each.func, "id", getattr(each.func, "attr", "")) for each in calls}
    return bool(names & {"Experiment", *TRAINERS})


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def _roots(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
    return [name.partition(".")[0] for name in names]


def _replaced(node: ast.Import | ast.ImportFrom) -> tuple[list[str], set[str]]:
    """The lines that take its place, and the names for which there is nothing."""
    lines: list[str] = []
    gone: set[str] = set()
    if isinstance(node, ast.Import):
        for each in node.names:
            root = each.name.partition(".")[0]
            if root not in LEFT_OUT:
                lines.append(f"import {each.name}" + (f" as {each.asname}" if each.asname else ""))
            elif root == "ray":
                lines.append("from standalone import ray")
                lines += [f"{each.asname} = {each.name}"] if each.asname and each.asname != each.name else []
            else:
                gone.add(each.asname or root)
        return lines or ["pass"], gone
    for each in node.names:
        name = each.asname or each.name
        if node.module == "ray" and each.name == "train":
            lines += ["from standalone import ray", f"{name} = ray.train"]
        elif each.name in HERE and _roots(node)[0] != "search_spaces":
            alias = f" as {each.asname}" if each.asname else ""
            lines.append(f"from {HERE[each.name]} import {each.name}{alias}")
        else:
            gone.add(name)
    return lines or (["pass"] if node.col_offset else []), gone


def _unsupported(tree: ast.Module, dropped: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in dropped:
            yield f"it uses {node.id}, which only exists with Ray and hfsuite."
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ray.train" and node.attr not in OF_RAY_TRAIN:
            yield f"it uses ray.train.{node.attr}, which only Ray has."
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "it imports from its own package: move what it needs into the module."
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for root in _roots(node):
                if not _is_there(root):
                    yield f"it imports {root}, which is no installed package: move what it needs here."


def _is_there(root: str) -> bool:
    known = importlib.metadata.packages_distributions()
    return root in sys.stdlib_module_names or root in known or root in {"standalone", *HERE.values()}


def _packages(tree: ast.Module) -> Iterator[str]:
    """Distributions of modules that it imports, or names in a text, as `find_spec("a_package_of_data")` does."""
    known = importlib.metadata.packages_distributions()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = _roots(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names = [node.value]
        for name in names:
            yield from known.get(name, [])
