"""``pytest bench/ --benchmark-only``: the project's own kernels alone, for regressions.

Compare two states with ``--benchmark-save`` and ``--benchmark-compare``; against other libraries
use ``python -m fastconv bench``, which gives each one a process.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastconv.bench import truth
from fastconv.bench.cases import Case, load
from fastconv.bench.own import Fastconv
from fastconv.contract.settings import get_num_threads


@pytest.mark.parametrize("case", load("core"), ids=lambda case: case.name)
def test_packed(benchmark: Any, case: Case) -> None:
    """Time the packed convolution of one row of ``core``; its result must be right."""
    peer = Fastconv(get_num_threads())
    x, w = truth.arrays(case.problem)
    call = peer.prepare(case.problem, x, w)
    assert truth.wrong(case.problem, call(), truth.expected(case.problem, x, w)) is None
    benchmark.extra_info["kernel"] = peer.kernel(case.problem)
    benchmark.extra_info["problem"] = case.line
    result = benchmark(call)
    assert result.shape == case.problem.out_shape
