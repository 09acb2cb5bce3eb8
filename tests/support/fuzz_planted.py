"""Operators with a fault each, for tests of the search: ``--ops fuzz_planted:NAME``.

They are convolutions by the reference, so that nothing is compiled.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np

import fastconv
from fastconv.contract.errors import ShapeError
from fastconv.fuzz.activations import as_parameter
from fastconv.fuzz.dense import DEFAULTS
from fastconv.fuzz.operators import Operator, operators
from fastconv.kernels import reference

CONV = operators()["conv1d"]
calls = 0


def right(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    if "out" not in CONV.shapes(params):
        raise ShapeError("weight: does not fit the input")
    given = dict(arrays)
    out = given.pop("out", None)
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    with np.errstate(all="ignore"):
        sums = CONV.truth(wide, params)
        told = as_parameter(params["activation"], sums, CONV.channels)
        result = reference.activate(sums, *told).astype(given["input"].dtype)
    if out is None:
        return result
    out[...] = result
    return out


def wrong(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """The last element is wrong where more than two filters meet more than one tap."""
    result = right(arrays, params)
    if params["filters"] * params["groups"] > 2 and params["kernel"] > 1 and result.size:
        result[(-1,) * result.ndim] += 1
    return result


def crash(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """An output of negative strides ends the process."""
    out = arrays.get("out")
    if out is not None and min(out.strides) < 0:
        ctypes.string_at(0)
    return right(arrays, params)


def outside(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """A dense row of more than four is written one element too far."""
    result = right(arrays, params)
    dense = result.ndim > 1 and result.strides[-1] == result.itemsize
    if "out" in arrays and dense and result.size and result.shape[-1] > 4:
        *_, last = np.ndindex(result.shape)
        place = sum(i * step for i, step in zip(last, result.strides, strict=True))
        address = result.ctypes.data + place + result.itemsize
        ctypes.memset(address, 0, 1)
    return result


def later(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """Each process computes a dozen cases rightly, and none after."""
    global calls
    calls += 1
    result = right(arrays, params)
    return result if calls < 40 else result + 1


def threaded(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """One element is rounded otherwise with two threads than with one."""
    result = right(arrays, params)
    if fastconv.get_num_threads() == 2 and result.size:
        first = (0,) * result.ndim
        result[first] = np.nextafter(result[first], result.dtype.type(np.inf))
    return result


def careless(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    """Nothing is checked, and what NumPy raises comes through."""
    return right(arrays, params)


def hang(arrays: dict[str, Any], params: dict[str, Any]) -> Any:
    while True:
        pass


def planted(function: Any, **changes: Any) -> Operator:
    plain = {
        "function": function, "make": None, "bad": {}, "problem": lambda arrays, params: None,
        "defaults": DEFAULTS,
    }  # fmt: skip
    return replace(CONV, name=function.__name__, group="planted", **{**plain, **changes})


OPERATORS = (
    *map(planted, (right, wrong, crash, outside, later, hang)),
    planted(threaded, problem=CONV.problem),
    planted(careless, bad={"input": "array", "out": "output"}),
)
