"""What the tests share: arrays for a problem, the reference's answer, and comparisons."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import fastconv
from fastconv.contract.problem import INTEGERS, ConvProblem
from fastconv.contract.spec import KernelSpec, Tolerance
from fastconv.kernels import reference

HERE = Path(__file__).resolve().parent

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
#: With those of convolutions' inputs and outputs.
ALL_DTYPES = DTYPES | {name: np.dtype(name) for name in INTEGERS}
FUNCTIONS = {1: fastconv.conv1d, 2: fastconv.conv2d, 3: fastconv.conv3d}
MODULES = {1: fastconv.Conv1d, 2: fastconv.Conv2d, 3: fastconv.Conv3d}


@dataclass
class Tensors:
    """The arrays of one call; `residual` has the output's shape."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    residual: np.ndarray


def in_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another memory order."""
    if layout == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    if layout == "strided":  # every second element of a wider array, so no axis is dense
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return array


def memory_orders(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same values over many memory orders."""
    fill = 0xA5 if array.dtype.name in INTEGERS else np.nan
    wide = np.full([3 * size + 1 for size in array.shape], fill, array.dtype)
    sliced = wide[tuple(slice(1, 3 * size, 3) for size in array.shape)]
    sliced[...] = array
    reverse = tuple(slice(None, None, -1) for _ in array.shape)
    read_only = array.copy()
    read_only.flags.writeable = False
    offset = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    offset[...] = array
    return {
        "fortran": np.asfortranarray(array),
        "sliced": sliced,
        "negative": np.ascontiguousarray(array[reverse])[reverse],
        "transposed": np.ascontiguousarray(array.swapaxes(0, -1)).swapaxes(0, -1),
        "channels_last": in_layout(array, "channels_last") if array.ndim > 1 else array,
        "read_only": read_only,
        "unaligned": offset,
    }


def _tensors(problem: ConvProblem, draw: Callable[[tuple[int, ...], str], np.ndarray]) -> Tensors:
    operands = {
        "x": (problem.x_shape, problem.dtype),
        "weight": (problem.weight_shape, problem.weight_dtype),
        "bias": ((problem.out_channels,), problem.weight_dtype),
        "residual": (problem.out_shape, problem.result_dtype),
    }
    arrays = {
        name: draw(shape, name).astype(ALL_DTYPES[dtype])
        for name, (shape, dtype) in operands.items()
    }
    for name in ("x", "residual"):
        arrays[name] = in_layout(arrays[name], problem.layout)
    return Tensors(**arrays)


def small_integers(problem: ConvProblem, rng: np.random.Generator) -> Tensors:
    """Arrays whose every partial sum is an exact float32, so any order of adding is exact."""
    least = {"uint8": 0, "uint16": 0}

    def draw(shape: tuple[int, ...], name: str) -> np.ndarray:
        dtype = {"x": problem.dtype, "residual": problem.result_dtype}.get(name, "")
        return rng.integers(least.get(dtype, -4), 5, shape)

    return _tensors(problem, draw)


def gaussians(problem: ConvProblem, rng: np.random.Generator) -> Tensors:
    """Standard normal input and weights scaled so that outputs are of order one.

    Integers are of their whole range, and so are some of the outputs.
    """
    fan_in = np.sqrt(np.prod(problem.weight_shape[1:]))

    def draw(shape: tuple[int, ...], name: str) -> np.ndarray:
        dtype = {"x": problem.dtype, "residual": problem.result_dtype}.get(name, "")
        if dtype in INTEGERS:
            limits = np.iinfo(dtype)
            return rng.integers(limits.min, limits.max + 1, shape)
        values = rng.standard_normal(shape)
        return values / fan_in if name == "weight" else values

    return _tensors(problem, draw)


def refusals(spec: KernelSpec, problem: ConvProblem) -> list[str]:
    """The sentences for which a kernel cannot run a problem, as `explain` tells them."""
    rows = fastconv.explain(problem).rows
    row = next(row for row in rows if row.kernel == spec.name)
    return row.reasons if row.milliseconds is None else []


def geometry(problem: ConvProblem) -> dict[str, Any]:
    """The keyword arguments that fastconv and the reference have in common."""
    return {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "groups": problem.groups,
    }


