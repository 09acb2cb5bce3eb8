"""Compile a Python function to machine code and keep it on disk.

Numba's own disk cache keeps one index file for all variants of a function, so two processes that
compile at once can swap each other's entries, and it looks only at the function's own source
file. Here every variant is one file, named by a hash of everything that decides its code (the
folder's name already holds versions and sources, see `fastconv.cache`), and written by an atomic
rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pickle
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba.core import types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import _Cache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from fastconv.cache import cache_dir

__all__ = ["Statistics", "compile_callback", "compile_function", "statistics"]

#: Guards the memo and Numba's compiler; `fastconv.kernels.cpu.pool` holds it across a fork.
lock = threading.RLock()


class Statistics:
    """How many variants this process compiled, and how many it found on disk."""

    def __init__(self) -> None:
        self.compiled = 0
        self.loaded = 0


statistics = Statistics()


#: A file begins with the SHA-256 of what follows, so that damage is seen before it is unpickled.
_DIGEST = 32


class KernelCache(_Cache):
    """One file for one compiled variant."""

    def __init__(self, key: tuple[Any, ...]) -> None:
        self._key = key
        folder = cache_dir()
        self._path: Path | None = None
        if folder is not None:
            identity = repr((key, cpu_target.target_context.codegen().magic_tuple()))
            digest = hashlib.sha256(identity.encode()).hexdigest()[:24]
            self._path = folder / f"{key[0]}-{digest}.bin"

    @property
    def cache_path(self) -> str | None:
        """Folder of the file."""
        return str(self._path.parent) if self._path else None

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """Return the variant from disk, or None where it is not there (or unreadable).

        Numba's own cache first loads all that the compiler may need, SciPy's BLAS too, which takes
        0.2 seconds. What is compiled already refers to Numba's runtime only.
        """
        if self._path is None:
            return None
        rtsys.initialize(target_context)
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warnings.warn(f"fastconv: compiling {self._key[0]} again: {error}", stacklevel=2)
            return None
        digest, data = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(data).digest() != digest:
            warnings.warn(f"fastconv: compiling {self._key[0]} again: damaged file", stacklevel=2)
            return None
        payload = pickle.loads(data)
        statistics.loaded += 1
        return CompileResult._rebuild(target_context, *payload)

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Write the variant; a full or read-only disk costs a warning, not the call."""
        statistics.compiled += 1
        if self._path is None:
            return
        temporary = self._path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            content = dumps(data._reduce())
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(temporary, self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            warnings.warn(f"fastconv: could not keep {self._key[0]} on disk: {error}", stacklevel=2)

    def flush(self) -> None:
        """Remove the variant's file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def enable(self) -> None:
        """Do nothing: the cache is switched by ``FASTCONV_CACHE``."""

    def disable(self) -> None:
        """Do nothing: the cache is switched by ``FASTCONV_CACHE``."""


@contextlib.contextmanager
def _names_of(key: tuple[Any, ...]) -> Iterator[None]:
    """Make the symbols of what is compiled inside the block unique to `key`.

    Numba tells the closures of one factory apart by a counter of the process. Machine code of two
    variants, made by two processes, can therefore bear one name, and a third process that loads
    both would run the wrong one. Here the counter starts at a hash of the key.
    """
    before = FunctionIdentity._unique_ids
    start = int(hashlib.sha256(repr(key).encode()).hexdigest()[:13], 16)
    FunctionIdentity._unique_ids = itertools.count(start)
    try:
        yield
    finally:
        FunctionIdentity._unique_ids = before


_callbacks: dict[tuple[Any, ...], CFunc] = {}


def compile_callback(function: Callable[..., Any], signature: Any, key: tuple[Any, ...]) -> CFunc:
    """Compile a function that machine code calls by address.

    Parameters
    ----------
    function : callable
        Python function without exceptions; it may close over plain integers only.
    signature : numba signature
        Argument and return types.
    key : tuple
        Names the variant: a name for people, then every value that `function` closes over.

    Returns
    -------
    CFunc
        Its ``address`` is the entry point. It must be kept alive; this module does.
    """
    with lock:
        if key not in _callbacks:
            options = {"error_model": "numpy", "nogil": True}
            args = (signature.args, signature.return_type)
            callback = CFunc(function, args, locals={}, options=options)
            callback._cache = KernelCache(key)
            with _names_of(key):
                callback.compile()
            _callbacks[key] = callback
        return _callbacks[key]


def compile_function(function: Callable[..., Any], signature: Any, key: tuple[Any, ...]) -> Any:
    """Compile a function that Python calls; it releases the GIL.

    Parameters are those of `compile_callback`.

    Returns
    -------
    numba dispatcher
        With that one signature.
    """
    import numba

    with lock:
        dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
        dispatcher._cache = KernelCache(key)
        with _names_of(key):
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher


def void(arguments: int) -> Any:
    """Return the signature of a function of so many integers that returns nothing."""
    return types.void(*([types.intp] * arguments))
