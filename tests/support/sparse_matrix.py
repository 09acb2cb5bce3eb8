"""The sparse problems that every sparse kernel is tested on, their arrays, and the right answers.

Families vary one thing at a time around awkward sizes: channels that divide no vector, kernels
without a centre, none to all of the sites. The list is the same in every process. Rulebooks come
from the reference, so kernels are tested apart from what builds rulebooks; everything is NumPy's,
and whoever tests another device copies it there.
"""

from __future__ import annotations

import functools
import importlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fastconv.contract.geometry import Geometry
from fastconv.contract.sparse_problem import OPERANDS, SparseProblem
from fastconv.contract.spec import KernelSpec, SparseBinding
from fastconv.kernels import reference
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.sparse.rulebook import Rulebook
from helpers import DTYPES, bits

CHANNELS = (1, 3, 4, 16, 17, 33, 64, 65, 130)
ROWS = (0, 1, 2, 50, 700)
HALVES_AND_DOUBLE = ("float64", "float16", "bfloat16")
POOLS = tuple(op for op in OPERANDS if "pool" in op)
#: Exact on small whole numbers.
EXACT_ACTIVATIONS = (None, "relu", "relu6", ("leaky_relu", 0.25))


@dataclass(frozen=True)
class Case:
    """A geometry with some random sites, and an operator on them.

    `rows` is the number of sites, None for all of the grid's. Pools take `in_channels` only.
    """

    geometry: Geometry
    rows: int | None
    in_channels: int
    out_channels: int
    groups: int = 1
    dtype: str = "float32"
    bias: bool = True
    op: str = "sparse_conv"

    @property
    def id(self) -> str:
        """One word for pytest."""
        g = self.geometry
        sizes = "-".join(
            f"{letter}{'x'.join(map(str, values))}"
            for letter, values in (("k", g.kernel_size), ("s", g.stride), ("d", g.dilation))
        )
        channels = f"g{self.groups}ic{self.in_channels}oc{self.out_channels}"
        where = f"{g.kind[:4]}{g.ndim}-{sizes}-rows{self.rows}"
        return f"{self.op}-{where}-{channels}-{self.dtype}{'' if self.bias else '-nobias'}"

    @property
    def problem(self) -> SparseProblem:
        """What the dispatcher would be asked."""
        everything = self.op.startswith("sparse_global")
        book = rulebook(self.geometry, self.rows)
        return SparseProblem(
            op=self.op,
            in_rows=book.in_rows,
            out_rows=self.geometry.batch_size if everything else book.out_rows,
            pairs=book.in_rows if everything else book.pairs,
            kernel_size=() if everything else self.geometry.kernel_size,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            groups=self.groups,
            dtype=self.dtype,
        )