def expected(
    problem: ConvProblem, t: Tensors, *, epilogue: bool = False, activation: Any = None
) -> np.ndarray:
    """The reference's float64 answer; `epilogue` adds bias and residual."""
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    return reference.conv(
        t.x,
        t.weight,
        t.bias if epilogue else None,
        residual=t.residual if epilogue else None,
        activation=name,
        alpha=alpha,
        **geometry(problem),
    )


def functional(
    problem: ConvProblem, t: Tensors, *, epilogue: bool = False, activation: Any = None, out: Any
) -> np.ndarray:
    """`conv1d`, `conv2d` or `conv3d`."""
    return FUNCTIONS[problem.ndim](
        t.x,
        t.weight,
        t.bias if epilogue else None,
        residual=t.residual if epilogue else None,
        activation=activation,
        out=out,
        **geometry(problem),
        **_result(problem, out),
    )


def _result(problem: ConvProblem, out: Any) -> dict[str, str]:
    """The keyword for an output of another type than what follows from the input and `out`."""
    follows = not problem.out_dtype or (out is not None and problem.dtype in INTEGERS)
    return {} if follows else {"out_dtype": problem.out_dtype}


def packed(
    problem: ConvProblem, t: Tensors, *, epilogue: bool = False, activation: Any = None, out: Any
) -> np.ndarray:
    """The same through a `Conv1d`, `Conv2d` or `Conv3d` object."""
    layer = MODULES[problem.ndim](
        t.weight, t.bias if epilogue else None, activation=activation, **geometry(problem),
        **_result(problem, out),
    )  # fmt: skip
    return layer(t.x, residual=t.residual if epilogue else None, out=out)


CALLS = {"functional": functional, "packed": packed}


def nan_output(problem: ConvProblem) -> np.ndarray:
    """An output full of NaN, or 165, in the memory order that the problem's output has."""
    fill = 0xA5 if problem.result_dtype in INTEGERS else np.nan
    out = np.full(problem.out_shape, fill, ALL_DTYPES[problem.result_dtype])
    return in_layout(out, "channels_last") if problem.layout == "channels_last" else out


def assert_exact(actual: np.ndarray, truth: np.ndarray, what: str = "") -> None:
    """Every element equals the reference, rounded to the dtype of `actual`."""
    integers = actual.dtype.name in INTEGERS
    rounded = (
        reference.as_integers(truth, actual.dtype.name) if integers else truth.astype(actual.dtype)
    )
    np.testing.assert_array_equal(
        actual.astype(np.float64), rounded.astype(np.float64), err_msg=what, strict=True
    )


def assert_close(
    actual: np.ndarray,
    truth: np.ndarray,
    tolerance: Tolerance,
    what: str = "",
    before_activation: np.ndarray | None = None,
) -> None:
    """The largest error is within the tolerance; NaN and infinity lie where the truth has them.

    An activation makes values smaller and not the error of their sums, so an error is measured
    against the largest value that the activation was given, where that is told. Integers differ
    from what they are rounded from by half of one more.
    """
    assert actual.shape == truth.shape, what
    values = actual.astype(np.float64)
    half = 0.0
    if actual.dtype.name in INTEGERS:
        limits, half = np.iinfo(actual.dtype), 0.5
        before_activation = truth if before_activation is None else before_activation
        truth = np.clip(np.where(np.isnan(truth), 0.0, truth), limits.min, limits.max)
    finite = np.isfinite(truth)
    np.testing.assert_array_equal(values[~finite], truth[~finite], err_msg=what)
    largest = truth if before_activation is None else before_activation
    scale = np.max(np.abs(largest[finite]), initial=1.0)
    error = np.max(np.abs(values[finite] - truth[finite]), initial=0.0)
    assert error <= half + tolerance.relative * scale, (
        f"{what}: error {error:.3g} > {tolerance.relative:.3g} x {scale:.3g}"
    )


def bits(array: np.ndarray) -> bytes:
    """The array's values as bytes, for comparisons to the last bit."""
    return np.ascontiguousarray(array).tobytes()


def run_function(module: str, call: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a function of a test's module, by the module's file, in a fresh interpreter."""
    path = Path(module)
    code = (
        f"import sys; sys.path[:0] = {[str(path.parent), str(HERE)]!r}\n"
        f"import {path.stem} as module; module.{call}"
    )
    return _run_python("-c", code, timeout=timeout)


def run_child(
    script: str, *arguments: str, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder in a fresh interpreter; a hang is an error of its own."""
    return _run_python(str(HERE / script), *arguments, timeout=timeout, **environment)


def _run_python(
    *words: str, timeout: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
