"""Compile a Python function to machine code and keep it on disk.

Numba's own disk cache keeps one index file for all variants of a function, so two processes that
compile at once can swap each other's entries, and it looks only at the function's own source
file. Here every variant is one file, named by a hash of everything that decides its code: what the
function closes over, the sources that it is made of (`fastconv.contract.sources`), the CPU and
Numba's settings. Versions are in the folder's name. It is written by an atomic rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core import config, types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import _Cache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from fastconv.contract import first_use, private_files, sources
from fastconv.contract.cache import cache_dir
from fastconv.contract.errors import FastconvError

__all__ = [
    "Statistics",
    "Variant",
    "compile_callback",
    "compile_function",
    "recorded_variants",
    "statistics",
]

# Other threads' own functions are compiled under it, and a child may have something to compile.
first_use.guard(global_compiler_lock)


class Statistics:
    """How many variants this process compiled, kept on disk, and found there."""

    def __init__(self) -> None:
        self.compiled = 0
        self.kept = 0
        self.loaded = 0


statistics = Statistics()


#: A file begins with the format's name and a SHA-256 over that, the variant's identity and what
#: follows: damage, and another variant's file, are seen before anything is unpickled.
_FORMAT = b"fastconv kernel, format 1\n"
_DIGEST = 32
#: Bytes that a file may have. The largest variant has a quarter of a MiB.
_LARGEST = 64 << 20

#: Settings of Numba's that change what it compiles.
_OPTIONS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "USING_SVML", "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT", "EXTEND_VARIABLE_LIFETIMES", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS",
)  # fmt: skip


def _target() -> tuple[Any, ...]:
    """Return what code is compiled for: the CPU, and Numba's settings."""
    options = tuple(str(getattr(config, name, None)) for name in _OPTIONS)
    return (*cpu_target.target_context.codegen().magic_tuple(), *options)


def _require_compiler() -> None:
    """Refuse before Numba hands out plain Python functions, which no kernel can be made of."""
    if config.DISABLE_JIT:
        raise FastconvError(
            "fastconv's kernels are compiled, and NUMBA_DISABLE_JIT switches the compiler off: "
            "unset it before Python starts"
        )


