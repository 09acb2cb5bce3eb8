"""The benchmark's columns of two convolutions in a row."""

from __future__ import annotations

import pytest

from fastconv.bench import pair_truth, registry, report
from fastconv.bench.cases import parse_case

LINES = (
    '--op=conv_pair g4ic4ih9oc4kh3sh2ph1+oc6kh1n"separable"',
    '--op=conv_pair --tag=axb ic4ih9oc5kh1kw3ph0pw1+oc6kh3kw1ph1pw0n"a row and a column"',
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", [report.PACKED, report.FUNCTIONAL, report.BEST])
def test_each_is_right_on_a_pair(name: str, line: str) -> None:
    problem = parse_case(line).problem
    arrays = pair_truth.arrays(problem)
    column = registry.PEERS["pair"]["cpu"][name](1)
    result = column.to_numpy(problem, column.prepare(problem, *arrays)())
    assert pair_truth.wrong(problem, result, pair_truth.expected(problem, *arrays)) is None
    if name in (report.PACKED, report.FUNCTIONAL, report.BEST):
        kernel = column.kernel(problem)
        assert kernel is not None and kernel.startswith("cpu.")
