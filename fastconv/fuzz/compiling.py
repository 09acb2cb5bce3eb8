"""How long this process has compiled, so that it is not taken for planning."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Compiler", "compiler"]


class Compiler:
    """A listener to Numba's compiler lock, which is held while anything is compiled.

    Parameters
    ----------
    seconds : float
        Time of the compiling thread so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._start = 0.0

    def listen(self, told: Any) -> None:
        """Begin to listen; `told` is called with True and False as compiling begins and ends."""
        from numba.core import event

        listener = self

        class _Listener(event.Listener):  # type: ignore[misc]
            def on_start(self, _: Any) -> None:
                listener.begin(told)

            def on_end(self, _: Any) -> None:
                listener.end(told)

        event.register("numba:compiler_lock", _Listener())

    def begin(self, told: Any) -> None:
        """Note that the lock is taken, perhaps again."""
        if not self._depth:
            self._start = time.thread_time()
            told(True)
        self._depth += 1

    def end(self, told: Any) -> None:
        """Note that the lock is released."""
        self._depth -= 1
        if not self._depth:
            self.seconds += time.thread_time() - self._start
            told(False)


compiler = Compiler()


def compiled_variants() -> int:
    """Return how many kernels this process has compiled or loaded."""
    jit = sys.modules.get("fastconv.kernels.cpu.runtime.jit")
    return 0 if jit is None else jit.statistics.compiled + jit.statistics.loaded
