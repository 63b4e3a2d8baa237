"""The cells of a notebook as a Python program, which runs without IPython. Driver."""

from __future__ import annotations

import ast
import sys

TRANSPARENT = ("time", "capture")  # IPython's magics that run the Python code that they are given


def cells() -> list[str] | None:
    """The cells that IPython has run so far, the running one last; None outside IPython."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return None if shell is None else [cell for cell in shell.history_manager.input_hist_parsed if cell.strip()]


def as_python(cell: str) -> str:
    """A cell without what only IPython understands: what %time runs is run, other magics and shell lines are comments.

    Args:
        cell: its code, in which IPython has put calls of `get_ipython()` for such lines.
    """
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # it has failed in the notebook too
        return "\n".join(f"# {line}" for line in cell.splitlines())
    lines = cell.splitlines()
    special = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and _is_special(node)]
    for node in sorted(special, key=lambda each: -each.lineno):  # from the end: line numbers stay
        end = node.end_lineno or node.lineno
        indent = " " * node.col_offset
        text = "\n".join(lines[node.lineno - 1 : end])
        run = _run_by_magic(node)
        instead = [*(f"{indent}{each}" for each in run.splitlines())] if run is not None else [f"{indent}pass"]
        comments = [f"{indent}# {each.strip()}" for each in text.splitlines()] if run is None else []
        lines[node.lineno - 1 : end] = [*comments, *instead]
    return "\n".join(lines)


def _is_special(node: ast.stmt) -> bool:
    """Whether a statement that holds no others calls IPython."""
    return not hasattr(node, "body") and any(
        isinstance(each, ast.Name) and each.id == "get_ipython" for each in ast.walk(node)
    )


def _run_by_magic(node: ast.stmt) -> str | None:
    """The code that a magic like %time runs, with what it is assigned to; None for any other."""
    call = node.value if isinstance(node, ast.Expr | ast.Assign) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    given = [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
    if not call.func.attr.startswith("run_") or len(given) < 2 or given[0] not in TRANSPARENT:
        return None
    targets = "".join(f"{ast.unparse(each)} = " for each in node.targets) if isinstance(node, ast.Assign) else ""
    return f"{targets}{given[-1]}"
