"""fastconv's own columns of the table: packed objects, functions, and the fastest kernel.

The last one tells what the dispatcher's choice costs: it tries every kernel that can run a problem
and is timed with the fastest, beside the dispatcher's choice in the same run.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Any, ClassVar

from fastconv.contract.problem import ConvProblem

from .peer import Call, Peer

__all__ = ["Fastconv", "FastconvBest", "FastconvFunctional"]

_TRIAL_SECONDS = 0.04
_TRIAL_ROUNDS = 2


class Fastconv(Peer):
    """The `Conv1d`/`Conv2d`/`Conv3d` objects: weights packed once."""

    name = "fastconv"
    modules: ClassVar[tuple[str, ...]] = ("fastconv",)
    distribution = "fastconv"
    integers = True
    #: Kernels are compiled where a machine's cache does not have them.
    setup_seconds = 120.0

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        from fastconv.contract.settings import set_num_threads

        set_num_threads(threads)

    def prepare(self, problem: Any, *arrays: Any) -> Call:
        """Pack the weight; the call is ``conv(x)``."""
        import fastconv

        x, w = arrays
        make = getattr(fastconv, f"Conv{problem.ndim}d")
        conv = make(w, None, **_fastconv_arguments(problem))
        return lambda: conv(x)

    def able(self, problem: Any, *arrays: Any) -> list[str]:
        """Return the names of all kernels that can run a problem."""
        import fastconv

        rows = fastconv.explain(problem).rows
        return [row.kernel for row in rows if row.milliseconds is not None]

    def kernel(self, problem: Any) -> str | None:
        """Return the dispatcher's choice."""
        from fastconv.dispatch import choose

        name: str = choose(problem).name
        return name


class FastconvFunctional(Fastconv):
    """``conv1d``/``conv2d``/``conv3d``: weights packed in every call."""

    name = "fastconv_functional"

    def prepare(self, problem: Any, *arrays: Any) -> Call:
        """Return ``conv2d(x, w, ...)`` or its 1-D or 3-D kin."""
        import fastconv

        x, w = arrays
        conv = getattr(fastconv, f"conv{problem.ndim}d")
        arguments = _fastconv_arguments(problem)
        return lambda: conv(x, w, None, **arguments)

    def kernel(self, problem: Any) -> str | None:
        """Return the dispatcher's choice where the weight is packed in each call."""
        from fastconv.dispatch import choose

        name: str = choose(problem, packed=False).name
        return name


class FastconvBest(Fastconv):
    """The packed objects with the fastest of all kernels that can run a problem."""

    name = "fastconv_best"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._forced = ExitStack()
        self._fastest = ""

    def prepare(self, problem: Any, *arrays: Any) -> Call:
        """Try every kernel in turn, twice over, and force the fastest from here on."""
        import fastconv

        self._forced.close()
        self._fastest = ""
        able = self.able(problem, *arrays)
        if not able:  # what runs is no kernel
            return super().prepare(problem, *arrays)
        calls = {name: self._prepare_with(name, problem, *arrays) for name in able}
        seconds: dict[str, list[float]] = {name: [] for name in able}
        for _ in range(_TRIAL_ROUNDS):
            for name, call in calls.items():
                with fastconv.use_kernel(name):
                    seconds[name] += self._trial(call)
        self._fastest = min(able, key=lambda name: median(seconds[name]))
        self._forced.enter_context(fastconv.use_kernel(self._fastest))
        return calls[self._fastest]

    def _trial(self, call: Call) -> list[float]:
        """Return the seconds of some calls, at least two."""
        times: list[float] = []
        stop = time.perf_counter() + _TRIAL_SECONDS
        while len(times) < 2 or time.perf_counter() < stop:
            times.append(self.seconds(call))
        return times

    def _prepare_with(self, name: str, problem: Any, *arrays: Any) -> Call:
        """Compile a kernel for the problem and pack its weight."""
        import fastconv

        with fastconv.use_kernel(name):
            call = super().prepare(problem, *arrays)
            call()
        return call

    def kernel(self, problem: Any) -> str | None:
        """Return the fastest kernel."""
        return self._fastest or None


def _fastconv_arguments(problem: ConvProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    result = {"out_dtype": problem.out_dtype} if problem.out_dtype else {}
    return {name: getattr(problem, name) for name in names} | result
