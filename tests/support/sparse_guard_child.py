"""Every array of sparse kernels against a page that may not be touched.

    python tests/support/sparse_guard_child.py before|after

Run by sparse/test_kernels.py. A kernel that reads or writes a single byte outside an array, the
rulebook's among them, ends the process with SIGSEGV; the last line printed is the call that did it.
"""

from __future__ import annotations

import sys

import numpy as np

from fastconv import dispatch
from fastconv.contract.rulebook import PairLists
from fastconv.contract.sparse_problem import OPERANDS
from fastconv.contract.spec import SparseBinding
from fastconv.sparse.frozen import freeze
from fastconv.sparse.rulebook import Rulebook, _pair_lists, _reverse
from guard_child import guarded
from helpers import assert_exact
from sparse_matrix import Case, matrix, operands, rulebook, sums


def guarded_rulebook(book: Rulebook, side: str) -> Rulebook:
    """The same rulebook in guarded arrays, and its reverse."""

    made = []
    for of in (book, book.reverse()):
        guards = [freeze(guarded(each, side)) for each in (of.neighbours, *of.pair_lists)]
        sites = of._in_indices, of._out_indices
        copy = Rulebook._trusted(of.geometry, *sites, guards[0], of.pairs, of.is_reversed)
        copy._derived[(_pair_lists,)] = PairLists(*guards[1:])
        made.append(copy)
    made[0]._derived[(_reverse,)] = made[1]
    return made[0]


def run(name: str, case: Case, side: str, rng: np.random.Generator) -> None:
    """Run one kernel on whole numbers."""
    t = operands(case, rng, whole=True)
    truth = sums(case, t)
    weight = t.get("weight")
    binding = SparseBinding(() if weight is None else weight.strides)
    with dispatch.use_kernel(name):
        _, plan = dispatch.make_plan(case.problem, binding)
    arrays = [plan.pack(weight) if each == "packed" else t[each] for each in OPERANDS[case.op]]
    arrays = [None if array is None else guarded(np.asarray(array), side) for array in arrays]
    everything = case.op.startswith("sparse_global")
    book = rulebook(case.geometry, case.rows)
    plan.run(None if everything else guarded_rulebook(book, side), *arrays)
    assert_exact(arrays[-1], truth)


def main(side: str) -> None:
    rng = np.random.default_rng(5)
    count = 0
    for number, case in enumerate(matrix()):
        if number % 5:  # any five in turn differ in their channels
            continue
        for spec in dispatch.kernels(case.op, "cpu"):
            if not spec.reasons(case.problem, dispatch.device_info(case.problem)):
                print(spec.name, case.id, flush=True)
                run(spec.name, case, side, rng)
                count += 1
    print(f"passed {count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
