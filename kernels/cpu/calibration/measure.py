"""Measure what a core and its memory do, by loops that do one thing each.

Every figure is the best of several short runs: whatever else the machine does makes a run longer,
nothing makes it shorter. All of them take a second, but for compiling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.contract.spec import DeviceInfo

from ..machine.figures import Figures
from ..runtime import pool
from ..runtime.plan import compile_kernel
from ..simd.intrinsics import get_word
from .loops import LOOPS, OUTER_ROW, OUTER_STEPS, make_loop

__all__ = ["measure"]

_RUNS = 7
#: Seconds of one run, as far as it can be told beforehand.
_SECONDS = 2e-3
#: Bytes at least that one thread walks through in memory, and at most that all do: of many threads
#: several share an L3.
_MEMORY, _MOST_MEMORY = 48 << 20, 2 << 30
_TASKS = 20_000
#: Places in memory of which one is taken for all.
_BLOCKS = 9
#: Until a helper that has nothing to do sleeps.
_SLEEP = 0.02


def _make_task(name: str, device: DeviceInfo) -> int:
    """Compile a task that runs a loop over its part of the output, some passes long."""
    lanes = device.lanes(4)
    loop = make_loop(name, lanes, device.registers)

    def task(
        geometry: int, x: int, weight: int, bias: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        for _ in range(get_word(geometry, 1)):
            loop(get_word(geometry, 0), out + number * get_word(geometry, 2))

    return compile_kernel(task, "calibration", name, lanes, device.registers)


def _nothing(
    geometry: int, x: int, weight: int, bias: int, extra: int, out: int,
    workspace: int, number: int, worker: int,
) -> None:  # fmt: skip
    """Do nothing: what is left is the cost of a task."""


def _walks(device: DeviceInfo) -> tuple[int, int, int]:
    """Return the bytes that each thread walks through: in L3, alone in memory, and with all."""
    share = device.l3 // max(2, 2 * device.threads)
    in_l3 = min(max(share, 2 * device.l2), 16 << 20)
    beyond = min(max(_MEMORY, 2 * device.l3), _MOST_MEMORY)
    return in_l3, beyond, min(beyond, _MOST_MEMORY // device.threads // 4096 * 4096)


class _Bench:
    """Buffers and the clock of one run of `measure`."""

    def __init__(self, device: DeviceInfo, say: Callable[[str], None]) -> None:
        self.device, self.say = device, say
        self.lanes = device.lanes(4)
        self.in_l2 = device.l2 // 2
        self.in_l3, self.beyond, self.share_beyond = _walks(device)
        walks = (self.beyond, device.threads * max(self.share_beyond, self.in_l3))
        words = np.empty(max(walks) // 8 + 512, np.int64)
        words[...] = 0  # so that the pages are there
        first = -words.ctypes.data % 4096 // 8
        self.buffer: Any = words[first:]

    def best(
        self, function: int, table: list[int], tasks: int, workers: int, first: int = 0
    ) -> float:
        """Return the seconds of the fastest of some runs of a job, on the bytes from `first` on."""
        geometry = np.array(table or [0], np.int64)
        job = pool.make_job(function, geometry.ctypes.data, tasks, workers)
        operands = (None, None, None, None, self.buffer[first // 8 :], None)
        best = np.inf
        for _ in range(_RUNS):
            start = time.perf_counter()
            pool.run(job.ctypes.data, workers, operands)
            best = min(best, time.perf_counter() - start)
        return float(best)

    def rate(self, name: str) -> float:
        """Return how often a second one core does what a loop does, in L1."""
        self.say(name)
        function = _make_task(name, self.device)
        amount = LOOPS[name](self.lanes, self.device.registers).amount
        rounds = 1000
        taken = self.best(function, [rounds, 1, 0], 1, 1)
        rounds = max(1000, int(rounds * _SECONDS / taken))
        taken = self.best(function, [rounds, 1, 0], 1, 1)
        return rounds * amount(self.lanes, self.device.registers) / taken

    def stream(self, name: str, size: int, threads: int) -> float:
        """Return the bytes a second of walks through `size` bytes by each of some threads."""
        self.say(f"{name}, {size >> 10} KiB, {threads} threads")
        function = _make_task(name, self.device)
        step = LOOPS[name](self.lanes, self.device.registers).amount(
            self.lanes, self.device.registers
        )
        rounds = size // step
        passes = 1
        taken = self.best(function, [rounds, passes, size], threads, threads)
        passes = max(1, int(_SECONDS / taken))
        taken = self.best(function, [rounds, passes, size], threads, threads)
        return threads * rounds * step * passes / taken

    def outer_loads(self) -> float:
        """Return the loads a second of a register tile whose operands fill half of L2.

        Which pages a block consists of makes one up to half as fast again as another (Zen 3: 1.05
        to 1.61 loads a cycle): the median of several blocks is told.
        """
        self.say("outer products")
        function = _make_task("outer_product", self.device)
        row = OUTER_ROW + self.device.vector_bytes
        steps = min(self.in_l2 // row, OUTER_STEPS)
        passes = max(1, int(_SECONDS / self.best(function, [steps, 1, 0], 1, 1)))
        taken = [
            self.best(function, [steps, passes, 0], 1, 1, first)
            for first in range(0, _BLOCKS * OUTER_STEPS * row, OUTER_STEPS * row)
        ]
        amount = LOOPS["outer_product"](self.lanes, self.device.registers).amount
        return steps * passes * amount(self.lanes, self.device.registers) / float(np.median(taken))

    def task_seconds(self) -> float:
        """Return the seconds of a task that does nothing."""
        self.say("tasks")
        return self.best(compile_kernel(_nothing, "calibration", "nothing"), [], _TASKS, 1) / _TASKS

    def hand_over(self, sleep: float) -> float:
        """Return the seconds that a call on all threads takes beside its tasks."""
        self.say("helpers")
        device = self.device
        if device.threads == 1:
            return 0.0
        function = _make_task("addition", device)
        table, runs = np.array([2000, 1, 0], np.int64), []
        alone = self.best(function, [2000, 1, 0], 1, 1)
        job = pool.make_job(function, table.ctypes.data, device.threads, device.threads)
        for _ in range(_RUNS):
            time.sleep(sleep)
            start = time.perf_counter()
            pool.run(job.ctypes.data, device.threads, (None, None, None, None, self.buffer, None))
            runs.append(time.perf_counter() - start - alone)
        return max(0.0, float(np.median(runs)))


def measure(device: DeviceInfo, say: Callable[[str], None] = lambda what: None) -> Figures:
    """Measure the machine that a device is.

    Parameters
    ----------
    device : DeviceInfo
        Vectors, registers, caches, and how many threads "all" are.
    say : callable, optional
        Told what is measured next.

    Returns
    -------
    Figures
    """
    bench = _Bench(device, say)
    bench.rate("addition")  # the clock rises with the first work
    looks = [bench.rate("addition")]
    rates = {}
    for name in ("multiply_add", "load", "store", "latency", "gather", "transposition"):
        rates[name] = bench.rate(name)
        # A clock that is measured too low, alone, spoils all that is told in cycles.
        looks.append(bench.rate("addition"))
    clock = max(looks)
    one, every = _bandwidths(bench, 1), _bandwidths(bench, device.threads)
    # Threads together move no less than one of them: where they seem to, others were at work.
    every = {name: max(rate, one[name]) for name, rate in every.items()}
    return Figures(
        clock=clock,
        multiply_adds=rates["multiply_add"] / clock,
        loads=rates["load"] / clock,
        stores=rates["store"] / clock,
        latency=clock / rates["latency"],
        gather=clock / rates["gather"],
        transposition=clock / rates["transposition"],
        far_loads=bench.outer_loads() / clock,
        l2=bench.stream("read", bench.in_l2, 1) / clock,
        l3=one["l3"] / clock,
        l3_all=every["l3"],
        memory=one["memory"],
        memory_all=every["memory"],
        written=one["written"],
        written_all=every["written"],
        past_all=every["past"],
        task=bench.task_seconds(),
        handover=bench.hand_over(0.0),
        wake=bench.hand_over(_SLEEP),
    )


def _bandwidths(bench: _Bench, threads: int) -> dict[str, float]:
    """Return the bytes a second that so many threads move from L3, and from and to memory."""
    beyond = bench.beyond if threads == 1 else bench.share_beyond
    return {
        "l3": bench.stream("read", bench.in_l3, threads),
        "memory": bench.stream("read", beyond, threads),
        "written": bench.stream("write", beyond, threads),
        "past": bench.stream("write_past", beyond, threads),
    }
