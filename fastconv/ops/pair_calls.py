"""How two convolutions in a row are called: by bands, whose middle stays in a cache.

Each band is two dense calls, prepared by `fastconv.calls`, so each gets the kernel that is fastest
for its sizes. The middle lies in memory that calls borrow again and again: where it is small there
is one band, and the pair costs no more than its two calls. Bands and kernels are chosen as for one
thread, so that the bits are the same for any number; ``tune=True`` measures with the threads at
hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import tuning
from ..arrays import (
    Array,
    assign,
    check_writable,
    empty_output,
    empty_twin,
    is_writable,
    require_array,
    shares_memory,
)
from ..calls import CONV, PreparedCall, prepare, unbatch
from ..companions import check_companion, check_memory
from ..contract import first_use
from ..contract.arguments import Activation, canonical_activation, flag, is_plain
from ..contract.pair_problem import Band, PairProblem
from ..contract.settings import config
from ..contract.spec import dense_strides
from ..dispatch import settings, steady_choice
from ..packing import PackedWeights
from ..recall import recall
from .array_calls import asked, tell
from .pair_checks import (
    Arguments,
    PairForm,
    canonical_pair,
    check_parameters,
    make_pair_problem,
    naming,
)

__all__ = ["PairOperands", "PreparedPair", "compute_pair", "prepare_pair"]

_Index = tuple[slice, ...]
_ALL = slice(None)


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
        As for `fastconv.conv2d`.
    """

    weights: tuple[Array, Array]
    biases: tuple[Array | None, Array | None]
    arguments: Arguments
    activations: tuple[Activation, Activation]
    tune: bool


class _Step(NamedTuple):
    """One band: where its two calls read and write, and the number of the weight's order of each.

    `moved` are rows of the middle that the last band made and this one reads again: from and to.
    """

    samples: _Index
    moved: tuple[_Index, _Index] | None
    fresh: _Index
    middle: _Index
    outputs: _Index
    first: PreparedCall | None
    second: PreparedCall
    orders: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """Everything about a call of a pair but its data.

    Parameters
    ----------
    steps : tuple of _Step
        The bands; none where there is nothing to compute.
    kinds : (tuple of PreparedCall, tuple of PreparedCall)
        For each convolution, calls that between them have every order of its weight.
    middle_shape, middle_strides : tuple of int
        Of the middle of a band.
    middle_bytes : int
        Its memory.
    out_shape : tuple of int
        Shape of the output.
    layout : str
        Memory order of an output that the call makes.
    packing : hashable
        Name of the packed weights: calls with equal `packing` share them.
    """

    steps: tuple[_Step, ...]
    kinds: tuple[tuple[PreparedCall, ...], tuple[PreparedCall, ...]]
    middle_shape: tuple[int, ...]
    middle_strides: tuple[int, ...]
    middle_bytes: int
    out_shape: tuple[int, ...]
    layout: str
    packing: Hashable

    @property
    def kernel(self) -> str:
        """Names of the kernels."""
        names = [call.kernel for kinds in self.kinds for call in kinds]
        return ", ".join(dict.fromkeys(names))

    def pack(self, weights: tuple[Array, Array]) -> tuple[tuple[Any, ...], ...]:
        """Return both weights in every order that is wanted."""
        return tuple(
            tuple(call.pack(weight) for call in kinds)
            for kinds, weight in zip(self.kinds, weights, strict=True)
        )

    def recall(self, weights: tuple[Array, Array]) -> tuple[tuple[Any, ...], ...]:
        """Return the same, remembered where these weights came before."""
        return tuple(
            tuple(
                recall.find(call.packing, weight, call.pack)
                if call.remembers
                else call.pack(weight)
                for call in kinds
            )
            for kinds, weight in zip(self.kinds, weights, strict=True)
        )

    def run(
        self, x: Array, packed: tuple[tuple[Any, ...], ...],
        biases: tuple[Array | None, Array | None], residual: Array | None, out: Array | None,
    ) -> Array:  # fmt: skip
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.out_shape, self.layout)
        if not self.steps:
            return out
        scratch = first_use.load("fastconv.kernels.cpu.runtime.scratch")
        memory = scratch.borrow(self.middle_bytes)
        try:
            middle: Array = np.ndarray(self.middle_shape, x.dtype, memory, 0, self.middle_strides)
            for step in self.steps:
                _run_step(step, middle, x, packed, biases, residual, out)
        finally:
            scratch.give_back(memory)
        return out


