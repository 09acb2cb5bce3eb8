"""How many processors this process may use: what the user, the scheduler and the container allow.

Batch systems and libraries of processes (SLURM, joblib, Dask) tell a worker its share of a machine
by variables that Numba and OpenMP read, containers by a quota of processor time: more threads than
that only make the process wait for its next period.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MOST_THREADS", "available", "whole_number"]

#: Threads that one call may use at most; a larger number counts as this one.
MOST_THREADS = 256

#: Variables that name a number of threads. OpenMP's may list one for each nested level.
_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


def whole_number(text: str) -> int | None:
    """Return the number of at least 1 that a text is, at most `MOST_THREADS`; None for others.

    >>> whole_number(" 4 "), whole_number("0"), whole_number("four"), whole_number("9" * 5000)
    (4, None, None, 256)
    """
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        return None
    digits = digits.lstrip("0")
    return min(int(digits[:9]), MOST_THREADS) if digits else None


def available() -> int:
    """Return the smallest of what variables, processors and the container's quota allow."""
    named = (whole_number(os.environ.get(name, "").split(",")[0]) for name in _VARIABLES)
    limits = [limit for limit in named if limit is not None]
    return min(*limits, _processors(), quota(Path("/")) or MOST_THREADS, MOST_THREADS)


def _processors() -> int:
    """Return the processors that the system lets this process run on."""
    if hasattr(os, "process_cpu_count"):  # honours PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path) -> int | None:
    """Return the processors that the control groups of this process allow, None for any number.

    Parameters
    ----------
    root : Path
        Root of the file system.

    Notes
    -----
    A group's limit holds for all below it, so each one up to the root counts. A container sees its
    own group as the root, whatever path its processes are listed with: folders that are not there
    are passed over. Half a processor is rounded up to one.
    """
    limits = [limit for folder in _groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders that may hold a limit for this process (``man 7 cgroups``)."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # version 2, alone or beside version 1
            mounts = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [mount / controllers, mount / "cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group outside of what this process sees
            parts = []
        for top in mounts:
            for depth in range(len(parts) + 1):
                yield top.joinpath(*parts[:depth])


def _limit(folder: Path) -> int | None:
    """Return the processors that one group allows."""
    words = _text(folder / "cpu.max").split()  # version 2: "150000 100000" or "max 100000"
    if not words:
        words = [
            _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
        ]  # version 1: "-1" where there is none
    try:
        time, period = (int(word) for word in words)
    except ValueError:
        return None
    return max(1, -(-time // period)) if time > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
