"""One job's search: Hypothesis draws cases, a worker runs them, failures are shrunk and kept.

What a fresh worker does not repeat depends on the cases before it and cannot be shrunk: it is kept
with those that led to it.
"""

from __future__ import annotations

import contextlib
import os
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
from .reduce import reduce

__all__ = ["Finding", "Hunt"]

#: Cases of one run of Hypothesis, whose memory of what it tried is then given back.
_ROUND = 400
#: Seconds that Hypothesis may take to shrink one failure, and `reduce` after it.
_SHRINK_SECONDS = 45.0
#: And how long it may go on after the time of the search.
_SHRINK_AFTER = 20.0
#: Cases that are kept of what came before a failure that a fresh worker does not repeat.
_HISTORY = 300
#: Shrunk cases, smallest first, that are tried in a fresh worker before the one that was drawn.
_SMALLEST = 8

Key = tuple[str, str, str]


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
        self.seed, self.options = seed, options
        # Dense and sparse cases are as many, though operators on sites are five times as many.
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(find_operator(name).group, []).append(name)
        self.groups = list(groups.values())
        self.deadline, self.told = deadline, told
        self.cases = 0
        self.problems: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.findings: dict[Key, Finding] = {}
        self._worker = Worker()
        self._history: deque[str] = deque(maxlen=_HISTORY)
        self._target: Key | None = None
        self._failing: dict[str, Case] = {}
        self._parent = os.getppid()
        self._begun = self._until = 0.0

    def run(self) -> None:
        """Search until the time is over."""
        number = 0
        try:
            while time.monotonic() < self.deadline:
                self.search(f"{self.seed}/{number}")
                number += 1
        except _Over:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def search(self, seed: str) -> None:
        """Draw some hundred cases from one seed until one fails anew, and shrink that one."""
        from hypothesis import HealthCheck, Phase, given, settings, strategies
        from hypothesis import seed as seeded
        from hypothesis.errors import Flaky

        self._target = None
        self._failing.clear()

        @strategies.composite
        def cases(draw: Any) -> Case:
            name = draw(strategies.sampled_from(draw(strategies.sampled_from(self.groups))))
            return find_operator(name).draw(draw, name, self.options)

        @seeded(random.Random(seed).getrandbits(64))
        @settings(
            max_examples=_ROUND,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(cases())
        def attempt(case: Case) -> None:
            if self._fails(case, seed):
                raise _Wrong  # at this one place, or Hypothesis takes it for another failure

        with contextlib.suppress(_Wrong, Flaky):
            attempt()
        if self._failing:
            self._keep(seed)

    def _fails(self, case: Case, seed: str) -> bool:
        """Run a case and tell whether it is one to shrink."""
        if self._target is not None:
            return self._fails_alike(case)
        if time.monotonic() > self.deadline or os.getppid() != self._parent:
            raise _Over
        failure = self._run(case).failure
        if failure is None:
            self._history.append(case.dumps())
        elif failure.key in self.findings:
            self.findings[failure.key].count += 1
        elif self._repeats(case, failure.key) is None:
            finding = Finding(failure, case, seed, False, [*self._history, case.dumps()])
            self.findings[failure.key] = finding
            self.told(finding)
        else:
            self._target = failure.key
            self._begun = now = time.monotonic()
            self._until = min(now + _SHRINK_SECONDS, max(now, self.deadline) + _SHRINK_AFTER)
            self._failing[case.dumps()] = case
            return True
        return False

    def _fails_alike(self, case: Case) -> bool:
        """Tell whether a case fails in the way that is shrunk."""
        text = case.dumps()
        if text in self._failing:
            return True
        if time.monotonic() > self._until or not _is_drawable(case):
            return False
        assert self._target is not None
        kernel = self._target[1]
        tried = [case.with_kernel(kernel), case] if kernel else [case]
        for dumped in dict.fromkeys(one.dumps() for one in tried):
            failure = self._run(Case.loads(dumped)).failure
            if failure is not None and failure.key == self._target:
                self._failing[text] = Case.loads(dumped)
                return True
        return False

    def _repeats(self, case: Case, key: Key) -> Failure | None:
        """Return the failure of a case in a fresh worker, where it is the one of that key."""
        self._worker.restart()
        failure = self._run(case).failure
        return failure if failure is not None and failure.key == key else None

    def _keep(self, seed: str) -> None:
        """Keep the smallest case that a fresh worker repeats; the first one was seen to be."""
        assert self._target is not None
        first, *others = self._failing.values()
        self._until = time.monotonic() + (self._until - self._begun)
        smallest = min((first, *others), key=_weight)
        reduce(smallest, self._fails_alike)
        first, *others = self._failing.values()
        for case in (*sorted(others, key=_weight)[:_SMALLEST], first):
            failure = self._repeats(case, self._target)
            if failure is not None:
                break
        finding = Finding(failure or Failure(*self._target, message="now and then"), case, seed)
        self.findings[self._target] = finding
        self.told(finding)

    def _run(self, case: Case) -> Report:
        report = self._worker.run(case)
        self.cases += 1
        self.problems[case.op] += report.problems
        self.calls.update(report.calls)
        return report


def _is_drawable(case: Case) -> bool:
    """Tell whether a case is one of an operator: `reduce` may leave too little of it."""
    try:
        params = {**find_operator(case.op).defaults, **case.params}
        for step in case.steps:
            find_operator(case.op).shapes({**params, **step.params})
    except (ValueError, ZeroDivisionError, IndexError, TypeError):
        return False
    return True


def _weight(case: Case) -> tuple[int, int]:
    return len(case.steps), len(case.dumps())