def _run_step(
    step: _Step, middle: Array, x: Array, packed: tuple[tuple[Any, ...], ...],
    biases: tuple[Array | None, Array | None], residual: Array | None, out: Array,
) -> None:  # fmt: skip
    samples, moved, fresh, read, outputs, first, second, orders = step
    if moved is not None:
        middle[moved[1]] = middle[moved[0]]
    if first is not None:
        first.run(x[samples], packed[0][orders[0]], biases[0], None, middle[fresh])
    added = None if residual is None else residual[outputs]
    second.run(middle[read], packed[1][orders[1]], biases[1], added, out[outputs])


_prepared: dict[tuple[Any, ...], PreparedPair] = {}
_MOST_PREPARED = 4096


def _signature(array: Array | None) -> tuple[Any, ...] | None:
    return None if array is None else (array.shape, array.strides, array.dtype)


def prepare_pair(
    form: PairForm, x: Array, given: PairOperands, residual: Array | None, out: Array | None,
    packed: bool,
) -> PreparedPair:  # fmt: skip
    """Return the prepared call of arrays of NumPy's own type, from memory where it is there."""
    first, second = given.weights
    first_bias, second_bias = given.biases
    if not packed:  # an object has them in this form
        given = _canonical(form, given)
    key = (
        form.name, x.shape, x.strides, x.dtype, first.shape, first.strides, first.dtype,
        second.shape, second.strides, second.dtype, given.arguments, given.activations,
        None if first_bias is None else (first_bias.shape, first_bias.dtype),
        None if second_bias is None else (second_bias.shape, second_bias.dtype),
        _signature(residual), _signature(out), out is None or is_writable(out),
        packed, given.tune, settings(),
    )  # fmt: skip
    prepared = None if asked() else _prepared.get(key)
    if prepared is None:
        prepared = _prepare(form, x, given, residual, out, packed)
        # A call that may have wanted to measure and could not is free to do so the next time.
        if not tuning.must_not_race():
            if len(_prepared) >= _MOST_PREPARED:
                _prepared.clear()
            _prepared[key] = prepared
    return prepared


def _canonical(form: PairForm, given: PairOperands) -> PairOperands:
    """Return what stands beside the arrays so that it is equal only where it means the same."""
    first, second = given.arguments
    if not (is_plain(first) and is_plain(second)):
        given = given._replace(arguments=canonical_pair(form, given.arguments))
    if any(each is not None and type(each) is not str for each in given.activations):
        made = []
        for names, each in zip(form.names, given.activations, strict=True):
            with naming(names):
                made.append(canonical_activation(each))
        given = given._replace(activations=(made[0], made[1]))
    return given


def _prepare(
    form: PairForm, x: Array, given: PairOperands, residual: Array | None, out: Array | None,
    packed: bool,
) -> PreparedPair:  # fmt: skip
    arguments = canonical_pair(form, given.arguments)
    check_parameters(form, given.weights, given.biases, arguments, given.activations)
    problem = make_pair_problem(form, x, given.weights, arguments)
    tell(problem)
    for name, array in (("residual", residual), ("out", out)):
        if array is not None:
            check_companion(name, array, problem.out_shape, x, "input")
            check_memory(name, array, form.name)
    if out is not None:
        check_writable("out", out)
    measured = flag("tune", given.tune) or config.tune
    if math.prod(problem.out_shape) == 0:
        return PreparedPair((), ((), ()), (), (), 0, problem.out_shape, problem.layout, None)
    with contextlib.nullcontext() if measured else steady_choice():
        return _Planner(problem, x, given, residual, out, packed).plan()


