"""What a call imports or compiles when it is first needed: safe from forks and from signals.

A fork copies one thread only. Were another thread amid an import or in Numba's compiler, the child
would inherit their locks in the hands of nobody, and hang when it convolves. So whoever imports or
compiles on behalf of a call holds `lock` meanwhile, and a fork waits until it is free. The first
call of a process is guarded too, because ``import fastconv`` loads this module, and it loads none.

An exception in the midst of an import or a compilation, as Ctrl-C raises it, would leave Numba half
loaded for good. Signal handlers run in the main thread only, so there such work is given to a
thread of its own: the exception ends the call at once, and the work goes on to its end.

Who holds `lock` waits for no other lock of this package, and no module's body takes it: the lock of
a module that is being imported is then never wanted by one who holds `lock` while its holder waits.
"""

from __future__ import annotations

import importlib
import os
import sys
from _thread import RLock
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

__all__ = ["guard", "is_amid", "load", "lock", "run"]

Result = TypeVar("Result")

#: Held by whoever imports or compiles what a call needs; may be taken again by the same thread.
lock: Any = RLock()

_locks: list[Any] = [lock]
_held: list[Any] = []  # by the thread that forks, while it does


def guard(other: Any) -> None:
    """Let forks wait for one more lock, which is only taken by who holds `lock` or none of these.

    Parameters
    ----------
    other : lock
        Re-entrant, with methods `acquire`, `release` and `is_locked`, which tells whether this
        thread holds it.
    """
    if other not in _locks:
        _locks.append(other)


def is_amid() -> bool:
    """Tell whether this thread imports or compiles: a signal handler may call in its midst."""
    return bool(lock._is_owned())


def load(name: str) -> Any:
    """Return a module by its full name, imported if need be."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        return module
    return run(importlib.import_module, name)


def run(work: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function that imports or compiles, under `lock` and out of reach of signal handlers.

    What it raises is raised here.
    """
    if not _handlers_run_here() or _must_stay():
        with lock:
            return work(*arguments)
    import contextvars
    import threading

    context = contextvars.copy_context()
    outcome: list[tuple[Any, BaseException | None]] = []

    def finish() -> None:
        with lock:
            try:
                outcome.append((context.run(work, *arguments), None))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                outcome.append((None, error))

    thread = threading.Thread(target=finish, name="fastconv-first-use")
    try:
        thread.start()
    except RuntimeError:  # the system lets no more threads start
        with lock:
            return work(*arguments)
    thread.join()
    result, raised = outcome[0]
    if raised is not None:
        raise raised
    done: Result = result
    return done


def _handlers_run_here() -> bool:
    """Tell whether this is the main thread, without loading what tells it."""
    threading = sys.modules.get("threading")
    return threading is None or threading.current_thread() is threading.main_thread()


def _must_stay() -> bool:
    """Tell whether another thread might wait for one of this thread's locks for ever.

    That is so in the midst of an import, whose module it may need, or of a compilation.
    """
    if is_amid() or any(other.is_locked() for other in _locks[1:]):
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _before_fork() -> None:
    if not lock.acquire(blocking=False):
        _wait_without_logging()
    _held.append(lock)
    for other in _locks[1:]:
        other.acquire()
        _held.append(other)


def _wait_without_logging() -> None:
    """Take `lock`, and let go of what `logging` took for this fork while its holder is busy.

    Functions that are called before a fork are called last come, first served, so those of
    `logging`, which Numba's import loads, come before this module's. Whoever imports Numba now
    wants its lock, and this thread, which has it, would wait for `lock`. Where `logging` comes
    while this thread waits, it is not called before this fork but is after it, to release.
    """
    before = _lock_of_logging()
    state = before._release_save() if before is not None and before._is_owned() else None
    lock.acquire()
    after = _lock_of_logging()
    if state is not None:
        before._acquire_restore(state)
    elif before is None and after is not None:
        after.acquire()


def _lock_of_logging() -> Any:
    return getattr(sys.modules.get("logging"), "_lock", None)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


def _let_handlers_run() -> None:
    """Do nothing, before `_after_fork`: a signal that comes amid a fork is handled here.

    The system takes milliseconds to fork, and the first Python code after that runs the handlers.
    Python ignores what they raise in such a function, but the function ends by it, and were it
    `_after_fork`, the locks would stay with this thread for good.
    """


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_let_handlers_run)  # in the child no signal is pending
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
