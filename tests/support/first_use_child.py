"""Scenarios for api/test_first_use.py, each in an interpreter of its own.

    python tests/support/first_use_child.py SCENARIO

Nothing but fastconv and NumPy is loaded before a scenario begins.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastconv
from forks import fork, see_it_end

faulthandler.dump_traceback_later(200, exit=True)  # a hang names its line

X, W = np.ones((1, 8, 12, 12), np.float32), np.ones((8, 8, 3, 3), np.float32)
PATIENCE = 120.0  # seconds of a child that may have to compile everything


def convolve() -> None:
    """A call whose sums are known."""
    assert fastconv.conv2d(X, W)[0, 0, 0, 0] == 72


def fork_while(thread: threading.Thread) -> None:
    """Fork again and again while a thread makes the first call; every child convolves."""
    thread.start()
    forks = 0
    while thread.is_alive() or forks == 0:
        see_it_end(fork(convolve), PATIENCE)
        forks += 1
        time.sleep(0.003)
    thread.join()
    convolve()
    print(forks, "forks")


def fork_amid_the_first_call() -> None:
    fork_while(threading.Thread(target=convolve))


def fork_amid_the_first_sparse_call() -> None:
    def work() -> None:
        sites = np.array([[0, 1, 2], [0, 3, 4]], np.int32)
        x = fastconv.sparse.SparseTensor(np.ones((2, 4), np.float32), sites, (8, 8), 1)
        fastconv.sparse.subm_conv(x, np.ones((4, 4, 3, 3), np.float32))

    fork_while(threading.Thread(target=work))


def fork_when_logging_is_loaded() -> None:
    """The first import that wants a lock which a fork takes: that of `logging`."""
    assert "logging" not in sys.modules, "the scenario comes too late"
    thread = threading.Thread(target=convolve)
    thread.start()
    while not hasattr(sys.modules.get("logging"), "lastResort"):  # the last name that it defines
        time.sleep(0)
    forks = 0
    while thread.is_alive() and forks < 100:
        see_it_end(fork(lambda: None), PATIENCE)
        forks += 1
    thread.join()
    print(forks, "forks")


#: A program whose forks are each met by a signal whose handler raises.
INTERRUPTED = """
import _thread, functools, os, signal, threading

note = functools.partial(_thread.interrupt_main, signal.SIGUSR1)
os.register_at_fork(before=note)  # called last, as what is registered first is: amid the fork
from fastconv.contract import first_use

def stop(number, frame):
    raise OSError("planted")

signal.signal(signal.SIGUSR1, stop)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
done = threading.Event()
threading.Thread(target=first_use.run, args=(done.set,), daemon=True).start()
assert done.wait(30), f"the lock stays with the thread that forked: {first_use.lock}"
"""


def interrupted_forks() -> None:
    """A signal that comes amid the system's fork runs its handler in the first hook behind it."""
    words = [sys.executable, "-c", INTERRUPTED]
    child = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("planted") == 3, child.stderr  # the handlers ran


