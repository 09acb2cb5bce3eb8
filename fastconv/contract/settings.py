"""Every FASTCONV_* environment variable, in one table, and the thread count.

The environment is read once, when this module is first imported. A variable that is set to nothing
counts as not set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import processors
from .errors import ArgumentError, FastconvError
from .padding import as_index

__all__ = ["VARIABLES", "Config", "config", "get_num_threads", "set_num_threads"]

#: Name of each variable and what it does, for ``python -m fastconv info`` and the README.
VARIABLES = {
    "FASTCONV_CACHE_DIR": "folder of kernels and tuned choices (default: the user's cache folder)",
    "FASTCONV_CACHE": "0 switches the disk cache off (default: 1)",
    "FASTCONV_NUM_THREADS": "threads of one call (default: the smallest of NUMBA_NUM_THREADS, "
    "OMP_NUM_THREADS, the processors this process may use, and the container's CPU quota)",
    "FASTCONV_KERNEL": "name of a kernel that every call must use, as use_kernel() does",
    "FASTCONV_PRECISION": "fast or exact, as precision() does (default: fast)",
    "FASTCONV_TUNE": "1 measures which kernel is fastest for each new problem, as tune=True does",
    "FASTCONV_LOG": "1 writes one line for each new problem to stderr: kernel and problem",
    "FASTCONV_POISON_WORKSPACE": "1 fills workspaces and outputs with NaN first, to find bugs",
}


@dataclass(slots=True)
class Config:
    """Settings in force; the defaults come from the environment."""

    cache_dir: str | None
    cache: bool
    num_threads: int
    kernel: str | None
    precision: str
    tune: bool
    log: bool
    poison_workspace: bool


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _flag(name: str, default: bool) -> bool:
    value = _text(name)
    if value not in (None, "0", "1"):
        raise FastconvError(f"{name}: got {value!r}, want 0 or 1")
    return default if value is None else value == "1"


def _threads(name: str) -> int:
    value = _text(name)
    if value is None:
        return processors.available()
    threads = processors.whole_number(value)
    if threads is None:
        raise FastconvError(f"{name}: got {value!r}, want a whole number of at least 1")
    return threads


def _precision(name: str) -> str:
    value = _text(name) or "fast"
    if value not in ("fast", "exact"):
        raise FastconvError(f"{name}: got {value!r}, want fast or exact")
    return value


def _read_environment() -> Config:
    return Config(
        cache_dir=_text("FASTCONV_CACHE_DIR"),
        cache=_flag("FASTCONV_CACHE", True),
        num_threads=_threads("FASTCONV_NUM_THREADS"),
        kernel=_text("FASTCONV_KERNEL"),
        precision=_precision("FASTCONV_PRECISION"),
        tune=_flag("FASTCONV_TUNE", False),
        log=_flag("FASTCONV_LOG", False),
        poison_workspace=_flag("FASTCONV_POISON_WORKSPACE", False),
    )


config = _read_environment()


def set_num_threads(threads: int) -> None:
    """Set the number of threads that one call may use.

    Parameters
    ----------
    threads : int
        At least 1; more than 256 count as 256. When fastconv is first used it is
        ``FASTCONV_NUM_THREADS``, or else the smallest of ``NUMBA_NUM_THREADS``,
        ``OMP_NUM_THREADS``, the processors that this process may use and the container's quota.

    Raises
    ------
    ValueError
        For anything else than a whole number of at least 1.

    Examples
    --------
    >>> import fastconv
    >>> before = fastconv.get_num_threads()
    >>> fastconv.set_num_threads(1)
    >>> fastconv.get_num_threads()
    1
    >>> fastconv.set_num_threads(before)
    """
    number = as_index(threads)
    if number is None or number < 1:
        raise ArgumentError(f"threads: got {threads!r}, want a whole number of at least 1")
    config.num_threads = min(number, processors.MOST_THREADS)


def get_num_threads() -> int:
    """Return the number of threads that one call may use."""
    return config.num_threads
