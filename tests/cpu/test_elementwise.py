"""Formulas of element-wise operations, by the interpreter, against their definitions in float64.

Outputs start as NaN, and so does scratch memory.
"""

from __future__ import annotations

import doctest
import sys
from typing import Any

import numpy as np
import pytest

from fastconv.contract import formula
from fastconv.contract.errors import ArgumentError
from fastconv.contract.formula import OPERANDS, Formula, Operation
from fastconv.contract.settings import get_num_threads, set_num_threads
from fastconv.kernels.cpu.elementwise import program
from fastconv.kernels.cpu.elementwise.plan import plan_formula
from fastconv.kernels.reference import elementwise as definitions
from fastconv.kernels.reference.elementwise import ELEMENTWISE, elementwise
from helpers import DTYPES, memory_orders, run_child

#: Pairs of shapes that broadcast: to runs shorter than a vector, no multiple of one, many tiles.
SHAPES = [
    ((7,), (7,)), ((), (1, 1)), ((300,), (1,)), ((5, 3), ()), ((2, 33, 1, 1), (2, 33, 7, 9)),
    ((4, 1500, 3), (3,)), ((2, 3, 4, 5, 6), (3, 1, 5, 1)), ((40000,), (40000,)),
    ((64, 70), (64, 1)), ((3, 1, 777), (1, 50, 777)), ((2049,), (2049,)),
]  # fmt: skip
#: Operations on numbers that are not below zero.
POSITIVE = {"pow", "log", "sqrt"}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -3.7, 88.5, -88.5, 120.0, -800.0, 1e-30, 3e30,
                    np.inf, -np.inf, np.nan])  # fmt: skip


def compute(made: Formula, arrays: list[Any], out: Any, flush: bool = True) -> Any:
    """What the interpreter writes over NaN."""
    out[...] = np.nan
    strides = [np.broadcast_to(each, out.shape).strides for each in arrays]
    dtype = out.dtype.name
    plan = plan_formula(made, dtype, out.shape, [*strides, out.strides], flush)
    assert plan is not None
    plan.run(*arrays, out)
    return out


def one(name: str) -> Formula:
    """The formula of a single operation."""
    count = OPERANDS[name]
    return Formula(count, (), (Operation(name, tuple(range(count))),))


def assert_near(name: str, made: Any, arrays: list[Any]) -> None:
    """Compare with the definition: some units in the last place, and subnormals may be zero.

    An error of the logarithm counts as often in a power as the exponent says. Halves are computed
    in float32 and rounded once, by half a unit.
    """
    wanted = elementwise(one(name), arrays)
    kind = np.finfo(made.dtype) if made.dtype.kind == "f" else None
    half = made.dtype.itemsize == 2
    unit = 2.0**-7 if kind is None else float(kind.eps)
    least = 2.0**-126 if kind is None else float(kind.smallest_subnormal if half else kind.tiny)
    units = np.array(0.52 if half else 5.0)
    if name == "pow":
        x, y = (np.asarray(each, np.float64) for each in arrays)
        with np.errstate(all="ignore"):
            grown = np.abs(y * np.log(x))
        units = units + (0 if half else 2) * np.where(np.isfinite(grown), grown, 0)
    with np.errstate(all="ignore"):
        bound = units * unit * np.abs(wanted) + least
        error = np.abs(made.astype(np.float64) - wanted)
        same = made == wanted.astype(made.dtype)  # infinities, and what is too large
    same |= np.isnan(wanted) & np.isnan(made)
    wrong = ~(same | (error <= bound))
    assert not wrong.any(), (name, made[wrong][:3], wanted[wrong][:3])


@pytest.mark.parametrize("module", [formula, program, definitions])
def test_the_examples_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERANDS)
def test_an_operation(name: str, dtype: str, rng: np.random.Generator) -> None:
    for shapes in SHAPES:
        arrays = []
        for shape in shapes[: OPERANDS[name]]:
            drawn = 3 * rng.standard_normal(shape)
            drawn = np.abs(drawn) if name in POSITIVE else drawn
            arrays.append(np.asarray(drawn, DTYPES[dtype]))
        out = np.empty(np.broadcast_shapes(*(each.shape for each in arrays)), DTYPES[dtype])
        assert_near(name, compute(one(name), arrays, out), arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERANDS)
def test_what_is_no_usual_number(name: str, dtype: str) -> None:
    x, y = SPECIAL[:, None].astype(dtype), SPECIAL.astype(dtype)
    if name == "pow":  # of a number that is not below zero, by one that is not whole
        x, y = np.abs(x), np.array([0.3, 2.2, -1.7], dtype)
    arrays = [x, y][: OPERANDS[name]]
    out = np.empty(np.broadcast_shapes(*(each.shape for each in arrays)), dtype)
    assert_near(name, compute(one(name), arrays, out), arrays)


