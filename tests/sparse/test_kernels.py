"""Every registered sparse CPU kernel on every problem of the matrix.

The tests are generated from the registry, so a new kernel is tested with no new test code.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.errors import NoKernelError
from fastconv.contract.sparse_problem import OPERANDS
from fastconv.contract.spec import ACTIVATIONS, KernelSpec, SparseBinding
from fastconv.kernels.cpu.runtime import plan as cpu_plan
from fastconv.kernels.cpu.sparse.specs import SPECS
from helpers import assert_close, assert_exact, bits, run_child
from sparse_matrix import (
    DOWN,
    EXACT_ACTIVATIONS,
    SMALL,
    Case,
    activated,
    make_plan,
    matrix,
    operands,
    run_plan,
    split_activation,
    sums,
    supported_pairs,
)

MATRIX = matrix()


@pytest.fixture(autouse=True)
def helpers_for_small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small problems run on as many threads as they are given."""
    monkeypatch.setattr(cpu_plan, "_SERIAL_MACS", 0)


def refusals(spec: KernelSpec, case: Case) -> list[str]:
    """The sentences for which a kernel cannot run a case."""
    reasons = list(spec.reasons(case.problem, cpu_info()))
    if case.dtype not in spec.tolerance:
        reasons.append(f"has no {case.dtype} code, only {', '.join(spec.tolerance)}")
    return reasons


def supported(cases: list[Case]) -> list[Any]:
    return supported_pairs(SPECS, cases, refusals)


def run(
    spec: KernelSpec, case: Case, t: dict[str, Any], activation: Any = None, threads: int = 1,
    flush: bool = True,
) -> np.ndarray:  # fmt: skip
    """The kernel's answer."""
    device, weight = dataclasses.replace(cpu_info(), threads=threads), t.get("weight")
    name, alpha = split_activation(activation)
    binding = SparseBinding(() if weight is None else weight.strides, name, alpha, flush)
    return run_plan(make_plan(spec, case.problem, binding, device), case, t)


def activation_of(case: Case, choices: tuple[Any, ...]) -> Any:
    """A different activation from case to case of a convolution, the same in every run."""
    if case.op != "sparse_conv":
        return None
    return choices[(case.out_channels + (case.rows or 0)) % len(choices)]


def test_every_operator_has_a_kernel_for_every_case() -> None:
    assert {spec.op for spec in SPECS} == set(OPERANDS)
    for case in MATRIX:
        assert any(spec.op == case.op and not refusals(spec, case) for spec in SPECS), case.id


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_a_kernel_says_of_a_problem(spec: KernelSpec) -> None:
    device = cpu_info()
    cases = [case for case in MATRIX if case.op == spec.op]
    assert sum(not refusals(spec, case) for case in cases) >= 10
    for case in cases:
        sentences = refusals(spec, case)
        assert all(len(sentence.split()) > 2 for sentence in sentences), sentences
        if not sentences:
            assert 0 < spec.cost(case.problem, device) < 1
            assert spec.workspace(case.problem, device) >= 0


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_refused_problems_raise_the_kernels_own_sentences(spec: KernelSpec) -> None:
    refused = [case for case in MATRIX if case.op == spec.op and refusals(spec, case)]
    for case in refused[:20]:
        with dispatch.use_kernel(spec.name), pytest.raises(NoKernelError) as caught:
            dispatch.make_plan(case.problem, SparseBinding())
        for sentence in (spec.name, *refusals(spec, case)):
            assert sentence in str(caught.value), case.id


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
@pytest.mark.parametrize("side", ["before", "after"])
def test_nothing_outside_the_arrays_is_touched(side: str) -> None:
    # The time limit is for a child that hangs: most of its time goes into compiling.
    child = run_child("sparse_guard_child.py", side, timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ")
    assert int(last[0].split()[1]) > 50


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "case"), supported(MATRIX))
def test_whole_numbers_are_exact_for_any_number_of_threads(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    t = operands(case, rng, whole=True)
    activation = activation_of(case, EXACT_ACTIVATIONS)
    truth = activated(sums(case, t), activation)
    for threads in (1, 2, 3):
        assert_exact(run(spec, case, t, activation, threads), truth, f"{threads} threads")


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "case"), supported(MATRIX))
def test_random_numbers_are_within_tolerance_and_the_same_bits(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    t = operands(case, rng, whole=False)
    activation = activation_of(case, (None, *ACTIVATIONS))
    if activation is not None:
        activation = (activation, ACTIVATIONS[activation].default)
    before = sums(case, t)
    found = run(spec, case, t, activation)
    assert_close(found, activated(before, activation), spec.tolerance[case.dtype], case.id, before)
    for threads in (2, 3):
        assert bits(run(spec, case, t, activation, threads)) == bits(found), f"{threads} threads"


@pytest.mark.parametrize(
    ("spec", "case"),
    supported([Case(of, rows, 17, 17, op=op) for op in OPERANDS if "max_pool" in op
               for of, rows in ((SMALL, None), (DOWN, 60))]),
)  # fmt: skip
def test_maxima_keep_nan_and_infinity(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    t = operands(case, rng, whole=True)
    for value in (np.nan, np.inf, -np.inf):
        t["x"][rng.random(t["x"].shape) < 0.1] = value
    if case.op == "sparse_max_pool_grad":
        pool = dataclasses.replace(case, op="sparse_max_pool")
        t["out"] = sums(pool, t).astype(t["out"].dtype)
    truth = sums(case, t)
    assert case.op.endswith("grad") or np.isnan(truth).any()
    assert_exact(run(spec, case, t), truth)


@pytest.mark.parametrize(("spec", "case"), supported([
    case for op in OPERANDS for case in
    [each for each in MATRIX if each.op == op and each.dtype == "float32"][:60:21]  # and depthwise
]))  # fmt: skip
def test_nothing_is_flushed_where_the_binding_says_so(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    """Whole multiples of a denormal number, so that all but quotients are exact."""
    unit = np.float32(1e-41)
    t = operands(case, rng, whole=True)
    tiny = {"sparse_avg_pool_grad": ("grad_out",), "sparse_max_pool_grad": ("grad_out",)}
    for name in tiny.get(case.op, ("x", "bias")):
        if t.get(name) is not None:
            t[name] = t[name] * unit
    truth = sums(case, t)
    for threads in (1, 2):
        result = run(spec, case, t, threads=threads, flush=False).astype(np.float64)
        assert np.abs(result - truth).max(initial=0) <= np.finfo(np.float32).smallest_subnormal
