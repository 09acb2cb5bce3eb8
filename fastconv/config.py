"""Every FASTCONV_* environment variable, in one table, and the thread count.

The environment is read once, when this module is first imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import FastconvError

__all__ = ["VARIABLES", "Config", "config", "get_num_threads", "set_num_threads"]

#: Name of each variable and what it does, for ``python -m fastconv info`` and the README.
VARIABLES = {
    "FASTCONV_CACHE_DIR": "folder of kernels and tuned choices (default: the user's cache folder)",
    "FASTCONV_CACHE": "0 switches the disk cache off (default: 1)",
    "FASTCONV_NUM_THREADS": "threads of one call (default: the processors this process may use)",
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


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "1" if default else "0")
    if value not in ("0", "1"):
        raise FastconvError(f"{name}: got {value!r}, want 0 or 1")
    return value == "1"


def _available_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads(name: str) -> int:
    value = os.environ.get(name)
    if value is None:
        return _available_threads()
    if not value.isdigit() or int(value) < 1:
        raise FastconvError(f"{name}: got {value!r}, want a whole number of at least 1")
    return int(value)


def _read_environment() -> Config:
    precision = os.environ.get("FASTCONV_PRECISION", "fast")
    if precision not in ("fast", "exact"):
        raise FastconvError(f"FASTCONV_PRECISION: got {precision!r}, want 'fast' or 'exact'")
    return Config(
        cache_dir=os.environ.get("FASTCONV_CACHE_DIR"),
        cache=_flag("FASTCONV_CACHE", True),
        num_threads=_threads("FASTCONV_NUM_THREADS"),
        kernel=os.environ.get("FASTCONV_KERNEL") or None,
        precision=precision,
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
        At least 1. More than the processors that Numba started with count as that many.

    Examples
    --------
    >>> import fastconv
    >>> before = fastconv.get_num_threads()
    >>> fastconv.set_num_threads(1)
    >>> fastconv.get_num_threads()
    1
    >>> fastconv.set_num_threads(before)
    """
    if not hasattr(threads, "__index__") or threads < 1:
        raise ValueError(f"threads: got {threads!r}, want a whole number of at least 1")
    config.num_threads = int(threads)


def get_num_threads() -> int:
    """Return the number of threads that one call may use."""
    return config.num_threads