class _Planner:
    """Prepares the calls of every band."""

    def __init__(
        self, problem: PairProblem, x: Array, given: PairOperands, residual: Array | None,
        out: Array | None, packed: bool,
    ) -> None:  # fmt: skip
        self.problem, self.given, self.packed = problem, given, packed
        self.x, self.residual = x, residual
        self.out = empty_output(x, problem.out_shape, problem.layout) if out is None else out
        self.kinds: tuple[dict[Hashable, PreparedCall], ...] = {}, {}

    def plan(self) -> PreparedPair:
        """Return the prepared pair."""
        problem = self.problem
        bands = list(problem.bands())
        images, channels, _, *rest = problem.second.x_shape
        images = max(band.images.stop - band.images.start for band in bands)
        rows = max(band.middle.stop - band.middle.start for band in bands)
        shape = (images, channels, rows, *rest)
        last = problem.second.layout == "channels_last"
        strides = dense_strides(shape, problem.itemsize, last)
        size = math.prod(shape) * problem.itemsize
        # What is measured reads the middle as it is: no denormal numbers, please.
        middle: Array = np.ndarray(
            shape, self.x.dtype, np.zeros(max(1, size), np.uint8), 0, strides
        )
        steps, before = [], 0
        for band in bands:
            steps.append(self._step(band, before, middle))
            before = band.middle.start
        kinds = tuple(self.kinds[0].values()), tuple(self.kinds[1].values())
        packing = tuple(self.kinds[0]), tuple(self.kinds[1])
        return PreparedPair(
            tuple(steps), kinds, shape, strides, size, problem.out_shape, problem.layout, packing
        )

    def _step(self, band: Band, before: int, middle: Array) -> _Step:
        """Return one band's step; the last one's middle began at the row `before`."""
        images = slice(0, band.images.stop - band.images.start)
        rows, kept = band.middle.stop - band.middle.start, band.kept
        samples = (band.images, _ALL, band.samples)
        fresh, read = (images, _ALL, slice(kept, rows)), (images, _ALL, slice(0, rows))
        outputs = (band.images, _ALL, band.outputs)
        moved = None
        if kept:
            start = band.middle.start - before
            moved = (images, _ALL, slice(start, start + kept)), (images, _ALL, slice(0, kept))
        first = None
        if rows > kept:
            of = self.problem.first
            padding = band.first_padding, *of.padding[1:]
            told = of.stride, padding, of.dilation, of.groups
            first = self._call(0, self.x[samples], told, None, middle[fresh])
        of = self.problem.second
        padding = band.second_padding, *of.padding[1:]
        told = of.stride, padding, of.dilation, of.groups
        added = None if self.residual is None else self.residual[outputs]
        second = self._call(1, middle[read], told, added, self.out[outputs])
        orders = self._order(0, first), self._order(1, second)
        return _Step(samples, moved, fresh, read, outputs, first, second, orders)

    def _call(
        self, number: int, x: Array, arguments: tuple[Any, ...], residual: Array | None, out: Array
    ) -> PreparedCall:
        given = self.given
        call: PreparedCall = prepare(
            CONV, self.problem.ndim, x, given.weights[number], given.biases[number], arguments,
            given.activations[number], residual, out, self.packed, given.tune,
        )  # fmt: skip
        return call

    def _order(self, number: int, call: PreparedCall | None) -> int:
        """Return the number of a call's order of the weight among those of its convolution."""
        if call is None:
            return 0
        kinds = self.kinds[number]
        kinds.setdefault(call.packing, call)
        return list(kinds).index(call.packing)


def compute_pair(
    form: PairForm, x: Array, given: PairOperands, residual: Array | None, out: Array | None,
    kept: PackedWeights | None = None,
) -> Array:  # fmt: skip
    """Compute a call.

    Parameters
    ----------
    form : PairForm
        How the caller names arguments.
    x : ndarray
        The input, whose batch axis may be missing.
    given : PairOperands
        Weights, biases and what stands beside them.
    residual, out : ndarray or None
        As for `fastconv.conv2d`.
    kept : PackedWeights, optional
        Where the packed weights are kept; by default they are remembered as functional calls do.
    """
    arrays = (x, *given.weights, *given.biases, residual, out)
    if any(type(array) is not np.ndarray and array is not None for array in arrays):
        x, given, residual, target = _made_plain(form, x, given, residual, out)
        made = compute_pair(form, x, given, residual, target, kept)
        return made if out is None else out
    if x.ndim == 3:
        x, residual, target = unbatch(2, x, residual, out)
        result: Array = compute_pair(form, x, given, residual, target, kept)[0]
        return result if out is None else out
    call = prepare_pair(form, x, given, residual, out, kept is not None)
    if kept is None:
        packed = call.recall(given.weights)
    else:
        order, packed = kept.last
        if order is not call.packing or packed is None:
            packed = kept.find(call.packing, lambda: call.pack(given.weights))
    if out is not None and shares_memory(out, (x, *given.weights, *given.biases, residual)):
        assign(out, call.run(x, packed, given.biases, residual, empty_twin(out)))
        return out
    return call.run(x, packed, given.biases, residual, out)


def _made_plain(
    form: PairForm, x: Any, given: PairOperands, residual: Any, out: Any
) -> tuple[Array, PairOperands, Array | None, Array | None]:
    """Return what is given as arrays of NumPy's own type, else raise."""

    def known(name: str, array: Any) -> Any:
        array = require_array(name, array)
        check_memory(name, array, form.name)
        return array

    x = known("input", x)
    weights = (
        known(form.named(0, "weight"), given.weights[0]),
        known(form.named(1, "weight"), given.weights[1]),
    )
    first, second = (
        None if bias is None else known(form.named(number, "bias"), bias)
        for number, bias in enumerate(given.biases)
    )
    residual = None if residual is None else known("residual", residual)
    out = None if out is None else known("out", out)
    return x, given._replace(weights=weights, biases=(first, second)), residual, out
