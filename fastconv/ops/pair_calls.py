"""How two convolutions in a row are called: checked once, then by what `pair_plan` prepared.

Bands and kernels are chosen as for one thread, so that the bits are the same for any number;
``tune=True`` measures with the threads at hand.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .. import tuning
from ..arrays import (
    Array,
    assign,
    check_writable,
    empty_twin,
    is_writable,
    require_array,
    shares_memory,
)
from ..companions import check_companion, check_memory
from ..contract.arguments import canonical_activation, flag, is_plain
from ..contract.errors import renamed
from ..contract.settings import config
from ..dense_problem import unbatch
from ..dispatch import settings, steady_choice
from ..packing import PackedWeights
from .pair_checks import (
    PairForm,
    canonical_pair,
    check_parameters,
    make_pair_problem,
)
from .pair_plan import PairOperands, PreparedPair, plan_pair
from .telling import asked, tell

__all__ = ["compute_pair", "prepare_pair"]

_prepared: dict[tuple[Any, ...], PreparedPair] = {}
_MOST_PREPARED = 4096
#: Types of arrays whose shape and strides are what they say.
_PLAIN = {np.ndarray}
_PLAIN_OR_NONE = {np.ndarray, type(None)}


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
            with renamed(names):
                made.append(canonical_activation(each))
        given = given._replace(activations=(made[0], made[1]))
    if type(given.tune) is not bool:
        given = given._replace(tune=flag("tune", given.tune))
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
    measured = given.tune or config.tune
    with contextlib.nullcontext() if measured else steady_choice():
        return plan_pair(problem, x, given, residual, out, packed)


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
    needed, optional = (x, *given.weights), (*given.biases, residual, out)
    if {*map(type, needed)} != _PLAIN or not {*map(type, optional)} <= _PLAIN_OR_NONE:
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
