"""Children of a test's process: forked, and seen to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

__all__ = ["fork", "see_it_end"]


def fork(work: Callable[[], None]) -> int:
    """Return the number of a child that works and ends."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def see_it_end(pid: int, patience: float) -> None:
    """Wait for a child, which may not hang; `patience` is in seconds."""
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, f"the child ended with status {status}"
            return
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
