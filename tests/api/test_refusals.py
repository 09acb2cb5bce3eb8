"""Every operator refuses what it may not be given, in full and in empty calls, and says which.

The operators, their arguments and the values that these may not have are the fuzzer's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastconv.fuzz.bad import LONE, VALUES
from fastconv.fuzz.case import Case, Step
from fastconv.fuzz.execution import run_case
from fastconv.fuzz.operators import Operator, operators

pytestmark = pytest.mark.program

OPERATORS = operators()


def cases(operator: Operator) -> Iterator[Case]:
    """One call for each value that an argument may not have, of one sample and of none."""
    for name, kind in operator.bad.items():
        array = name in operator.required or name in operator.weights
        if kind in ("array", "lone"):
            values = LONE if array and name != "bias" else ()
        else:
            values = VALUES.get(kind, ())
        for value in values:
            for params in ({}, {"batch": 0}) if operator.group != "sparse" else ({},):
                yield Case(operator.name, params, steps=[Step(bad={name: value})])


@pytest.mark.parametrize("name", [name for name, each in OPERATORS.items() if each.bad])
def test_bad_arguments_are_refused_by_name(name: str) -> None:
    tried = 0
    for case in cases(OPERATORS[name]):
        report = run_case(case)
        assert report.failure is None, (case.dumps(), report.failure)
        tried += 1
    assert tried
