"""The cells of a notebook as a Python program, which runs without IPython. Driver."""

from __future__ import annotations

import ast
import re
import sys
from typing import Any

TRANSPARENT = ("time", "capture")  # IPython's magics that run the Python code that they are given
HEAD = "# Cell {} of the notebook"  # a line before each; not as `jupyter nbconvert` has it, whose result is a script
IS_HEAD = re.compile(HEAD.format(r"\d+"))


def cells() -> list[str] | None:
    """The cells that IPython has run so far, the running one last; None outside IPython."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return None if shell is None else [cell for cell in shell.history_manager.input_hist_parsed if cell.strip()]


def as_program(found: list[str]) -> str:
    """All cells, one after another."""
    return "\n\n".join(f"{HEAD.format(number)}\n{as_python(cell)}" for number, cell in enumerate(found, start=1))


def heads(program: str) -> list[int]:
    """The numbers of the lines where cells begin; empty for a program that is no notebook's."""
    return [number for number, line in enumerate(program.splitlines(), start=1) if IS_HEAD.fullmatch(line)]


def as_python(cell: str) -> str:
    """A cell without what only IPython understands.

    What %time runs is run, the lines that a shell command gives are asked of the shell, and other magics are left out.

    Args:
        cell: its code, in which IPython has put calls of `get_ipython()` for such lines.
    """
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # it has failed in the notebook too
        return "\n".join(f"# {line}" for line in cell.splitlines())
    if not any(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree)):
        return cell
    return ast.unparse(ast.fix_missing_locations(_WithoutIPython().visit(tree)))


class _WithoutIPython(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> Any:
        """A magic, or a line for the shell."""
        if (code := _run_by_magic(node.value)) is not None:
            return code or ast.Pass()
        return ast.Pass() if _called_of_ipython(node.value) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`x = %time f()`, `lines = !ls`, and questions about IPython itself, which is not there."""
        if (code := _run_by_magic(node)) and isinstance(code[0], ast.Expr) and len(code) == 1:
            return code[0].value
        if _called_of_ipython(node) in ("getoutput", "system") and node.args:
            text = ast.unparse(node.args[0])
            return ast.parse(f"__import__('subprocess').getoutput({text}).splitlines()", mode="eval").body
        if isinstance(node.func, ast.Name) and node.func.id == "get_ipython":
            return ast.Constant(None)
        return self.generic_visit(node)


def _called_of_ipython(node: ast.expr) -> str | None:
    """The name of the method of `get_ipython()` that an expression calls."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=name)):
            return name
    return None


def _run_by_magic(node: ast.expr) -> list[ast.stmt] | None:
    """The statements that a magic like %time runs; None for any other expression."""
    if not isinstance(node, ast.Call) or not str(_called_of_ipython(node)).startswith("run_"):
        return None
    from IPython.core.inputtransformer2 import TransformerManager

    given = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
    if len(given) < 2 or given[0] not in TRANSPARENT:
        return None
    code = re.sub(r"^(-[a-z-]+\s+)+", "", given[-1])  # options of %time
    transformed = TransformerManager().transform_cell(code)  # type: ignore[no-untyped-call]
    return ast.parse(as_python(transformed)).body
