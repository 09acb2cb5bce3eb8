"""One library in a process of its own.

``python -m fastconv.bench.worker NAME THREADS DEVICE KIND`` starts it; the runner does.
Commands come as JSON lines on standard input, and each gets one JSON line back on what was
standard output; whatever a library prints goes to standard error. The process named
``reference`` is none of them: it only writes true outputs.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from fastconv.contract.problem import INTEGERS

from .cases import Case, parse_case
from .peer import Call, Peer, Refusal
from .registry import PEERS, TRUTHS
from .truth import relative_error

__all__ = ["REFERENCE", "Worker", "answer", "main", "measure"]

REFERENCE = "reference"

_WARM_SECONDS = 0.02
_SLOW_SECONDS = 0.5


class Worker:
    """What the process holds: a library, and the call of the case at hand.

    Parameters
    ----------
    peer : Peer or None
        The library; None only writes true outputs.
    """

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer
        self.call: Call | None = None

    def truth(self, line: str, path: str) -> dict[str, Any]:
        """Write the true output of a case."""
        case = parse_case(line)
        truth = TRUTHS[case.kind]
        np.save(path, truth.expected(case.problem, *truth.arrays(case.problem)))
        return {}

    def prepare(self, line: str, path: str) -> dict[str, Any]:
        """Set a case up, run it once and check its output."""
        assert self.peer is not None
        self.call = None
        case = parse_case(line)
        problem, truth = case.problem, TRUTHS[case.kind]
        types = {problem.dtype, getattr(problem, "out_dtype", "")}
        if types & INTEGERS.keys() and not self.peer.integers:
            raise Refusal(f"{self.peer.distribution} is called on floating-point numbers only")
        call = self.prepared(case, path)
        result = self.peer.to_numpy(problem, call())
        expected = np.load(path, mmap_mode="r")
        reply = {"kernel": self.peer.kernel(problem)}
        if reason := truth.wrong(problem, result, expected):
            return reply | {"reason": reason, "wrong": True}
        self.call = call
        return reply | {"error": relative_error(result, expected)}

    def prepared(self, case: Case, path: str) -> Call:
        """Return the library's call of a case."""
        assert self.peer is not None
        return self.peer.prepare(case.problem, *TRUTHS[case.kind].arrays(case.problem))

    def time(self, budget: float) -> dict[str, Any]:
        """Time the case for about `budget` seconds; return the seconds of each call."""
        assert self.peer is not None and self.call is not None
        peer, call = self.peer, self.call
        return {"times": measure(lambda: peer.seconds(call), budget)}

    def peak(self, dtype: str) -> dict[str, Any]:
        """Tell the multiply-add peak of what the library computes on."""
        assert self.peer is not None
        return {"flops": self.peer.peak(dtype)}

    def machine(self) -> dict[str, Any]:
        """Tell what the machine is."""
        assert self.peer is not None
        return self.peer.machine()


def measure(take: Callable[[], float], budget: float) -> list[float]:
    """Return the seconds of each call over about `budget` seconds.

    The process was stopped until now, so caches and threads are warmed first. A slow call needs
    no warming and is taken once; one that fits the budget, at least three times.

    Parameters
    ----------
    take : callable
        Makes a call and returns its seconds.
    budget : float
        Seconds to measure for.
    """
    gc.disable()
    try:
        warm = _repeat(take, min(_WARM_SECONDS, budget), 1)
        if len(warm) == 1 and warm[0] > _SLOW_SECONDS:
            return warm
        return _repeat(take, budget, 3 if warm[-1] < budget else 1)
    finally:
        gc.enable()


def _repeat(take: Callable[[], float], seconds: float, least: int) -> list[float]:
    clock = time.perf_counter
    times: list[float] = []
    start = clock()
    while len(times) < least or clock() - start < seconds:
        times.append(take())
    return times


def answer(worker: Worker, command: dict[str, Any]) -> dict[str, Any]:
    """Run one command; whatever a library raises becomes the row's reason."""
    handler: Callable[..., dict[str, Any]] = getattr(worker, command.pop("do"))
    try:
        return handler(**command)
    except Refusal as refusal:
        return {"reason": str(refusal)}
    except Exception as error:  # noqa: BLE001 - a library's own, of any kind: the report shows it
        text = (str(error).strip().splitlines() or [""])[0]
        return {"reason": f"{type(error).__name__}: {text[:200]}", "failed": True}


def _die_with_parent() -> None:
    """Have Linux end this process when its parent dies, as it may lie stopped just then."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _private_output() -> TextIO:
    """Return a file on the real standard output and send what libraries print to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _worker(kind: str, peer: Peer | None) -> Worker:
    if kind == "network":
        from .network_worker import NetworkWorker

        return NetworkWorker(peer)
    return Worker(peer)


def main(name: str, threads: int, device: str, kind: str) -> None:
    """Answer commands until standard input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends its workers itself
    channel = _private_output()
    peer = None if name == REFERENCE else PEERS[kind][device][name](threads)
    ready = {"version": peer.version() if peer else np.__version__}
    channel.write(json.dumps(ready) + "\n")
    channel.flush()
    worker = _worker(kind, peer)
    for line in sys.stdin:
        channel.write(json.dumps(answer(worker, json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
