"""Every kernel of an operator without a weight, on every problem of its matrix.

Outputs start as NaN and numbers are fresh in every run, which takes a part of the matrix. What is
compared with PyTorch is the reference, in float64: kernels are then compared with the reference.
"""

from __future__ import annotations

import sys
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from array_matrix import LINES, PLANAR, ROUNDED, draw, problems
from fastconv import dispatch
from fastconv.contract.array_problem import ARRAY_OPS, ArrayProblem
from fastconv.contract.problem import INTEGERS
from fastconv.contract.problem_line import parse_any_line
from fastconv.contract.settings import get_num_threads, set_num_threads
from fastconv.contract.spec import KernelSpec
from fastconv.kernels import reference
from helpers import (
    ALL_DTYPES,
    DTYPES,
    assert_close,
    assert_exact,
    bits,
    in_layout,
    memory_orders,
    run_child,
)

PROBLEMS = [of for op in LINES for of in problems(op)]
PAIRS = [
    (spec, of) for of in PROBLEMS for spec in dispatch.kernels(op=of.op, device="cpu")
]  # fmt: skip


def line(value: Any) -> str:
    return value.line() if isinstance(value, ArrayProblem) else value.name


def call(of: ArrayProblem, given: tuple[np.ndarray, ...], **more: Any) -> tuple[np.ndarray, ...]:
    """What the public function returns, as a tuple."""
    function = resolve_name(f"fastconv.{of.call().function}")
    args, keywords = of.arguments(given)
    result = function(*args, **keywords, **more)
    return result if isinstance(result, tuple) else (result,)


def truth(of: ArrayProblem, given: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    args, keywords = of.arguments(given)
    result = getattr(reference, of.op)(*args, **keywords)
    return result if isinstance(result, tuple) else (result,)


def run(spec: KernelSpec, of: ArrayProblem, given: tuple[np.ndarray, ...]) -> Any:
    """One kernel's outputs, the first into an array of NaN; skipped where it cannot run."""
    row = next(row for row in fastconv.explain(of).rows if row.kernel == spec.name)
    if row.milliseconds is None:
        pytest.skip(f"{spec.name}: {'; '.join(row.reasons)}")
    fill = 0xA5 if of.dtype in INTEGERS else np.nan
    out = np.full(of.out_shape, fill, ALL_DTYPES[of.dtype])
    out = in_layout(out, "channels_last") if of.layout == "channels_last" else out
    with dispatch.use_kernel(spec.name):
        made = call(of, given, out=out)
    assert made[0] is out
    return made


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "of"), PAIRS, ids=line)
def test_small_whole_numbers(spec: KernelSpec, of: ArrayProblem, rng: np.random.Generator) -> None:
    given = draw(of, rng, integers=True)
    for actual, wanted in zip(run(spec, of, given), truth(of, given), strict=True):
        if of.op in ROUNDED:
            assert_close(actual, wanted, spec.tolerance[of.dtype])
        else:
            assert_exact(actual, wanted)


@pytest.mark.matrix
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("spec", "of"), PAIRS, ids=line)
def test_random_numbers(
    spec: KernelSpec, of: ArrayProblem, dtype: str, rng: np.random.Generator
) -> None:
    if dtype not in spec.tolerance:
        pytest.skip(f"{spec.name} has no {dtype} code")
    of = of.with_(dtype=dtype)
    given = draw(of, rng, integers=False)
    for actual, wanted in zip(run(spec, of, given), truth(of, given), strict=True):
        assert_close(actual, wanted, spec.tolerance[dtype])


@pytest.mark.matrix
@pytest.mark.parametrize("of", PROBLEMS, ids=line)
def test_the_reference_is_pytorch_s(of: ArrayProblem, rng: np.random.Generator) -> None:
    function = getattr(torch.nn.functional, of.call().function, None)
    if function is None:
        pytest.skip(f"PyTorch has no functional form {of.call().function}")
    if of.op in PLANAR and len(of.in_size) != 2:
        pytest.skip(f"PyTorch has {of.op} for images alone")
    if any(step >= 1 << 31 for step in getattr(of, "stride", ())):
        pytest.skip("PyTorch's strides are numbers of 32 bits")
    of = of.with_(dtype="float64")
    given = draw(of, rng, integers=False)
    args, keywords = of.arguments([torch.from_numpy(np.ascontiguousarray(a)) for a in given])
    theirs = function(*args, **keywords)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for wanted, actual in zip(theirs, truth(of, given), strict=True):
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.matrix
@pytest.mark.parametrize("of", PROBLEMS, ids=line)
def test_bits_do_not_depend_on_threads(of: ArrayProblem, rng: np.random.Generator) -> None:
    given, before = draw(of, rng, integers=False), get_num_threads()
    made = []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            made.append([bits(each) for each in call(of, given)])
    finally:
        set_num_threads(before)
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("op", ARRAY_OPS)
def test_any_memory_order(op: str, rng: np.random.Generator) -> None:
    """Of the first problem's every input, and of the output: by name what `memory_orders` makes."""
    of = problems(op)[0]
    given = draw(of, rng, integers=True)
    wanted = [bits(each) for each in call(of, given)]
    for number, array in enumerate(given):
        for name, ordered in memory_orders(array).items():
            some = (*given[:number], ordered, *given[number + 1 :])
            assert [bits(each) for each in call(of, some)] == wanted, name
    for name, out in memory_orders(np.zeros(of.out_shape, DTYPES[of.dtype])).items():
        if name != "read_only":
            assert call(of, given, out=out)[0] is out
            assert bits(out) == wanted[0], name


@pytest.mark.parametrize("op", ARRAY_OPS)
def test_an_output_may_be_the_input(op: str, rng: np.random.Generator) -> None:
    of = next((of for of in problems(op) if of.x_shape == of.out_shape), None)
    if of is None:
        pytest.skip("no problem whose output is shaped as its input")
    given = draw(of, rng, integers=True)
    wanted = bits(call(of, given)[0])
    assert bits(call(of, given, out=given[0])[0]) == wanted


@pytest.mark.matrix
@pytest.mark.parametrize("of", PROBLEMS, ids=line)
def test_lines_and_explanations(of: ArrayProblem, rng: np.random.Generator) -> None:
    """A line comes back as its problem, and a call is explained as the same problem."""
    assert parse_any_line(of.line("a b"))[0] == of
    function = resolve_name(f"fastconv.{of.call().function}")
    args, keywords = of.arguments(draw(of, rng, integers=True))
    told = fastconv.explain(function, *args, **keywords)
    assert told.problem == of and told.chosen.startswith("cpu.")


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("op", ARRAY_OPS)
def test_nothing_outside_the_arrays_is_touched(op: str, side: str) -> None:
    child = run_child("array_guard_child.py", op, side, timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ") and int(last[0].split()[1]) >= len(LINES[op])
