"""The benchmark's columns of composed rows, and what every kind of row has of fastconv."""

from __future__ import annotations

import pytest

from fastconv.bench import registry, report
from fastconv.bench.cases import parse_case

LINES = {
    "transposed": '--op=conv_transpose ic4ih5oc6oh10kh4sh2ph1n"small"',
    "boundary": '--padding_mode=reflect ic4ih9oc6oh9kh3ph1n"small"',
    "boundary integers": '--padding_mode=reflect --dt=u8:f32:u8 ic2ih20oc3oh20kh5ph2n"small"',
    "boundary filter": '--padding_mode=symmetric ic1ih20oc1oh20kh5ph2n"small"',
}


def test_every_kind_of_row_has_fastconv_s_own_columns() -> None:
    for kind, by_device in registry.PEERS.items():
        own = {report.PACKED, report.FUNCTIONAL, report.BEST}
        if kind == "gradient":
            own -= {report.FUNCTIONAL}  # there are no objects beside the functions
        if kind == "network":
            own = {report.PACKED, report.MODULE}
        for columns in by_device.values():
            assert own <= set(columns)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", [report.PACKED, report.FUNCTIONAL, report.BEST])
def test_each_of_them_is_right_on_a_composed_row(name: str, line: str) -> None:
    case = parse_case(LINES[line])
    problem, truth = case.problem, registry.TRUTHS[case.kind]
    x, w = truth.arrays(problem)
    column = registry.PEERS[case.kind]["cpu"][name](1)
    result = column.to_numpy(problem, column.prepare(problem, x, w)())
    assert truth.wrong(problem, result, truth.expected(problem, x, w)) is None
    kernel = column.kernel(problem)
    assert kernel is not None and kernel.startswith("cpu.")


def test_other_libraries_are_given_the_same_boundary() -> None:
    problem, truth = parse_case(LINES["boundary filter"]).problem, registry.TRUTHS["boundary"]
    x, w = truth.arrays(problem)
    for name in ("scipy", "opencv"):  # PyTorch's columns end its autograd for the process
        if not registry.missing_modules(name, "cpu", "boundary"):
            column = registry.PEERS["boundary"]["cpu"][name](1)
            result = column.to_numpy(problem, column.prepare(problem, x, w)())
            assert truth.wrong(problem, result, truth.expected(problem, x, w)) is None
