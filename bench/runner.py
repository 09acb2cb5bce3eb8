"""Run a suite: one process a library, measured strictly in turn.

Thread pools of several libraries spin against each other on the same cores (0.1 ms became 8 to
30 ms), so each library lives in its own `fastconv.bench.worker` process, and all of them but the
one at work are stopped (SIGSTOP; where that does not exist they wait for input, asleep). For each
case the reference process writes the true output, each library sets the case up and is checked
against it, and then the libraries are timed in turn, three times over: a drift of the machine
within a row meets all of them. ``core`` with three peers takes about two minutes.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .cases import Case
from .registry import PEERS
from .worker import REFERENCE

__all__ = ["BenchError", "Measurement", "Options", "Result", "WorkerProcess", "run"]

_START_SECONDS = 120.0
_TRUTH_SECONDS = 600.0
_STOPPABLE = hasattr(signal, "SIGSTOP")
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "FASTCONV_NUM_THREADS",
)


class BenchError(RuntimeError):
    """The benchmark itself cannot go on."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    Parameters
    ----------
    threads : int
        Threads of every library.
    budget : float
        Seconds of timing for one library on one case, over all rounds.
    rounds : int
        How often the libraries take turns on a case.
    limit : float
        Seconds that setting a case up or one round of timing may take; what takes longer gets a
        reason instead of a figure.
    device : {"cpu", "cuda"}
        What the libraries compute on.
    kind : str
        What all rows are, a key of `fastconv.bench.registry.PEERS`.
    slow : float
        Seconds beyond which a call is not taken again in further rounds.
    fresh : bool
        Whether every row has processes of its own, as where their memory is told.
    """

    threads: int
    budget: float = 0.45
    rounds: int = 3
    limit: float = 20.0
    device: str = "cpu"
    kind: str = "dense"
    slow: float = 0.5
    fresh: bool = False


@dataclass(slots=True)
class Measurement:
    """What came of one library on one case.

    Parameters
    ----------
    times : list of float
        Seconds of each call; empty where there is a reason.
    reason : str or None
        Why there is no figure.
    wrong : bool
        Whether the reason is a wrong result.
    failed : bool
        Whether the reason is an error or a limit of time, and not what the library cannot do.
    error : float or None
        Largest error relative to the largest output.
    kernel : str or None
        The kernel that ran, where the library tells it.
    memory : int or None
        Bytes by which its process grew, at most, from before the case was set up; of networks.
    """

    times: list[float] = field(default_factory=list)
    reason: str | None = None
    wrong: bool = False
    failed: bool = False
    error: float | None = None
    kernel: str | None = None
    memory: int | None = None


@dataclass(slots=True)
class Result:
    """A whole run: machine, peaks (FLOP/s by dtype) and one dict of measurements a case."""

    machine: dict[str, Any]
    peaks: dict[str, float]
    rows: list[tuple[Case, dict[str, Measurement]]]


class WorkerProcess:
    """One worker, stopped whenever it is not asked anything.

    Parameters
    ----------
    name : str
        A peer's name, or that of the reference.
    threads : int
        Threads that it may use.
    log : file
        Where its standard error goes.
    device : {"cpu", "cuda"}
        What it computes on.
    kind : str
        Which rows it will meet, a key of `fastconv.bench.registry.PEERS`.
    """

    def __init__(
        self, name: str, threads: int, log: IO[bytes], device: str = "cpu", kind: str = "dense"
    ) -> None:
        self.name = name
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastconv.bench.worker", name, str(threads), device, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        self.pid = self._process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.version: str = self._reply(_START_SECONDS)["version"]
        self._stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode())
        self._lines.put(None)

    def _stop(self) -> None:
        """Stop the process and wait until it lies still."""
        if _STOPPABLE and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _continue(self) -> None:
        if _STOPPABLE and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def _reply(self, limit: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"took more than {limit:.0f} s") from None
        if line is None:
            code = self._process.wait()
            raise BenchError(f"the process of {self.name} ended with code {code}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its reply; the worker runs only meanwhile.

        Raises
        ------
        TimeoutError
            Where no reply came within `limit` seconds.
        BenchError
            Where the process ended.
        """
        assert self._process.stdin is not None
        self._continue()
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"the process of {self.name} has ended") from None
        reply = self._reply(limit)
        self._stop()
        return reply

    def close(self) -> None:
        """End the process, stopped or not."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class _Pool:
    """The workers of a run; one that died or hung is made anew when next needed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="fastconv-bench-")
        self.folder = Path(self._folder.name)
        self._log = (self.folder / "workers.log").open("w+b")
        self._workers: dict[str, WorkerProcess] = {}
        self.versions: dict[str, str] = {}

    def ask(self, name: str, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """Ask a worker; a time-out or an ended process is a reply with a reason."""
        if name not in self._workers:
            self._workers[name] = self._start(name)
        try:
            return self._workers[name].ask(do, limit, **arguments)
        except (TimeoutError, BenchError) as error:
            self._workers.pop(name).close()
            return {"reason": str(error), "failed": True}

    def close(self, *names: str) -> None:
        """End workers by name, or all of them."""
        for name in names or tuple(self._workers):
            self._workers.pop(name).close()

    def _start(self, name: str) -> WorkerProcess:
        try:
            wanted = self._options
            worker = WorkerProcess(name, wanted.threads, self._log, wanted.device, wanted.kind)
        except (TimeoutError, BenchError) as error:
            raise BenchError(f"{name} does not start: {error}\n{self._tail()}") from error
        self.versions[name] = worker.version
        return worker

    def _tail(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-8:])

    def __enter__(self) -> _Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._log.close()
        self._folder.cleanup()