def fork_in_a_thread() -> None:
    """The thread that forks is the child's only one."""
    pids: list[int] = []

    def forks() -> None:
        for _ in range(3):
            pids.append(fork(convolve))
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for work in (convolve, forks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pid in pids:
        see_it_end(pid, PATIENCE)
    convolve()


def processes() -> None:
    """Processes of every start method, begun while a thread makes the first call."""
    thread = threading.Thread(target=convolve)
    thread.start()
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        children = [context.Process(target=convolve) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(PATIENCE)
            assert child.exitcode == 0, (method, child.exitcode)
    thread.join()


class Interrupted(Exception):
    pass


class Alarm:
    """Raises a signal at each import of a module, once for each."""

    def __init__(self, handle: Callable[[], None]) -> None:
        self.handled = 0
        self._handle = handle
        signal.signal(signal.SIGUSR1, self._called)
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        signal.raise_signal(signal.SIGUSR1)

    def _called(self, *_: object) -> None:
        self.handled += 1
        self._handle()


def interrupted_first_calls() -> None:
    """What a handler raises leaves the first call again and again; none is spoiled by it."""

    def interrupt() -> None:
        raise Interrupted

    alarm = Alarm(interrupt)
    attempts = 0
    while True:
        attempts += 1
        try:
            convolve()
            break
        except Interrupted:
            continue
    convolve()
    print(attempts, "attempts,", alarm.handled, "signals")
    assert attempts > 2


def calls_amid_the_first_call() -> None:
    """A handler convolves while the first call imports."""
    busy = []

    def call() -> None:
        if not busy:
            busy.append(True)
            convolve()
            busy.clear()

    alarm = Alarm(call)
    convolve()
    assert alarm.handled > 2


class Watch:
    """Notes every module that is imported while the lock of first uses is free."""

    def __init__(self) -> None:
        self.unguarded: list[str] = []
        self.seen = 0

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        from fastconv.contract.first_use import lock

        self.seen += 1
        if not lock._is_owned():
            self.unguarded.append(name)


def every_operator() -> None:
    """Call what a user can call, by every kernel that runs it."""
    fastconv.conv1d(np.ones((1, 6, 40), np.float32), np.ones((6, 6, 3), np.float32), tune=True)
    for kernel in [row.kernel for row in fastconv.explain(fastconv.conv2d, X, W).rows]:
        try:
            with fastconv.use_kernel(kernel):
                fastconv.conv2d(X, W)
        except fastconv.NoKernelError:
            continue
    with fastconv.precision("exact"):
        fastconv.Conv3d(np.ones((2, 2, 3, 3, 3)))(np.ones((2, 5, 5, 5)))
    fastconv.conv2d(X.astype(np.float16), W.astype(np.float16))
    fastconv.fold_batch_norm(W, None, np.zeros(8), np.ones(8))
    sparse = fastconv.sparse
    sites = np.array([[0, 1, 2], [0, 3, 4]], np.int32)
    t = sparse.SparseTensor(np.ones((2, 4), np.float32), sites, (8, 8), 1)
    y = sparse.subm_conv(t, np.ones((4, 4, 3, 3), np.float32))
    sparse.global_max_pool(sparse.sparse_max_pool(y, 2))
    sparse.grad.conv_weight(sparse.make_rulebook(t, 3), t.features, y.features)
    sparse.nn.SubMConv2d(4, 4, 3).load(np.ones((4, 3, 3, 4), np.float32), np.ones(4, np.float32))(t)
    emulated = fastconv.array_libraries.EmulatedArray
    fastconv.conv2d(emulated(X), emulated(W))
    sparse.voxels.voxelize(np.ones((5, 3), np.float32), (0.5, 0.5, 0.5))


def what_is_loaded_is_guarded() -> None:
    watch = Watch()
    sys.meta_path.insert(0, watch)  # type: ignore[arg-type]
    every_operator()
    assert watch.seen > 100, watch.seen
    assert not watch.unguarded, watch.unguarded


def no_body_of_a_module_takes_the_lock() -> None:
    """Whoever imports a module by its name waits for nobody who waits for that module."""
    from fastconv.contract.first_use import lock

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    import importlib
    import pkgutil

    def walk(package: Any) -> None:
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or ".bench" in found.name:
                continue
            try:
                module = importlib.import_module(found.name)
            except ImportError:
                continue
            print(found.name, flush=True)
            if found.ispkg:
                walk(module)

    walk(fastconv)
    done.set()


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        fork_amid_the_first_call,
        fork_amid_the_first_sparse_call,
        fork_when_logging_is_loaded,
        fork_in_a_thread,
        interrupted_forks,
        processes,
        interrupted_first_calls,
        calls_amid_the_first_call,
        what_is_loaded_is_guarded,
        no_body_of_a_module_takes_the_lock,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
    print("passed", sys.argv[1])
