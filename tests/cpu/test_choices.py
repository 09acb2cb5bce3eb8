"""Which kernel the predicted costs choose for every row of every suite, on one known machine.

``choices.txt`` keeps them, a row a line: suite, problem line, kernel. Costs that are meant to
choose otherwise change that file with them, so that a review sees which rows moved::

    python tests/cpu/test_choices.py    writes it anew
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastconv import dispatch
from fastconv.bench.cases import load, suite_names
from fastconv.bench.sparse import SparseLayer
from fastconv.contract.array_problem import ArrayProblem
from fastconv.contract.boundary_problem import BoundaryProblem
from fastconv.contract.problem import ConvProblem
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.kernels.cpu.machine.zen4 import ZEN4

pytest.importorskip("scipy", reason="cpu.fft, which some rows choose, needs it")

KEPT = Path(__file__).with_name("choices.txt")
#: Sites of a laser scan, and pairs of a 3x3x3 kernel over them; those of other kernels are like it.
ROWS, PAIRS = 114_941, 782_221


def of_scan(layer: SparseLayer) -> SparseProblem | None:
    """The problem of a sparse row; None of one that builds a rulebook alone."""
    if layer.op == "rulebook":
        return None
    op = layer.op if layer.op.endswith("pool") else "sparse_conv"
    channels = layer.in_channels, layer.out_channels, layer.groups
    return SparseProblem(op, ROWS, ROWS, PAIRS, layer.kernel_size, *channels, layer.dtype)


def cheapest(of: ConvProblem | SparseProblem | ArrayProblem) -> str:
    """The kernel of the lowest predicted cost for a packed weight."""
    costs = {
        spec.name: spec.cost(of, ZEN4.device)
        for spec in dispatch.kernels(op=of.op, device="cpu")
        if not spec.reasons(of, ZEN4.device)
    }
    return min(costs, key=lambda name: costs[name])


def choices() -> Iterator[str]:
    """The lines of the kept file."""
    for suite in suite_names():
        for case in load(suite):
            sparse = isinstance(case.problem, SparseLayer)
            of = of_scan(case.problem) if sparse else case.problem
            # These, boundary modes and networks are made of dense problems.
            many = ("conv_transpose", "conv_input_grad", "conv_pair", "network")
            composed = of is None or of.op in many
            if not composed and not isinstance(of, BoundaryProblem):
                yield f"{suite} {case.line} {cheapest(of)}"


def test_rows_of_suites_get_their_kernels() -> None:
    kept, found = KEPT.read_text(encoding="utf-8").splitlines(), list(choices())
    moved = [f"- {line}" for line in kept if line not in found]
    moved += [f"+ {line}" for line in found if line not in kept]
    told = "\n".join(["other kernels (to keep them: python tests/cpu/test_choices.py)", *moved])
    assert found == kept, told


if __name__ == "__main__":
    KEPT.write_text("".join(f"{line}\n" for line in choices()), encoding="utf-8")
