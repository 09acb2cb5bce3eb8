"""One job's search: Hypothesis draws cases, a worker runs them, failures are shrunk and kept.

Hypothesis sees a failing case only where a fresh worker fails in the same way: what depends on the
calls before it can not be shrunk, and is kept with the cases that led to it.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .case import Case, Failure, Report
from .client import Worker
from .drawing import Options
from .operators import find_operator

__all__ = ["Finding", "Hunt"]

#: Cases of one run of Hypothesis, whose memory of what it tried is then given back.
_ROUND = 400
#: Seconds that shrinking one failure may take.
_SHRINK_SECONDS = 90.0
#: Cases that are kept of what came before a failure that a fresh worker does not repeat.
_HISTORY = 300


@dataclass(slots=True)
class Finding:
    """A failure and the smallest case that shows it.

    Parameters
    ----------
    failure : Failure
        Of the case.
    case : Case
        Shrunk, unless it does not repeat.
    seed : str
        Of the round that found it.
    repeats : bool
        Whether a fresh worker fails alike.
    history : list of str
        The cases before, where it does not.
    count : int
        Cases that failed alike.
    """

    failure: Failure
    case: Case
    seed: str
    repeats: bool = True
    history: list[str] = field(default_factory=list)
    count: int = 1


class _Over(BaseException):
    """The time is over; Hypothesis lets it pass."""


class _Wrong(Exception):
    """A case failed; Hypothesis shrinks it."""


class Hunt:
    """A search by one worker at a time.

    Parameters
    ----------
    seed : str
        Equal seeds draw equal cases.
    names : sequence of str
        Operators.
    options : Options
        What is drawn.
    deadline : float
        When to stop, on the clock of `time.monotonic`.
    told : callable, optional
        Told each finding.
    """

    def __init__(
        self,
        seed: str,
        names: Sequence[str],
        options: Options,
        deadline: float,
        told: Callable[[Finding], None] = lambda _: None,
    ) -> None:
        self.seed, self.names, self.options = seed, list(names), options
        self.deadline, self.told = deadline, told
        self.cases = 0
        self.problems: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.findings: dict[tuple[str, str, str], Finding] = {}
        self._worker = Worker()
        self._history: deque[str] = deque(maxlen=_HISTORY)
        self._target: tuple[str, str, str] | None = None
        self._failing: dict[str, Failure] = {}
        self._best: Case | None = None
        self._until = 0.0

    def run(self) -> None:
        """Search until the time is over."""
        number = 0
        try:
            while time.monotonic() < self.deadline:
                self._round(f"{self.seed}/{number}")
                number += 1
        except _Over:
            pass
        finally:
            self._worker.close()

    def _round(self, seed: str) -> None:
        """Draw cases from one seed until one fails, and shrink that one."""
        from hypothesis import HealthCheck, Phase, given, settings, strategies
        from hypothesis import seed as seeded

        self._target, self._best = None, None
        self._failing.clear()

        @seeded(random.Random(seed).getrandbits(64))
        @settings(
            max_examples=_ROUND,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(strategies.composite(self._draw)())
        def search(case: Case) -> None:
            self._try(case, seed)

        try:
            search()
        except _Wrong:
            pass
        except Exception as error:
            if type(error).__name__ not in ("Flaky", "FlakyFailure"):
                raise
        if self._best is not None:
            self._keep(self._best, seed)

    def _draw(self, draw: Any) -> Case:
        from hypothesis import strategies

        name = draw(strategies.sampled_from(self.names))
        return find_operator(name).draw(draw, name, self.options)

    def _try(self, case: Case, seed: str) -> None:
        """Run a case; raise where it is to be shrunk."""
        if self._target is not None:
            return self._shrink(case)
        if time.monotonic() > self.deadline:
            raise _Over
        failure = self._run(case).failure
        if failure is None:
            self._history.append(case.dumps())
            return None
        if failure.key in self.findings:
            self.findings[failure.key].count += 1
            return None
        self._worker.restart()
        again = self._run(case).failure
        if again is None or again.key != failure.key:
            self._unrepeatable(case, failure, seed)
            return None
        self._target = failure.key
        self._until = time.monotonic() + _SHRINK_SECONDS
        self._best = case
        narrow = case.with_kernel(failure.kernel) if failure.kernel else case
        if narrow != case and self._fails(narrow):
            self._best = narrow
        self._failing[case.dumps()] = failure
        raise _Wrong

    def _shrink(self, case: Case) -> None:
        text = case.dumps()
        if text not in self._failing:
            if time.monotonic() > self._until:
                return
            assert self._target is not None
            narrow = case.with_kernel(self._target[1]) if self._target[1] else case
            failing = narrow if self._fails(narrow) else None
            if failing is None and narrow != case and self._fails(case):
                failing = case
            if failing is None:
                return
            self._failing[text] = Failure(*self._target)
            assert self._best is not None
            if _weight(failing) <= _weight(self._best):
                self._best = failing
        raise _Wrong

    def _fails(self, case: Case) -> bool:
        """Tell whether a fresh worker fails in the way that is looked for."""
        for _ in range(2):
            failure = self._run(case).failure
            if failure is None or failure.key != self._target:
                return False
            self._worker.restart()
        return True

    def _run(self, case: Case) -> Report:
        report = self._worker.run(case)
        self.cases += 1
        self.problems[case.op] += report.problems
        self.calls.update(report.calls)
        return report

    def _unrepeatable(self, case: Case, failure: Failure, seed: str) -> None:
        finding = Finding(failure, case, seed, False, [*self._history, case.dumps()])
        self.findings[failure.key] = finding
        self.told(finding)

    def _keep(self, case: Case, seed: str) -> None:
        """Keep the smallest case, with what it says in a fresh worker."""
        self._worker.restart()
        failure = self._run(case).failure
        if failure is None:
            assert self._target is not None
            failure = Failure(*self._target, message="fails now and then")
        finding = Finding(failure, case, seed)
        self.findings[self._target or failure.key] = finding
        self.told(finding)


def _weight(case: Case) -> tuple[int, int]:
    return len(case.steps), len(case.dumps())
