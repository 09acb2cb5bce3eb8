"""How two convolutions in a row are computed: by bands, whose middle stays in a cache.

Each band is two dense calls, prepared by `fastconv.calls`, so each gets the kernel that is fastest
for its sizes; bands of one kind share them. The middle lies in memory that calls borrow again and
again: where it is small there is one band, and the pair costs no more than its two calls.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, empty_output
from ..calls import CONV, PreparedCall, prepare
from ..contract import first_use
from ..contract.arguments import Activation
from ..contract.pair_problem import Band, PairProblem
from ..contract.problem import ConvProblem
from ..contract.spec import dense_strides
from ..recall import recall
from .pair_checks import Arguments

__all__ = ["PairOperands", "PreparedPair", "plan_pair"]

_Index = tuple[slice, ...]
_Kind = tuple[Any, ...]
_ALL = slice(None)
#: Bands whose steps a prepared pair holds; those of more are made again in each call.
_MOST_STEPS = 64


class PairOperands(NamedTuple):
    """What a call of a pair is given, `out` apart.

    Parameters
    ----------
    weights, biases : tuple of (ndarray or None)
        Of the first and the second convolution.
    arguments : tuple of tuple
        See `pair_checks.Arguments`.
    activations : tuple of activation
        After each.
    tune : bool
        As for `fastconv.conv2d`, as the caller gave it.
    """

    weights: tuple[Array, Array]
    biases: tuple[Array | None, Array | None]
    arguments: Arguments
    activations: tuple[Activation, Activation]
    tune: Any


class _Calls(NamedTuple):
    """The two calls of a kind of bands, and the number of the weight's order of each.

    The first is None where all of the middle is kept or is zeros.
    """

    first: PreparedCall | None
    second: PreparedCall
    orders: tuple[int, int]


class _Step(NamedTuple):
    """One band: its calls, and where they read and write.

    `moved` are rows of the middle that the last band made and this one reads again: from and to.
    `whole` says that the band is all there is: small calls save the time that slices take.
    """

    samples: _Index
    moved: tuple[_Index, _Index] | None
    fresh: _Index
    middle: _Index
    outputs: _Index
    whole: bool
    calls: _Calls


def _step(problem: PairProblem, band: Band, before: int, calls: _Calls) -> _Step:
    """Return one band's step; the last one's middle began at the row `before`."""
    images = slice(0, band.images.stop - band.images.start)
    rows, kept = band.middle.stop - band.middle.start, band.kept
    moved = None
    if kept:
        start = band.middle.start - before
        moved = (images, _ALL, slice(start, start + kept)), (images, _ALL, slice(0, kept))
    return _Step(
        (band.images, _ALL, band.samples),
        moved,
        (images, _ALL, slice(kept, rows)),
        (images, _ALL, slice(0, rows)),
        (band.images, _ALL, band.outputs),
        problem.is_one(band),
        calls,
    )


def _steps(problem: PairProblem, calls: Mapping[_Kind, _Calls]) -> Iterator[_Step]:
    before = 0
    for band in problem.bands():
        yield _step(problem, band, before, calls[band.kind])
        before = band.middle.start


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """Everything about a call of a pair but its data.

    Parameters
    ----------
    problem : PairProblem
        What is computed.
    calls : mapping
        The calls of each kind of bands; none where there is nothing to compute.
    steps : tuple of _Step or None
        The bands, where they are not too many.
    orders : (tuple of PreparedCall, tuple of PreparedCall)
        For each convolution, calls that between them have every order of its weight.
    middle_shape, middle_strides : tuple of int
        Of the middle of a band.
    packing : hashable
        Name of the packed weights: calls with equal `packing` share them.
    """

    problem: PairProblem
    calls: Mapping[_Kind, _Calls]
    steps: tuple[_Step, ...] | None = ()
    orders: tuple[tuple[PreparedCall, ...], tuple[PreparedCall, ...]] = ((), ())
    middle_shape: tuple[int, ...] = ()
    middle_strides: tuple[int, ...] = ()
    packing: Hashable = None

    @property
    def kernel(self) -> str:
        """Names of the kernels."""
        names = [call.kernel for orders in self.orders for call in orders]
        return ", ".join(dict.fromkeys(names))

    def pack(self, weights: tuple[Array, Array]) -> tuple[tuple[Any, ...], ...]:
        """Return both weights in every order that is wanted."""
        return tuple(
            tuple(call.pack(weight) for call in orders)
            for orders, weight in zip(self.orders, weights, strict=True)
        )

    def recall(self, weights: tuple[Array, Array]) -> tuple[tuple[Any, ...], ...]:
        """Return the same, remembered where these weights came before."""
        return tuple(
            tuple(
                recall.find(call.packing, weight, call.pack)
                if call.remembers
                else call.pack(weight)
                for call in orders
            )
            for orders, weight in zip(self.orders, weights, strict=True)
        )

    def run(
        self, x: Array, packed: tuple[tuple[Any, ...], ...],
        biases: tuple[Array | None, Array | None], residual: Array | None, out: Array | None,
    ) -> Array:  # fmt: skip
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.problem.out_shape, self.problem.layout)
        if not self.calls:
            return out
        steps: Iterable[_Step] = self.steps or _steps(self.problem, self.calls)
        scratch = first_use.load("fastconv.kernels.cpu.runtime.scratch")
        memory = scratch.borrow(math.prod(self.middle_shape) * x.dtype.itemsize)
        try:
            middle: Array = np.ndarray(self.middle_shape, x.dtype, memory, 0, self.middle_strides)
            for step in steps:
                _run_step(step, middle, x, packed, biases, residual, out)
        finally:
            scratch.give_back(memory)
        return out


def _run_step(
    step: _Step, middle: Array, x: Array, packed: tuple[tuple[Any, ...], ...],
    biases: tuple[Array | None, Array | None], residual: Array | None, out: Array,
) -> None:  # fmt: skip
    samples, moved, fresh, read, outputs, whole, (first, second, orders) = step
    if whole and first is not None:
        first.run(x, packed[0][orders[0]], biases[0], None, middle)
        second.run(middle, packed[1][orders[1]], biases[1], residual, out)
        return
    if moved is not None:
        middle[moved[1]] = middle[moved[0]]
    if first is not None:
        first.run(x[samples], packed[0][orders[0]], biases[0], None, middle[fresh])
    added = None if residual is None else residual[outputs]
    second.run(middle[read], packed[1][orders[1]], biases[1], added, out[outputs])


def plan_pair(
    problem: PairProblem, x: Array, given: PairOperands, residual: Array | None, out: Array | None,
    packed: bool,
) -> PreparedPair:  # fmt: skip
    """Prepare the calls of every kind of bands; arguments are as for `pair_calls.prepare_pair`."""
    if math.prod(problem.out_shape) == 0:
        return PreparedPair(problem, {})
    kinds = {band.kind: band for band, _ in problem.kinds()}
    images = max(band.images.stop - band.images.start for band in kinds.values())
    rows = max(band.middle.stop - band.middle.start for band in kinds.values())
    _, channels, _, *rest = problem.second.x_shape
    shape = (images, channels, rows, *rest)
    planner = _Planner(problem, x, given, residual, out, packed, shape)
    calls = {kind: planner.calls(band) for kind, band in kinds.items()}
    steps = tuple(_steps(problem, calls)) if problem.band_count <= _MOST_STEPS else None
    orders = tuple(planner.orders[0].values()), tuple(planner.orders[1].values())
    packing = tuple(planner.orders[0]), tuple(planner.orders[1])
    return PreparedPair(problem, calls, steps, orders, shape, planner.middle.strides, packing)


class _Planner:
    """Prepares the calls of bands, and numbers the orders of weights that they want."""

    def __init__(
        self, problem: PairProblem, x: Array, given: PairOperands, residual: Array | None,
        out: Array | None, packed: bool, shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.problem, self.given, self.packed = problem, given, packed
        self.x, self.residual = x, residual
        self.out = empty_output(x, problem.out_shape, problem.layout) if out is None else out
        strides = dense_strides(shape, problem.itemsize, problem.second.layout == "channels_last")
        # What is measured reads the middle as it is: no denormal numbers, please.
        memory = np.zeros(max(1, math.prod(shape) * problem.itemsize), np.uint8)
        self.middle: Array = np.ndarray(shape, x.dtype, memory, 0, strides)
        self.orders: tuple[dict[Hashable, PreparedCall], ...] = {}, {}

    def calls(self, band: Band) -> _Calls:
        """Return the calls of a band, which are those of every band of its kind."""
        images = slice(0, band.images.stop - band.images.start)
        rows, kept = band.middle.stop - band.middle.start, band.kept
        first = None
        if rows > kept:
            samples = self.x[band.images, :, band.samples]
            fresh = self.middle[images, :, kept:rows]
            first = self._call(0, self.problem.first, band.first_padding, samples, None, fresh)
        read, outputs = self.middle[images, :, :rows], (band.images, _ALL, band.outputs)
        added = None if self.residual is None else self.residual[outputs]
        second = self._call(
            1, self.problem.second, band.second_padding, read, added, self.out[outputs]
        )
        return _Calls(first, second, (self._order(0, first), self._order(1, second)))

    def _call(
        self, number: int, of: ConvProblem, padding: tuple[int, int], x: Array,
        residual: Array | None, out: Array,
    ) -> PreparedCall:  # fmt: skip
        given = self.given
        arguments = of.stride, (padding, *of.padding[1:]), of.dilation, of.groups
        call: PreparedCall = prepare(
            CONV, self.problem.ndim, x, given.weights[number], given.biases[number], arguments,
            given.activations[number], residual, out, self.packed, given.tune,
        )  # fmt: skip
        return call

    def _order(self, number: int, call: PreparedCall | None) -> int:
        """Return the number of a call's order of the weight among those of its convolution."""
        if call is None:
            return 0
        orders = self.orders[number]
        orders.setdefault(call.packing, call)
        return list(orders).index(call.packing)
