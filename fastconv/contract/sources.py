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

_COMMENT = re.compile(r"""^([^"'#\n]*?)[ \t]*#.*$""", re.MULTILINE)
_BLANK = re.compile(r"\n\s*\n")
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([^\n]*))$",
    re.MULTILINE,
)
_WORD = re.compile(r"(?<!as )\b(?!as\b)[A-Za-z_]\w*")


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
    text = "" if spec is None else _source(spec)
    text = _BLANK.sub("\n", _COMMENT.sub(r"\1", text))
    package = name if _is_package(name) else name.rpartition(".")[0]
    imported = {module for module in _imports(text, package) if module.startswith(_PACKAGES)}
    return hashlib.sha256(text.encode()).hexdigest(), tuple(sorted(imported))


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


def _imports(text: str, package: str) -> Iterator[str]:
    """Yield the modules that a source imports, in its functions too."""
    for base, names, whole in _IMPORT.findall(text):
        if whole:
            yield from (part.split()[0] for part in whole.split(",") if part.strip())
            continue
        dots = len(base) - len(base.lstrip("."))
        if dots:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - dots + 1], *filter(None, [base[dots:]])])
        if not base.startswith("fastconv"):
            continue
        yield base
        if _is_package(base):
            for name in _WORD.findall(names):
                if _find(f"{base}.{name}") is not None:
                    yield f"{base}.{name}"
