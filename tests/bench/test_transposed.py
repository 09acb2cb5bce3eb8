"""The benchmark's columns of transposed rows, and what every kind of row has of fastconv."""

from __future__ import annotations

import pytest

from fastconv.bench import registry, report, transposed_truth
from fastconv.bench.cases import parse_case

LINE = '--op=conv_transpose ic4ih5oc6oh10kh4sh2ph1n"small"'


def test_every_kind_of_row_has_fastconv_s_own_columns() -> None:
    for kind, by_device in registry.PEERS.items():
        own = {report.PACKED, report.FUNCTIONAL, report.BEST}
        if kind == "gradient":
            own -= {report.FUNCTIONAL}  # there are no objects beside the functions
        for columns in by_device.values():
            assert own <= set(columns)


@pytest.mark.parametrize("name", [report.PACKED, report.FUNCTIONAL, report.BEST])
def test_each_of_them_is_right_on_a_transposed_row(name: str) -> None:
    problem = parse_case(LINE).problem
    x, w = transposed_truth.arrays(problem)
    column = registry.PEERS["transposed"]["cpu"][name](1)
    result = column.to_numpy(problem, column.prepare(problem, x, w)())
    assert transposed_truth.wrong(problem, result, transposed_truth.expected(problem, x, w)) is None
    kernel = column.kernel(problem)
    assert kernel is not None and kernel.startswith("cpu.")
