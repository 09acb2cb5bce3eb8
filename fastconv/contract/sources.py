"""What a module's functions are made of: a hash over its source and the source of all it imports.

A compiled kernel on disk is good as long as what it came from is the same: its function's module,
and every module below ``fastconv.kernels`` and ``fastconv.contract`` that this one imports,
directly or not. So an edit of one kernel leaves the others on disk, and comments and blank lines
decide nothing. (A comment behind code that holds a quotation mark does: it might be in a string.)
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

__all__ = ["identity"]

#: Packages whose code may end in a kernel.
_PACKAGES = ("fastconv.kernels.", "fastconv.contract.")

_NAMES = re.compile(r"(?:^|,)\s*\(?\s*(\w+)")


def identity(*modules: str) -> str:
    """Return a hash over the sources of modules and of what they import.

    Examples
    --------
    >>> identity("fastconv.kernels.taps") == identity("fastconv.kernels.taps")
    True
    """
    reached: set[str] = set()
    ahead = list(modules)
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += _read(name)[1]
    digest = hashlib.sha256()
    for name in sorted(reached):
        digest.update(f"{name} {_read(name)[0]}\n".encode())
    return digest.hexdigest()


@functools.cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a module's own source, and the modules that it imports."""
    spec = _find(name)
    lines = [] if spec is None else list(_code_lines(_source(spec)))
    package = name if _is_package(name) else name.rpartition(".")[0]
    imported = {module for module in _imports(lines, package) if module.startswith(_PACKAGES)}
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return digest, tuple(sorted(imported))


def _code_lines(text: str) -> Iterator[str]:
    """Yield lines that are more than a comment, without the comment at their end."""
    for line in text.split("\n"):
        code = line
        if "#" in line:
            before = line.partition("#")[0]
            if '"' not in before and "'" not in before:
                code = before.rstrip()
        if code and not code.isspace():
            yield code


@functools.cache
def _find(name: str) -> ModuleSpec | None:
    return importlib.util.find_spec(name)


def _is_package(name: str) -> bool:
    spec = _find(name)
    return spec is not None and spec.submodule_search_locations is not None


def _source(spec: ModuleSpec) -> str:
    """Return a module's source, or the text of its bytecode where it comes without."""
    loader: Any = spec.loader
    if not hasattr(loader, "get_source"):
        return ""
    text: str = loader.get_source(spec.name) or repr(loader.get_data(spec.origin))
    return text


def _imports(lines: list[str], package: str) -> Iterator[str]:
    """Yield the modules that a source imports, in its functions too."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("from ") or " import " not in line:
            continue
        base, _, names = line.split("from ", 1)[1].partition(" import ")
        base = base.strip()
        if base.startswith("."):
            dots = len(base) - len(base.lstrip("."))
            above = package.split(".")
            base = ".".join([*above[: len(above) - dots + 1], *filter(None, [base[dots:]])])
        if not base.startswith("fastconv"):
            continue
        yield base
        if _is_package(base):
            ahead = number
            while "(" in names and ")" not in names:
                ahead += 1
                names += lines[ahead]
            for name in _NAMES.findall(names):
                if _find(f"{base}.{name}") is not None:
                    yield f"{base}.{name}"
