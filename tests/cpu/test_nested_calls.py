"""A call that is made in the midst of another one, in the same thread.

A signal handler, a finaliser or a weak reference's callback runs between any two bytecodes, and may
convolve. Here it does so before and after every piece of machine code that a call runs. The kernels
come from the registry, so a new one is tested with no new test code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.sparse_problem import OPERANDS
from fastconv.contract.spec import KernelSpec, SparseBinding
from fastconv.kernels.cpu.runtime import pool
from fastconv.kernels.cpu.sparse.specs import SPECS
from fastconv.sparse.rulebook import Rulebook
from helpers import assert_close, bits, expected, functional, gaussians, nan_output, refusals
from problem_matrix import matrix, problem
from sparse_matrix import DOWN, SCAN, SMALL, Case, operands, rulebook, sites, sums

KERNELS = dispatch.kernels(op="conv", device="cpu")
#: Problems of each kernel; the first ones that it runs.
EACH = 4
PROBLEMS = (
    problem((33, 40), (30, 33), 3, padding=1, batch=2),
    problem((33, 40), (20, 33), 3, padding=1, layout="channels_last"),
    problem((17, 17), (40, 50), 9, padding=4, groups=17),
    problem((5, 9), (600,), 16, padding=8),
    problem((16, 40), (30, 33), 3, stride=2, padding=1, dtype="float16"),
    problem((8, 8), (30, 33), 3, dilation=2, padding=2, groups=8),
)
CASES = tuple(
    Case(of, rows, 33, 33, groups, op=op)
    for op in OPERANDS
    for groups in ((1, 33) if op in ("sparse_conv", "sparse_weight_grad") else (1,))
    for of, rows in ((SCAN, 400), (DOWN, 200))
)


class Interruption:
    """Makes a call before and after every piece of machine code that another one runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> None:
        self.calls = 0
        self._call, self._inside, self._run = call, False, pool.run
        monkeypatch.setattr(pool, "run", self._interrupted)

    def _interrupted(self, *job: Any) -> None:
        self._interrupt()
        self._run(*job)
        self._interrupt()

    def _interrupt(self) -> None:
        if self._inside:
            return
        self._inside = True
        try:
            self._call()
            self.calls += 1
        finally:
            self._inside = False


def dense() -> list[Any]:
    """Every kernel with some problems that it runs, for parametrize."""
    pairs = []
    for spec in KERNELS:
        able = [each for each in (*PROBLEMS, *matrix()) if not refusals(spec, each)]
        pairs += [(spec, each) for each in able[:EACH]]
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].line()}") for pair in pairs]


@pytest.mark.parametrize(("spec", "each"), dense())
def test_dense_calls(
    spec: KernelSpec, each: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, others = gaussians(each, rng), gaussians(each, rng)
    with dispatch.use_kernel(spec.name):
        alone = functional(each, tensors, epilogue=True, out=nan_output(each))
        other = functional(each, others, out=None)
        found: list[bytes] = []
        interruption = Interruption(
            monkeypatch, lambda: found.append(bits(functional(each, others, out=None)))
        )
        result = functional(each, tensors, epilogue=True, out=nan_output(each))
    assert interruption.calls
    truth = expected(each, tensors, epilogue=True)
    assert_close(result, truth, spec.tolerance[each.dtype], "interrupted")
    assert bits(result) == bits(alone)
    assert set(found) == {bits(other)}


def separable() -> list[Any]:
    """Every kernel that runs outer products in two passes, with a problem of each element type."""
    problems = [
        problem((3, 3), (70, 90), 17, padding=8, groups=3, batch=2, dtype=dtype)
        for dtype in ("float32", "float64")
    ]
    return [
        pytest.param(spec, each, id=f"{spec.name}-{each.line()}")
        for spec in KERNELS
        for each in problems
        if not spec.exact and not refusals(spec, each)
    ]


@pytest.mark.parametrize(("spec", "each"), separable())
def test_separable_filters(
    spec: KernelSpec, each: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, others = gaussians(each, rng), gaussians(each, rng)
    for t in (tensors, others):
        t.weight[...] = np.hanning(19)[1:-1, None] * np.hanning(19)[1:-1]
    with dispatch.use_kernel(spec.name):
        alone = functional(each, tensors, out=None)
        interruption = Interruption(monkeypatch, lambda: functional(each, others, out=None))
        assert bits(functional(each, tensors, out=None)) == bits(alone)
    assert interruption.calls


def sparse() -> list[Any]:
    """Every sparse kernel with some cases that it runs, for parametrize."""
    device = cpu_info()
    return [
        pytest.param(spec, case, id=f"{spec.name}-{case.id}")
        for spec in SPECS
        for case in CASES
        if spec.op == case.op and not spec.reasons(case.problem, device)
    ]


def run_sparse(spec: KernelSpec, case: Case, t: dict[str, Any]) -> np.ndarray:
    """The kernel's answer for the arrays of `operands`."""
    weight = t.get("weight")
    binding = SparseBinding(() if weight is None else weight.strides)
    module, _, function = spec.target.partition(":")
    plan = getattr(importlib.import_module(module), function)(case.problem, binding, cpu_info())
    arrays = [plan.pack(weight) if name == "packed" else t[name] for name in OPERANDS[case.op]]
    arrays[-1] = np.full_like(arrays[-1], np.nan)
    book = None if case.op.startswith("sparse_global") else rulebook(case.geometry, case.rows)
    plan.run(book, *arrays)
    return arrays[-1]


@pytest.mark.parametrize(("spec", "case"), sparse())
def test_sparse_calls(
    spec: KernelSpec, case: Case, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, others = operands(case, rng, whole=False), operands(case, rng, whole=False)
    alone, other = run_sparse(spec, case, t), bits(run_sparse(spec, case, others))
    found: list[bytes] = []
    interruption = Interruption(
        monkeypatch, lambda: found.append(bits(run_sparse(spec, case, others)))
    )
    result = run_sparse(spec, case, t)
    assert interruption.calls
    assert_close(result, sums(case, t), spec.tolerance[case.dtype], "interrupted")
    assert bits(result) == bits(alone)
    assert set(found) == {other}


@pytest.mark.parametrize("geometry", [SCAN, DOWN, SMALL], ids=lambda each: each.kind)
def test_rulebooks(geometry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = sites(geometry, 30), sites(geometry, None)

    def build(indices: np.ndarray) -> tuple[bytes, ...]:
        book = Rulebook.build(geometry, indices)
        parts = (book.neighbours, book.order, *book.pair_lists, *book.hash_table)
        return tuple(map(bits, (*parts, book.reverse().neighbours)))

    alone, other = build(here), build(there)
    found: list[tuple[bytes, ...]] = []
    interruption = Interruption(monkeypatch, lambda: found.append(build(there)))
    assert build(here) == alone
    assert interruption.calls > 5
    assert set(found) == {other}
