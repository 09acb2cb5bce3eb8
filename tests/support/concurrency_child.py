"""Scenarios for api/test_threads_and_forks.py, each in an interpreter of its own.

    python tests/support/concurrency_child.py SCENARIO

NUMBA_THREADING_LAYER in the environment names the layer on which a foreign Numba program runs
beside fastconv. A scenario compares every result with the one that a lone call gave, to the bit.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numba
import numpy as np

import fastconv
from forks import fork, see_it_end

faulthandler.dump_traceback_later(90, exit=True)  # a hang names its line

RNG = np.random.default_rng(11)
LAYER = os.environ.get("NUMBA_THREADING_LAYER", "default")


def _array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, STACK = _array(2, 24, 40, 45), _array(2, 8, 6, 20, 21)
DENSE, DEEP, DEPTHWISE = _array(40, 24, 3, 3), _array(12, 8, 3, 3, 3), _array(24, 1, 5, 5)
IMAGE, FILTER = _array(1, 1, 90, 111), _array(2, 1, 7, 7)


CALLS: tuple[tuple[Callable[..., np.ndarray], tuple[np.ndarray, ...], dict[str, int]], ...] = (
    (fastconv.conv2d, (X, DENSE), {"padding": 1}),
    (fastconv.conv2d, (X, DEPTHWISE), {"padding": 2, "groups": 24}),
    (fastconv.conv2d, (X, DENSE), {"padding": 4, "dilation": 4}),
    (fastconv.conv2d, (IMAGE, FILTER), {}),
    (fastconv.conv3d, (STACK, DEEP), {"padding": 1}),
)
# Chosen once: with another number of threads another kernel, of other bits, may be the cheapest.
KERNELS = [fastconv.explain(function, *args, **words).chosen for function, args, words in CALLS]


def run_by(kernel: str, call: Callable[[], np.ndarray]) -> np.ndarray:
    with fastconv.use_kernel(kernel):
        return call()


def jobs() -> list[Callable[[], np.ndarray]]:
    """Calls that reach different kernels, functional and packed."""
    layer = fastconv.Conv2d(DENSE, padding=1, activation="silu")
    calls = [partial(function, *args, **words) for function, args, words in CALLS]
    return [
        *(partial(run_by, kernel, call) for kernel, call in zip(KERNELS, calls, strict=True)),
        partial(run_by, KERNELS[0], partial(layer, X)),
    ]


def results() -> list[bytes]:
    return [job().tobytes() for job in jobs()]


def repeat(truth: list[bytes], rounds: int) -> None:
    calls = jobs()
    for _ in range(rounds):
        for call, expected in zip(calls, truth, strict=True):
            assert call().tobytes() == expected, "a bit changed"


def in_child(work: Callable[[], None]) -> None:
    """Fork, work in the child, and see it end well within a minute."""
    see_it_end(fork(work), 60)


def in_threads(count: int, work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(count) as executor:
        for future in [executor.submit(work) for _ in range(count)]:
            future.result()


@numba.njit(parallel=True, nogil=True)
def foreign_sum(values: np.ndarray) -> float:
    """Another library's parallel region."""
    total = 0.0
    for i in numba.prange(values.size):
        total += np.sqrt(values[i])
    return total


VALUES = np.arange(200_000, dtype=np.float64)


def first_calls_at_once() -> None:
    """No call has been made before eight threads make one each."""
    barrier, found = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        found.append(results())

    in_threads(8, work)
    assert all(each == results() for each in found)


def many_threads() -> None:
    truth = results()
    in_threads(6, lambda: repeat(truth, 8))


def thread_counts() -> None:
    """One thread, two, and more than there are processors: the same bits."""
    found = []
    for threads in (1, 2, 3, 8, 1):
        fastconv.set_num_threads(threads)
        assert fastconv.get_num_threads() == threads
        found.append(results())
    assert all(each == found[0] for each in found)


def thread_count_changes_while_computing() -> None:
    truth = results()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for threads in (1, 2, 4):
                fastconv.set_num_threads(threads)
                time.sleep(0.001)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        in_threads(3, lambda: repeat(truth, 8))
    finally:
        stop.set()
        changer.join()


def fork_before_use() -> None:
    in_child(results)
    truth = results()
    in_child(lambda: repeat(truth, 2))


def fork_after_use() -> None:
    truth = results()
    foreign = foreign_sum(VALUES)
    for _ in range(3):
        in_child(lambda: repeat(truth, 2))
        in_child(lambda: in_child(lambda: repeat(truth, 1)))  # a grandchild
        in_child(lambda: in_threads(3, lambda: repeat(truth, 1)))
        repeat(truth, 1)
    assert np.isclose(foreign_sum(VALUES), foreign)


def fork_while_computing() -> None:
    truth = results()
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            repeat(truth, 1)

    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(compute) for _ in range(2)]
        try:
            for _ in range(8):
                in_child(lambda: repeat(truth, 1))
        finally:
            stop.set()
        for future in futures:
            future.result()


def _pool_task(index: int) -> bytes:
    return jobs()[index]().tobytes()


