"""What a compiled kernel is said to be made of: every module that its source imports.

`fastconv.contract.sources` reads imports line by line, because a kernel's first call waits for it.
Here Python's own parser says what it must find. A name that is given to `first_use.load` is none of
them: nothing that is loaded so ends in the code of who loads it.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from fastconv.contract import sources

pytestmark = pytest.mark.program

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fastconv.kernels.", "fastconv.contract.")


def modules() -> dict[str, Path]:
    """Every module that may end in a kernel, and its file."""
    found = {}
    for folder, package in (("kernels", "fastconv."), ("fastconv/contract", "")):
        for path in (ROOT / folder).rglob("*.py"):
            names = path.relative_to(ROOT).with_suffix("").parts
            found[package + ".".join(names).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def parsed_imports(text: str, package: str) -> set[str]:
    """The modules of `PACKAGES` that the statements of a source import, in its functions too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, package)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {base} | (names & MODULES.keys())
    return {name for name in found if name.startswith(PACKAGES)}


def read_imports(text: str, package: str) -> set[str]:
    """The same by the reader of lines."""
    lines = list(sources._code_lines(text))
    return {name for name in sources._imports(lines, package) if name.startswith(PACKAGES)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_reader_of_lines_agrees_with_the_parser(module: str) -> None:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    expected = parsed_imports(path.read_text(encoding="utf-8"), package)
    assert set(sources._read(module)[1]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "from . import pack, tile",
        "from . import (  # both\n    pack as packers,\n    tile,\n)",
        "from ..simd import ir as llvm",
        "from ...taps import regions",
        "def f():\n    from .. import simd\n    from .tile import call_tile",
        "from fastconv.contract import first_use, sources",
    ],
)
def test_forms_of_imports_are_read(text: str) -> None:
    expected = parsed_imports(text, "fastconv.kernels.cpu.gemm")
    assert len(expected) > 0
    assert read_imports(text, "fastconv.kernels.cpu.gemm") == expected


def test_every_source_is_compared() -> None:
    assert {"fastconv.kernels.cpu.gemm.tile", "fastconv.contract.sources"} < MODULES.keys()
