"""What a library's class in the benchmark must offer, and how it declines a problem."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

__all__ = ["Call", "Peer", "Refusal"]

Call = Callable[[], Any]


class Refusal(Exception):
    """A sentence that says why a library has no figure on a problem."""


class Peer:
    """One library, in the form that one column of the table shows.

    Parameters
    ----------
    threads : int
        Threads that the library may use.
    """

    name: ClassVar[str]
    #: Modules that must be importable.
    modules: ClassVar[tuple[str, ...]]
    #: The distribution whose version the report tells.
    distribution: ClassVar[str]
    #: What the report says about how this library is called; empty where nothing is special.
    note: ClassVar[str] = ""
    #: Whether it is called on integers, too.
    integers: ClassVar[bool] = False

    #: Seconds beyond the runner's limit that it may take to set a row up.
    setup_seconds: ClassVar[float] = 0.0

    #: ``prepare(problem, *arrays)`` returns the call to be timed, or raises `Refusal`. The arrays
    #: are those of the module in `fastconv.bench.registry.TRUTHS` for the kind of problem.
    prepare: Callable[..., Call]

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @classmethod
    def declines(cls, problem: Any) -> str | None:
        """Return why it has no figure on a problem, where that needs no process to find out."""
        return None

    def version(self) -> str:
        """Return the library's version."""
        return version(self.distribution)

    def seconds(self, call: Call) -> float:
        """Run the call once and return how long it took."""
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def fastest(self, calls: Sequence[Call]) -> Call:
        """Return the call that takes the least when each is run for the second time."""
        for call in calls:
            call()
        return min(calls, key=self.seconds)

    def peak(self, dtype: str) -> float:
        """Return the multiply-add peak in FLOP/s: that of fastconv's own micro-kernel."""
        from fastconv.information import measure_peak

        return measure_peak(dtype, self.threads)

    def machine(self) -> dict[str, Any]:
        """Tell what the machine is, as fastconv sees it."""
        from fastconv.contract.cpu import cpu_info

        info = cpu_info()
        return {
            "cpu": info.name,
            "model": info.model,
            "isa": info.isa,
            "l1": info.l1,
            "l2": info.l2,
            "l3": info.l3,
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }

    def to_numpy(self, problem: Any, result: Any) -> np.ndarray:
        """Return the call's result as an array of the true output's shape."""
        return np.asarray(result).reshape(problem.out_shape)

    def kernel(self, problem: Any) -> str | None:
        """Return the name of the kernel that runs, where the library tells it."""
        return None