def multiprocessing_pools() -> None:
    truth = results()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found = pool.map_async(_pool_task, range(len(truth))).get(timeout=60)
        if method == "fork":  # a spawned child draws the same arrays
            assert found == truth
        assert found == truth, method


def beside_a_foreign_parallel_program() -> None:
    """A Numba prange program runs in one thread, fastconv in two others."""
    truth, foreign = results(), foreign_sum(VALUES)
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            assert np.isclose(foreign_sum(VALUES), foreign)

    with ThreadPoolExecutor(3) as executor:
        other = executor.submit(compute)
        mine = [executor.submit(repeat, truth, 10) for _ in range(2)]
        try:
            for future in mine:
                future.result()
        finally:
            stop.set()
        other.result()


def inside_a_foreign_parallel_region() -> None:
    """Every iteration of a prange calls back into Python, which convolves."""
    truth, calls, errors = results(), jobs(), []

    @ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)
    def callback(index: int) -> float:
        which = index % len(calls)
        if calls[which]().tobytes() != truth[which]:
            errors.append(index)
        return float(index)

    @numba.njit(parallel=True, nogil=True)
    def region(count: int) -> float:
        total = 0.0
        for i in numba.prange(count):
            total += callback(i)
        return total

    assert region(48) == sum(range(48))
    assert not errors, errors


def inside_torch() -> None:
    """From the threads of PyTorch's autograd and inter-op pools, and in forked data workers."""
    import torch

    truth = results()

    class Convolve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * 1

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            repeat(truth, 1)
            return gradient

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> np.ndarray:
            repeat(truth, 1)
            return np.zeros(1)

    torch.nn.functional.conv2d(torch.ones(1, 8, 64, 64), torch.ones(8, 8, 3, 3))  # start its pool
    for _ in range(4):
        x = torch.ones(3, requires_grad=True)
        Convolve.apply(x).sum().backward()
    loader = torch.utils.data.DataLoader(
        Images(), num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert len(list(loader)) == 6
    repeat(truth, 1)


class Interrupted(Exception):
    pass


def interrupted_calls() -> None:
    """An exception out of a signal handler leaves a pool that works and arrays that lie still."""
    truth = results()
    x, weight = _array(1, 64, 150, 150), _array(128, 64, 5, 5)
    out = np.zeros((1, 128, 146, 146), np.float32)
    fastconv.set_num_threads(8)
    fastconv.conv2d(x, weight, out=out)  # an exception in the midst of Numba's compiler spoils it

    def interrupt(*_: object) -> None:
        raise Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    # More threads than processors, and other programs: the caller often has to wait for a helper.
    hog = "import time; end = time.time() + 60\nwhile time.time() < end: pass"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    hogs = [subprocess.Popen([sys.executable, "-c", hog], **quiet) for _ in range(2)]
    try:
        interruptions = sum(_interrupt_once(x, weight, out, attempt) for attempt in range(60))
    finally:
        for process in hogs:
            process.kill()
            process.wait()
    assert interruptions > 20, interruptions
    repeat(truth, 2)


def _interrupt_once(x: np.ndarray, weight: np.ndarray, out: np.ndarray, attempt: int) -> bool:
    out[...] = 0
    interrupted = False
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0005 * (attempt % 30))
        fastconv.conv2d(x, weight, out=out)
    except Interrupted:
        interrupted = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    left = out.copy()
    time.sleep(0.02)
    assert np.array_equal(left, out), "threads still write after the call has been left"
    return interrupted


def exit_while_computing() -> None:
    """The interpreter ends while daemon threads are in the middle of calls."""
    truth = results()

    def compute() -> None:
        while True:
            repeat(truth, 1)

    for _ in range(3):
        threading.Thread(target=compute, daemon=True).start()
    time.sleep(0.2)


def denormals_survive() -> None:
    """Kernels may flush denormals to zero; the caller's and other libraries' threads must not."""
    tiny = np.full(100_000, 1e-310)

    @numba.njit(parallel=True)
    def halve(values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        for i in numba.prange(values.size):
            out[i] = values[i] * 0.5
        return out

    before = halve(tiny).tobytes()
    for job in jobs():
        job()
        fastconv.conv2d(X * np.float32(1e-42), DENSE)
        assert np.float64(1e-310) * 0.5 > 0 and np.all(tiny * 0.5 > 0)
        assert halve(tiny).tobytes() == before


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        first_calls_at_once,
        many_threads,
        thread_counts,
        thread_count_changes_while_computing,
        fork_before_use,
        fork_after_use,
        fork_while_computing,
        multiprocessing_pools,
        beside_a_foreign_parallel_program,
        inside_a_foreign_parallel_region,
        inside_torch,
        interrupted_calls,
        exit_while_computing,
        denormals_survive,
    )
}

if __name__ == "__main__":
    if sys.argv[1] != "fork_before_use" and LAYER != "default":
        foreign_sum(VALUES)
        assert numba.threading_layer() == LAYER, numba.threading_layer()
    SCENARIOS[sys.argv[1]]()
    print("passed", sys.argv[1], LAYER)