def test_denormals_where_they_count(rng: np.random.Generator) -> None:
    x = np.ldexp(rng.uniform(1, 2, 50), -140).astype(np.float32)
    out = np.empty_like(x)
    np.testing.assert_array_equal(compute(one("abs"), [x], out, flush=False), x)
    np.testing.assert_allclose(compute(one("log"), [x], out, flush=False), np.log(x), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 17, 40, 33), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_orders(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    fused = Formula(3, (2.0,), (Operation("mul", (0, 1)), Operation("add", (4, 2)),
                                Operation("sub", (5, 3))))  # fmt: skip
    sizes = [shape, (shape[1], 1, shape[3]), shape]
    arrays = [rng.integers(-9, 10, each).astype(dtype) for each in sizes]
    wanted = elementwise(fused, arrays)
    orders = [memory_orders(each) for each in arrays]
    for name in orders[0]:
        given = [each[name] for each in orders]
        np.testing.assert_array_equal(compute(fused, given, np.empty(shape, dtype)), wanted)
        if name != "read_only":
            out = memory_orders(np.zeros(shape, dtype))[name]
            np.testing.assert_array_equal(compute(fused, arrays, out), wanted)
    wide = memory_orders(np.zeros(shape, dtype))["sliced"]
    compute(fused, arrays, wide)
    around = wide.base if wide.base.shape != shape else wide
    assert np.isnan(around.astype(np.float64)).sum() == around.size - wide.size


@pytest.mark.parametrize("seed", range(12))
def test_long_formulas(seed: int) -> None:
    """Whole numbers that stay exact, in formulas that need more tiles than there are registers."""
    rng = np.random.default_rng(seed)
    count, numbers = int(rng.integers(1, 8)), tuple(map(float, rng.integers(-9, 10, seed % 3)))
    names = ("add", "sub", "max", "min", "neg", "abs")
    operations: list[Operation] = []
    known = count + len(numbers)
    for _ in range(int(rng.integers(1, 20))):
        name = names[rng.integers(len(names))]
        operands = tuple(int(each) for each in rng.integers(0, known, OPERANDS[name]))
        operations.append(Operation(name, operands))
        known += 1
    made = Formula(count, numbers, tuple(operations))
    shape = (3, 5, 700)
    arrays = [
        rng.integers(-9, 10, [size if rng.random() < 0.7 else 1 for size in shape]).astype(
            np.float32
        )
        for _ in range(count)
    ]
    out = np.empty(shape, np.float32)
    wanted = np.broadcast_to(elementwise(made, arrays), shape)
    np.testing.assert_array_equal(compute(made, arrays, out), wanted)


def test_more_axes_than_there_is_room_for() -> None:
    assert plan_formula(one("neg"), "float32", (2,) * 10, [tuple(3**k for k in range(10))] * 2) is (
        None
    )


def test_any_number_of_threads(rng: np.random.Generator) -> None:
    gate = Formula(2, (1.5,), (Operation("sigmoid", (0,)), Operation("softplus", (1,)),
                               Operation("mul", (3, 4)), Operation("add", (5, 2))))  # fmt: skip
    shape = (40, 20011)
    arrays = [rng.standard_normal(shape), rng.standard_normal((40, 1))]
    before, made = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            for _ in range(3):
                made.append(compute(gate, arrays, np.empty(shape)).tobytes())
    finally:
        set_num_threads(before)
    assert len(set(made)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
@pytest.mark.parametrize("side", ["before", "after"])
def test_nothing_outside_the_arrays_is_touched(side: str) -> None:
    child = run_child("elementwise_guard_child.py", side, timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert int(last[0].removeprefix("passed ").split()[0]) > 50


@pytest.mark.parametrize(
    ("arrays", "operations", "message"),
    [
        (0, [("neg", (0,))], "want at least one of each"),
        (1, [], "got 0 operations on 1 arrays"),
        (1, [("sin", (0,))], "got 'sin' with 1 operands"),
        (1, [("add", (0,))], "got 'add' with 1 operands"),
        (1, [("neg", (1,))], "want values below 1"),
    ],
)
def test_a_formula_that_is_none(arrays: int, operations: list[Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Formula(arrays, (), tuple(Operation(*each) for each in operations))


def test_every_operation_has_code_and_a_definition() -> None:
    from fastconv.kernels.cpu.elementwise.functions import CODES

    assert set(OPERANDS) == set(CODES) == set(ELEMENTWISE)
