"""Measured choices: how long the cost model's best kernels really took, remembered on disk.

A choice holds for a problem (its line names element type and memory order), a number of threads or
a GPU, a precision, a weight that is packed once or in each call, and the sources of the operator's
kernels: it is forgotten with the code that it was made for. One JSON file for each machine lies in
the folder of the compiled kernels. The file is read once, and written by an
atomic rename of what is on disk then and what this process measured; of two processes that write at
the same moment one may lose a choice, which is then measured again.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .contract import first_use, private_files
from .contract.array_problem import ArrayProblem
from .contract.cache import cache_dir
from .contract.cpu import cpu_info
from .contract.problem import ConvProblem
from .contract.sparse_problem import SparseProblem

__all__ = ["Choice", "Memory", "choice_key", "lock", "memory", "must_not_race", "race"]

#: Seconds that timing one problem should take, over all of its kernels.
_BUDGET = 0.05
#: Least and most rounds of timing: a median wants a few, a call of microseconds no thousands.
_ROUNDS = 3, 100
#: After so many rounds, a kernel that took this many times the fastest one's time drops out.
_TRIALS, _HOPELESS = 2, 2.0
#: Bytes that the file may have; a choice takes some three hundred.
_LARGEST = 64 << 20

_clock = time.perf_counter

#: One race at a time, or the kernels of two would slow each other. Re-entrant, so that it can tell
#: a call in the midst of this thread's own race.
lock: Any = threading.RLock()


@dataclass(frozen=True, slots=True)
class Choice:
    """What was measured for one problem.

    Parameters
    ----------
    kernel : str
        The fastest kernel's name.
    milliseconds : dict of str to float
        Median time of each kernel that was measured, lowest predicted cost first.
    """

    kernel: str
    milliseconds: dict[str, float]


def choice_key(
    problem: ConvProblem | SparseProblem | ArrayProblem, packed: bool, precision: str, where: str,
    code: str,
) -> str:  # fmt: skip
    """Return the words under which a choice is remembered."""
    weight = "packed once" if packed else "packed in each call"
    return f"{problem.line()}, weight {weight}, {precision}, {where}, kernels {code}"


def race(calls: Mapping[str, Callable[[], object]]) -> Choice:
    """Time calls in turn, round after round, so that a drift of the machine meets all of them.

    Parameters
    ----------
    calls : mapping of str to callable
        Each runs one kernel; the first run may compile it.
    """
    statistics = first_use.load("statistics")
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}

    def time_once(names: Iterable[str]) -> None:
        for name in names:
            start = _clock()
            calls[name]()
            times[name].append(_clock() - start)

    for _ in range(_TRIALS):
        time_once(calls)
    best = {name: min(taken) for name, taken in times.items()}
    contenders = [name for name in calls if best[name] <= _HOPELESS * min(best.values())]
    round_seconds = sum(best[name] for name in contenders)
    least, most = _ROUNDS
    for _ in range(min(max(least, int(_BUDGET / max(round_seconds, 1e-9))), most)):
        time_once(contenders)
    medians = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
    return Choice(min(contenders, key=lambda name: medians[name]), medians)


class Memory:
    """Choices by `choice_key`: this process's, and those on disk.

    Parameters
    ----------
    path : Path or None
        The file; None remembers in this process only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._choices: dict[str, Choice] | None = None

    def all(self) -> dict[str, Choice]:
        """Return every choice; the file is read when they are first asked for."""
        if self._choices is None:
            choices, damage = self._read()
            if self._choices is None:  # or another thread was quicker, and may have added to them
                self._choices = choices
            if damage is not None:  # told after the file counts as empty: a warning may be an error
                warnings.warn(f"fastconv: tuned choices are lost: {damage}", stacklevel=2)
        return self._choices

    def get(self, key: str) -> Choice | None:
        """Return the choice for a key, None where nothing was measured."""
        return self.all().get(key)

    def add(self, key: str, choice: Choice) -> None:
        """Remember a choice; a disk that cannot be written to costs a warning."""
        self.all()[key] = choice
        if self.path is None:
            return
        json = first_use.load("json")
        on_disk, _ = self._read()
        self._choices = merged = on_disk | self.all()
        text = json.dumps({name: asdict(merged[name]) for name in sorted(merged)}, indent=1)
        try:
            private_files.write(self.path, text.encode())
        except OSError as error:
            told = f"{self.path}: {error.strerror}"
            warnings.warn(f"fastconv: could not keep a tuned choice: {told}", stacklevel=2)

    def _read(self) -> tuple[dict[str, Choice], str | None]:
        """Return what the file holds; a damaged one holds nothing, and what is wrong with it."""
        if self.path is None:
            return {}, None
        try:
            text = private_files.read(self.path, _LARGEST).decode()
            content = first_use.load("json").loads(text)
            if not isinstance(content, dict):
                raise ValueError("it holds no choices by problem")
            return {key: _choice(entry) for key, entry in content.items()}, None
        except FileNotFoundError:
            return {}, None
        except Exception as error:  # noqa: BLE001 - whatever it holds, it can be measured again
            return {}, private_files.damage(self.path, error)


def _choice(entry: Any) -> Choice:
    if not isinstance(entry, dict) or not {"kernel", "milliseconds"} <= entry.keys():
        raise ValueError(f"{str(entry)[:100]!r} is no choice: it has no kernel and milliseconds")
    times = {str(name): float(taken) for name, taken in entry["milliseconds"].items()}
    if not isinstance(entry["kernel"], str) or not all(0 <= t < math.inf for t in times.values()):
        raise ValueError("an entry is no choice")
    return Choice(entry["kernel"], times)


_memory: Memory | None = None


def memory() -> Memory:
    """Return the choices made on this machine by this version."""
    if _memory is None:
        folder, cpu = first_use.run(cache_dir), cpu_info()
        facts = f"{cpu.model} {cpu.isa} {cpu.l1} {cpu.l2} {cpu.l3}"
        machine = hashlib.sha256(facts.encode()).hexdigest()[:8]
        return _first(Memory(None if folder is None else folder / f"tuned-{machine}.json"))
    return _memory


def _first(made: Memory) -> Memory:
    """Return what is remembered in this process: `made`, or that of a call which was quicker."""
    global _memory
    if _memory is None:
        _memory = made
    return _memory


def must_not_race() -> bool:
    """Tell whether this call comes in the midst of this thread's own race, import or compilation.

    A signal handler or a finaliser makes such calls. To wait for the race would be to wait for
    oneself, and what it measured in an import would be the import.
    """
    return bool(lock._is_owned()) or first_use.is_amid()


def _after_fork_in_child() -> None:
    """Start with a free lock: another thread of the parent may have held it."""
    global lock
    lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
