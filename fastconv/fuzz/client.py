"""A worker process from outside: started, given cases, watched, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import Case, Failure, Report

__all__ = ["Worker"]

#: Seconds that a case may take, and that compiling one kernel may take within it.
CASE_SECONDS, COMPILE_SECONDS = 60.0, 300.0
#: Megabytes of address space, and of memory after which a worker is made anew.
ADDRESS_SPACE, RESIDENT = 8 << 10, 1500
#: Cases after which a worker is made anew, for what it has compiled stays in its memory.
CASES = 1500


class Worker:
    """A process that runs cases, one after another; a fresh one where the last has ended.

    Parameters
    ----------
    environment : dict of str to str
        Variables for the process, beside those of this one.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self.environment = {"FASTCONV_POISON_WORKSPACE": "1", **(environment or {})}
        self.started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = Path(tempfile.mkstemp(prefix="fastconv-fuzz-")[1])
        self._served = 0
        self._resident = 0
        self._pending = b""

    def run(self, case: Case) -> Report:
        """Run a case and return what came of it, whatever that does to the process."""
        if self._served >= CASES or self._resident > RESIDENT:
            self.restart()
        process = self._start()
        self._served += 1
        assert process.stdin is not None
        step, kernel = 0, ""
        try:
            process.stdin.write(case.dumps().encode() + b"\n")
            process.stdin.flush()
            for told in self._answers(process):
                if told.get("done"):
                    self._resident = told["resident"]
                    failure = told["failure"]
                    return Report(
                        None if failure is None else Failure(**failure),
                        told["problems"],
                        Counter(told["calls"]),
                    )
                step, kernel = told.get("step", step), told.get("kernel", kernel)
        except TimeoutError:
            self.restart()
            message = f"no answer within {CASE_SECONDS:.0f} s"
            return Report(Failure(case.op, kernel, "hang", step, message))
        except BrokenPipeError:
            pass
        kind, message = self._end()
        return Report(Failure(case.op, kernel, kind, step, message))

    def restart(self) -> None:
        """End the process; the next case starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def close(self) -> None:
        """End the process and remove what it left."""
        self.restart()
        self._errors.unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        self._served, self._resident, self._pending = 0, 0, b""
        self.started += 1
        command = [sys.executable, "-m", "fastconv.fuzz.worker", str(ADDRESS_SPACE)]
        with self._errors.open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for those that started it
            )
        self._process = process
        for told in self._answers(process):
            if told.get("ready"):
                return process
        raise RuntimeError(f"the worker did not start: {self._tail()}")

    def _answers(self, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        """Yield what the process says, until it ends."""
        assert process.stdout is not None
        source = process.stdout.fileno()
        deadline, compiling, begun = time.monotonic() + CASE_SECONDS, False, 0.0
        while True:
            while b"\n" in self._pending:
                line, _, self._pending = self._pending.partition(b"\n")
                told = json.loads(line)
                if "compiling" in told:  # the clock of the case stands still meanwhile
                    compiling = told["compiling"]
                    if compiling:
                        begun = time.monotonic()
                    else:
                        deadline += time.monotonic() - begun
                yield told
            limit = begun + COMPILE_SECONDS if compiling else deadline
            ready, _, _ = select.select([source], [], [], max(0.0, limit - time.monotonic()))
            if not ready:
                raise TimeoutError
            received = os.read(source, 1 << 16)
            if not received:
                return
            self._pending += received

    def _end(self) -> tuple[str, str]:
        """Return how the process ended, and the last that it said."""
        assert self._process is not None
        code = self._process.wait()
        tail = self._tail()
        self.restart()
        if code < 0:
            return f"crashed with {signal.Signals(-code).name}", tail
        return f"ended with exit code {code}", tail

    def _tail(self) -> str:
        text = self._errors.read_bytes().decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        start = next((n for n, line in enumerate(lines) if line.startswith("Fatal")), -6)
        return "\n".join(lines[start:][:10])