def geometry(
    kind: str,
    shape: tuple[int, ...],
    kernel: int | tuple[int, ...],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    batch: int = 2,
    output_padding: int = 0,
) -> Geometry:
    """A geometry with ints standing for "the same on each axis"."""
    ndim = len(shape)
    sizes = (kernel,) * ndim if isinstance(kernel, int) else kernel
    pads = ((padding, padding),) * ndim
    if kind == "submanifold":
        reach = [(size - 1) * dilation for size in sizes]
        pads = tuple((each // 2, each - each // 2) for each in reach)
    return Geometry(
        kind, shape, batch, sizes, (stride,) * ndim, (dilation,) * ndim, pads,
        (output_padding,) * ndim,
    )  # fmt: skip


def sites(of: Geometry, rows: int | None) -> np.ndarray:
    """Random sites in random order, none twice; the same in every run."""
    size = of.batch_size * math.prod(of.in_shape)
    rng = np.random.default_rng(zlib.crc32(repr((of, rows)).encode()))
    keys = rng.permutation(size)[: size if rows is None else rows]
    places = np.unravel_index(keys, (of.batch_size, *of.in_shape))
    return np.ascontiguousarray(np.stack(places, axis=1), np.int32)


@functools.cache
def rulebook(of: Geometry, rows: int | None) -> Rulebook:
    """The rulebook as the reference builds it."""
    indices = sites(of, rows)
    after, neighbours = reference_sparse.build(of, indices)
    return Rulebook(of, indices, after, neighbours, int((neighbours >= 0).sum()))


SCAN = geometry("submanifold", (12, 12, 12), 3)
DOWN = geometry("regular", (12, 12, 12), 2, stride=2)
SMALL = geometry("submanifold", (6, 6), 3)


def geometries() -> Iterator[tuple[Geometry, int | None]]:
    """Every rank, kind, kernel, stride and dilation, and every number of sites."""
    for rows in (*ROWS, None):
        yield (geometry("submanifold", (6, 7, 9), 3), rows if rows != 700 else 600)
    yield SCAN, 700
    for ndim in (1, 2, 3, 4):
        shape = (40,) if ndim == 1 else (7,) * ndim
        for kernel in (2, 3):
            yield geometry("submanifold", shape, kernel), 30
            yield geometry("regular", shape, kernel, stride=2, padding=1), 30
            yield geometry("transposed", shape, kernel, stride=2), 12
    for kernel in (1, 5, (3, 1, 2)):
        yield geometry("submanifold", (8, 8, 8), kernel), 200
    yield geometry("submanifold", (30, 30), 3, dilation=3), 200
    yield geometry("regular", (9, 10), 3, dilation=2, padding=2), 50
    yield geometry("regular", (9, 10, 11), 3, stride=3, padding=1), 200
    yield geometry("regular", (5,), 1, stride=5), 1  # reaches an output or none
    yield geometry("transposed", (6, 6), 3, stride=2, padding=1, output_padding=1), 20
    yield geometry("submanifold", (50, 60), 3), 700


def convolutions() -> Iterator[Case]:
    """Convolutions, and the gradients for their weights."""
    for i, (of, rows) in enumerate(geometries()):
        yield Case(of, rows, CHANNELS[i % 5], CHANNELS[-1 - i % 7], bias=i % 3 > 0)
        yield Case(of, rows, CHANNELS[i % 7], CHANNELS[i % 7], CHANNELS[i % 7], bias=i % 3 > 1)
    for i, channels in enumerate(CHANNELS):
        yield Case(SCAN, 400, channels, CHANNELS[i - 4])
        yield Case(SCAN, 400, channels, channels, channels)
        yield Case(DOWN, 300, CHANNELS[i - 2], channels, bias=False)
    for groups, channels, outputs in ((2, 4, 6), (3, 33, 3), (4, 64, 64), (5, 65, 130), (4, 4, 8)):
        yield Case(SCAN, 200, channels, outputs, groups)
    for dtype in HALVES_AND_DOUBLE:
        yield Case(SCAN, 300, 17, 33, dtype=dtype)
        yield Case(SMALL, 20, 64, 130, dtype=dtype, bias=False)
        yield Case(SMALL, 20, 6, 9, 3, dtype=dtype)
        yield Case(SCAN, 300, 33, 33, 33, dtype=dtype)
        yield Case(DOWN, 300, 130, 130, 130, dtype=dtype, bias=False)


def pools() -> Iterator[Case]:
    """Pools and their gradients."""
    for op in POOLS:
        for i, (of, rows) in enumerate(geometries()):
            channels = CHANNELS[i % 5]
            yield Case(of, rows, channels, channels, op=op)
        for channels in CHANNELS:
            yield Case(DOWN, 50, channels, channels, op=op)
        # Each compiles code of its own; a half is widened and rounded by the same means everywhere.
        for dtype in HALVES_AND_DOUBLE if op == "sparse_max_pool" else ("float64", "bfloat16"):
            yield Case(DOWN, 100, 17, 17, dtype=dtype, op=op)
            yield Case(SMALL, 20, 130, 130, dtype=dtype, op=op)


def matrix() -> list[Case]:
    """Every case of every operator, each once."""
    cases = list(convolutions())
    cases += [replace(case, op="sparse_weight_grad", bias=False) for case in cases]
    return list(dict.fromkeys([*cases, *pools()]))


def operands(case: Case, rng: np.random.Generator, whole: bool) -> dict[str, Any]:
    """The arrays of `OPERANDS` by name, `weight` for "packed"; the last one is full of NaN.

    `whole` numbers make every partial sum exact, so that any order of adding is; shares of averages
    are whole too.
    """
    book, dtype = rulebook(case.geometry, case.rows), DTYPES[case.dtype]
    everything = case.op.startswith("sparse_global")
    out_rows = case.geometry.batch_size if everything else book.out_rows

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(-4, 5, shape) if whole else rng.standard_normal(shape)

    x = draw(book.in_rows, case.in_channels).astype(dtype)
    out = np.full((out_rows, case.out_channels), np.nan, dtype)
    if everything:
        return {"x": x, "batches": np.ascontiguousarray(book.in_indices[:, 0]), "out": out}
    weight_shape = (case.out_channels, case.in_channels // case.groups, *case.geometry.kernel_size)
    if case.op == "sparse_conv":
        fan_in = 1 if whole else math.sqrt(math.prod(weight_shape[1:]))
        bias = draw(case.out_channels).astype(dtype) if case.bias else None
        weight = (draw(*weight_shape) / fan_in).astype(dtype)
        return {"x": x, "weight": weight, "bias": bias, "out": out}
    grad_out = draw(*out.shape)
    if case.op == "sparse_weight_grad":
        grad = np.full((*weight_shape[:2], case.geometry.volume), np.nan, dtype)
        return {"x": x, "grad_out": grad_out.astype(dtype), "weight_grad": grad}
    if case.op.endswith("pool"):
        return {"x": x, "out": out}
    grad_x = np.full(x.shape, np.nan, dtype)
    if case.op == "sparse_avg_pool_grad":
        counts = (book.neighbours >= 0).sum(0)[:, None] if whole else 1
        return {"grad_out": (grad_out * counts).astype(dtype), "grad_x": grad_x}
    largest = reference_sparse.max_pool(x, book.neighbours).astype(dtype)
    return {"x": x, "out": largest, "grad_out": grad_out.astype(dtype), "grad_x": grad_x}


def sums(case: Case, t: dict[str, Any]) -> np.ndarray:
    """The reference's float64 answer before any activation, for the arrays of `operands`."""
    book = rulebook(case.geometry, case.rows)
    table, truth = book.neighbours, reference_sparse
    answers: dict[str, Callable[[], np.ndarray]] = {
        "sparse_conv": lambda: truth.conv(t["x"], t["weight"], table, t["bias"], case.groups),
        "sparse_weight_grad": lambda: truth.weight_grad(t["x"], t["grad_out"], table, case.groups),
        "sparse_max_pool": lambda: truth.max_pool(t["x"], table),
        "sparse_max_pool_grad": lambda: truth.max_pool_grad(t["x"], t["out"], t["grad_out"], table),
        "sparse_avg_pool": lambda: truth.avg_pool(t["x"], table),
        "sparse_avg_pool_grad": lambda: truth.avg_pool_grad(t["grad_out"], table, book.in_rows),
        "sparse_global_max_pool": lambda: truth.global_max_pool(
            t["x"], t["batches"], case.geometry.batch_size
        ),
        "sparse_global_avg_pool": lambda: truth.global_avg_pool(
            t["x"], t["batches"], case.geometry.batch_size
        ),
    }
    return answers[case.op]()


def split_activation(activation: Any) -> tuple[str | None, float]:
    """The name and the parameter of an activation that may be a pair of both."""
    return activation if isinstance(activation, tuple) else (activation, 0.0)


def activated(values: np.ndarray, activation: Any) -> np.ndarray:
    """The reference's activation."""
    name, alpha = split_activation(activation)
    return reference.activate(values, name, alpha or None)


def supported_pairs(
    specs: Sequence[KernelSpec],
    cases: Sequence[Case],
    refusals: Callable[[KernelSpec, Case], list[str]],
) -> list[Any]:
    """Every pair of a kernel and a case that it does not refuse, for parametrize."""
    pairs = [
        (spec, case) for spec in specs for case in cases
        if spec.op == case.op and not refusals(spec, case)
    ]  # fmt: skip
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].id}") for pair in pairs]


def make_plan(spec: KernelSpec, problem: SparseProblem, binding: SparseBinding, device: Any) -> Any:
    """The plan that a kernel itself makes, past the dispatcher."""
    module, _, function = spec.target.partition(":")
    return getattr(importlib.import_module(module), function)(problem, binding, device)


def run_plan(plan: Any, case: Case, t: dict[str, Any]) -> np.ndarray:
    """A plan's answer, in an array that was full of NaN; all others must stay as they are."""
    book = None if case.op.startswith("sparse_global") else rulebook(case.geometry, case.rows)
    names = OPERANDS[case.op]
    arrays = [plan.pack(t["weight"]) if name == "packed" else t[name] for name in names]
    arrays[-1] = np.full_like(arrays[-1], np.nan)
    before = [array if array is None else array.copy() for array in arrays[:-1]]
    plan.run(book, *arrays)
    for name, array, copy in zip(names, arrays, before, strict=False):
        assert copy is None or bits(array) == bits(copy), f"{name} was written"
    return arrays[-1]