def run(
    cases: Sequence[Case],
    libraries: Iterable[str],
    options: Options,
    progress: Callable[[str, int], None] = lambda text, done: None,
) -> Result:
    """Measure every library on every case.

    Parameters
    ----------
    cases : sequence of Case
        The rows.
    libraries : iterable of str
        Columns of `fastconv.bench.registry.PEERS`; "fastconv" must be among them, as its process
        also tells the multiply-add peak.
    options : Options
        Threads, budgets and the device.
    progress : callable
        Called with what is being done and the number of cases done.

    Returns
    -------
    Result
        Measurements in the order of `cases`.

    Raises
    ------
    BenchError
        Where a library's process does not start or the peak cannot be measured.
    """
    names = list(libraries)
    with _Pool(options) as pool:
        peaks: dict[str, float] = {}
        rows = []
        for index, case in enumerate(cases):
            _look_at_peak(pool, case, peaks)
            say = _labelled(progress, case.name, index)
            rows.append((case, _measure(pool, case, names, options, say)))
            if options.fresh:
                pool.close()
            _look_at_peak(pool, case, peaks)
        machine = _must(pool.ask("fastconv", "machine", _START_SECONDS), "the machine")
        machine["threads"] = options.threads
        machine["versions"] = {name: pool.versions[name] for name in names if name in pool.versions}
        return Result(machine, peaks, rows)


def _must(reply: dict[str, Any], what: str) -> dict[str, Any]:
    if "reason" in reply:
        raise BenchError(f"{what}: {reply['reason']}")
    return reply


def _look_at_peak(pool: _Pool, case: Case, peaks: dict[str, float]) -> None:
    """Measure the peak of a case's arithmetic (the halves: float32) and keep the best seen.

    A look takes milliseconds; many, spread over the run, outlast another process's burst.
    """
    dtype = "float64" if case.problem.dtype == "float64" else "float32"
    reply = pool.ask("fastconv", "peak", _START_SECONDS, dtype=dtype)
    peak: float = _must(reply, "the multiply-add peak")["flops"]
    peaks[dtype] = max(peak, peaks.get(dtype, 0.0))


def _labelled(progress: Callable[[str, int], None], name: str, index: int) -> Callable[[str], None]:
    return lambda library: progress(f"{name}: {library}", index)


def _measure(
    pool: _Pool,
    case: Case,
    names: Sequence[str],
    options: Options,
    say: Callable[[str], None],
) -> dict[str, Measurement]:
    """Check and time every library on one case."""
    measured = {}
    with _truth(pool, case, options.fresh, say) as path:
        for name in names:
            say(name)
            measured[name] = _set_up(pool, case, name, options, path)
    for _ in range(options.rounds):
        for name, measurement in measured.items():
            if measurement.reason is None and not _slow(measurement.times, options):
                say(name)
                _time(pool, name, measurement, options)
            if measurement.reason is None and options.fresh:
                measurement.memory = pool.ask(name, "memory", _START_SECONDS).get("bytes")
    return measured


def _set_up(pool: _Pool, case: Case, name: str, options: Options, path: str) -> Measurement:
    """Have a library set a case up and check its output."""
    library = PEERS[options.kind][options.device][name]
    if reason := library.declines(case.problem):
        return Measurement(reason=reason)
    limit = options.limit + library.setup_seconds
    return Measurement(**pool.ask(name, "prepare", limit, line=case.line, path=path))


@contextmanager
def _truth(pool: _Pool, case: Case, fresh: bool, say: Callable[[str], None]) -> Iterator[str]:
    """Have the reference process write a case's true output, for as long as it is needed."""
    say(REFERENCE)
    # In a folder, as a network's model lies beside it.
    with tempfile.TemporaryDirectory(dir=pool.folder) as folder:
        path = str(Path(folder) / "truth.npy")
        reply = pool.ask(REFERENCE, "truth", _TRUTH_SECONDS, line=case.line, path=path)
        _must(reply, f"the true output of {case.line}")
        if fresh:
            pool.close(REFERENCE)
        yield path


def _slow(times: Sequence[float], options: Options) -> bool:
    return bool(times) and min(times) > options.slow


def _time(pool: _Pool, name: str, measurement: Measurement, options: Options) -> None:
    reply = pool.ask(name, "time", options.limit, budget=options.budget / options.rounds)
    if "reason" in reply:
        measurement.times, measurement.reason, measurement.failed = [], reply["reason"], True
    else:
        measurement.times += reply["times"]