class KernelCache(_Cache):
    """One file for one compiled variant."""

    def __init__(self, key: tuple[Any, ...], module: str, function: str) -> None:
        self._key = key
        self._identity = repr((key, function, sources.identity(module), _target())).encode()
        folder = cache_dir()
        self._path: Path | None = None
        if folder is not None:
            digest = hashlib.sha256(self._identity).hexdigest()[:24]
            self._path = folder / f"{key[0]}-{digest}.bin"

    def _seal(self, data: bytes) -> bytes:
        """Return the start of the file that keeps `data`."""
        length = len(self._identity).to_bytes(8, "little")
        return _FORMAT + hashlib.sha256(_FORMAT + length + self._identity + data).digest()

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
        try:
            content = private_files.read(self._path, _LARGEST)
        except FileNotFoundError:
            return None
        except private_files.NotPrivate as error:
            self._refuse(str(error))
            return None
        except OSError as error:  # of the disk, or no descriptor is free: the file may be sound
            warnings.warn(f"fastconv: compiling {self._key[0]} again: {error}", stacklevel=2)
            return None
        start = len(_FORMAT) + _DIGEST
        seal, data = content[:start], content[start:]
        if self._seal(data) != seal:
            self._refuse(f"{self._path} is damaged, or another kernel's")
            return None
        rtsys.initialize(target_context)
        try:
            loaded = CompileResult._rebuild(target_context, *pickle.loads(data))
        except Exception as error:  # noqa: BLE001 - whatever it is, the variant can be compiled
            self._refuse(f"{self._path} cannot be loaded: {error!r}")
            return None
        statistics.loaded += 1
        return loaded

    def _refuse(self, reason: str) -> None:
        """Remove a file that is of no use; the variant is then compiled again and kept anew."""
        assert self._path is not None
        with contextlib.suppress(OSError):
            self._path.unlink()
        warnings.warn(f"fastconv: compiling {self._key[0]} again: {reason}", stacklevel=3)

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Write the variant; a full or read-only disk costs a warning, not the call."""
        statistics.compiled += 1
        if self._path is None:
            return
        try:
            content = dumps(data._reduce())
            private_files.write(self._path, self._seal(content) + content)
        except OSError as error:
            warnings.warn(f"fastconv: could not keep {self._key[0]} on disk: {error}", stacklevel=2)
        else:
            statistics.kept += 1

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


@dataclass(frozen=True, slots=True)
class Variant:
    """A function that was compiled in this process, so that its texts are at hand.

    Parameters
    ----------
    key : tuple
        Its name, then every value that it closes over.
    function : callable
        What was compiled.
    library : Numba code library
        What became of it and of all that it calls, but for functions called by their address.
    """

    key: tuple[Any, ...]
    function: Callable[..., Any]
    library: Any

    @property
    def llvm(self) -> str:
        """LLVM IR after all optimisations."""
        return str(self.library.get_llvm_str())

    @property
    def assembly(self) -> str:
        """Assembly for this CPU."""
        return str(self.library.get_asm_str())


_recorded: ContextVar[dict[tuple[Any, ...], Variant] | None] = ContextVar(
    "fastconv_recorded", default=None
)


@contextlib.contextmanager
def recorded_variants() -> Iterator[dict[tuple[Any, ...], Variant]]:
    """Compile anew, past memory and disk, what is asked for inside the block, and list it.

    Code that was loaded from disk is machine code alone, which has no text. Files are neither read
    nor written; the code can be run like any other.

    Returns
    -------
    dict of tuple to Variant
        By key, in the order in which they are compiled.
    """
    variants: dict[tuple[Any, ...], Variant] = {}
    token = _recorded.set(variants)
    try:
        yield variants
    finally:
        _recorded.reset(token)


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
    _require_compiler()
    variants = _recorded.get()
    if variants is not None and key not in variants:
        first_use.run(_record, function, signature, key, variants)
    made = _callbacks.get(key) or first_use.run(_compile_callback, function, signature, key)
    if _name(made._pyfunc) != _name(function):  # it would run the other's code
        raise ValueError(f"{key} names {_name(made._pyfunc)} already, not {_name(function)}")
    return made


def _name(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _compile_callback(function: Callable[..., Any], signature: Any, key: tuple[Any, ...]) -> CFunc:
    if key not in _callbacks:
        callback = _callback(function, signature)
        callback._cache = KernelCache(key, function.__module__, function.__qualname__)
        with _names_of(key):
            callback.compile()
        _callbacks[key] = callback
    return _callbacks[key]


def _callback(function: Callable[..., Any], signature: Any) -> CFunc:
    options = {"error_model": "numpy", "nogil": True}
    args = (signature.args, signature.return_type)
    return CFunc(function, args, locals={}, options=options)


def _record(
    function: Callable[..., Any],
    signature: Any,
    key: tuple[Any, ...],
    variants: dict[tuple[Any, ...], Variant],
) -> None:
    """Compile a function past the cache; later calls run it where they have none yet."""
    callback = _callback(function, signature)
    with _names_of(key):
        callback.compile()
    variants[key] = Variant(key, function, callback._library)
    _callbacks.setdefault(key, callback)


def compile_function(function: Callable[..., Any], signature: Any, key: tuple[Any, ...]) -> Any:
    """Compile a function that Python calls; it releases the GIL.

    Parameters are those of `compile_callback`.

    Returns
    -------
    numba dispatcher
        With that one signature.
    """
    return first_use.run(_compile_function, function, signature, key)


def _compile_function(function: Callable[..., Any], signature: Any, key: tuple[Any, ...]) -> Any:
    import numba

    _require_compiler()
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = KernelCache(key, function.__module__, function.__qualname__)
    with _names_of(key):
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def void(arguments: int) -> Any:
    """Return the signature of a function of so many integers that returns nothing."""
    return types.void(*([types.intp] * arguments))
