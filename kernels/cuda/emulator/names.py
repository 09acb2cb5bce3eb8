"""Names of shared arrays: those of the Python variables that they are assigned to."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

from .coroutine import SharedArray

__all__ = ["shared_names"]


def shared_names(function: Callable[..., Any], arrays: list[SharedArray]) -> dict[str, str]:
    """Return the name of each array's symbol.

    Numba numbers shared arrays in the order in which it meets them, which is that of the source.
    Where the source has another number of them (a device function has its own, or there is no
    source) they are called by their place in that order.
    """
    symbols = sorted((array.symbol for array in arrays), key=_number)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        variables = []
    else:
        variables = _assigned(tree)
    if len(variables) != len(symbols):
        variables = [f"shared array {place}" for place in range(1, len(symbols) + 1)]
    return dict(zip(symbols, variables, strict=True))


def _number(symbol: str) -> int:
    match = re.search(r"_(\d+)\"?$", symbol)
    return int(match.group(1)) if match else 0


def _assigned(tree: ast.AST) -> list[str]:
    """Targets of ``name = cuda.shared.array(...)`` in the order of the source."""
    targets = [
        (node.lineno, node.col_offset, node.targets[0].id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("shared.array")
    ]
    return [name for _, _, name in sorted(targets)]
