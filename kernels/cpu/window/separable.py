"""Separable kernels: a filter that is an outer product runs as a row pass and a column pass.

A Gaussian, a box or a Sobel filter has ``w = u v^T``: kw + kh products a pixel instead of kw * kh,
31x31 taps as 62 instead of 961. Whether a kernel is one depends on its values, which no choice of a
kernel sees: a problem has sizes only. So a plan that is worth it holds both ways, the test is part
of packing the weight, and what was packed says which way runs::

    pack: rank test, O(kh kw) a filter        w[i, j] * p = w[i, q] * w[p', j], p the largest
      u, v                                    for every filter of the layer, or
      the other kernel's packed weight        after the first filter's test: about 30 us
    run:  image by image
      x -> row pass (1 x kw) -> scratch -> column pass (kh x 1), bias, residual, activation

Both passes are depthwise convolutions (depthwise.py). Only plans of kernels that transform the
arithmetic hold this way (fast_fir/plan.py, fft/plan.py), so ``precision("exact")`` never takes it.

Whole numbers stay exact: their u and v are whole numbers again. Others are rounded once, so a
product u v differs from w by at most 1.5 units in the last place. A NaN or an infinity in the input
reaches the outputs of its window and no others.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, ConvPlan, DeviceInfo

from ..runtime.plan import CpuPlan, compute_dtype
from ..runtime.scratch import borrow_arrays, give_back
from . import depthwise

__all__ = ["SeparablePlan", "factors", "with_passes"]

#: Cross products may differ by so many units in the last place of the largest.
_UNITS = 4


def factors(filters: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Write every filter as an outer product.

    Parameters
    ----------
    filters : ndarray, shape (K, kh, kw)
        float32 or float64.

    Returns
    -------
    (u, v) or None
        Of shape (K, kh) and (K, kw), with ``u[k, i] * v[k, j] = filters[k, i, j]`` to rounding;
        None where some filter has a higher rank.
    """
    if len(filters) > 1 and factors(filters[:1]) is None:  # one filter tells of most layers
        return None
    wide = filters.astype(np.float64)
    if not np.all(np.isfinite(wide)):
        return None
    count, _, width = wide.shape
    largest, numbers = np.abs(wide).reshape(count, -1).argmax(axis=1), np.arange(count)
    row, column = largest // width, largest % width
    # Powers of two round nothing, and squares of filters of order one neither overflow nor vanish.
    _, order = np.frexp(wide[numbers, row, column])
    wide = np.ldexp(wide, -order[:, None, None])
    pivot = wide[numbers, row, column][:, None]
    u, v = wide[numbers, :, column], wide[numbers, row, :]
    unit = np.finfo(filters.dtype).eps * pivot[..., None] ** 2
    difference = np.abs(wide * pivot[..., None] - u[:, :, None] * v[:, None, :])
    if not np.all(difference <= _UNITS * unit):
        return None
    pivot[pivot == 0] = 1
    scale = pivot
    whole = np.ldexp(u, order[:, None])
    if np.all(filters == np.rint(filters)) and np.abs(filters).max() < 2**31:
        scale = np.gcd.reduce(whole.astype(np.int64), axis=1, keepdims=True).astype(np.float64)
        scale[scale == 0] = 1
        u, v = whole / scale, v * (scale / pivot)
    else:
        # Each factor takes half of the filter's order, so both stay as far from the ends as it.
        half = order // 2
        u = np.ldexp(u / pivot, half[:, None])
        v = np.ldexp(v, (order - half)[:, None])
    return u.astype(filters.dtype), v.astype(filters.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class SeparablePlan:
    """A plan that holds two passes beside a kernel for any weight.

    Parameters
    ----------
    whole : ConvPlan
        For weights that are no outer products.
    row_pass, column_pass : CpuPlan
        For one image of those that are.
    between : tuple of int
        Shape of what the row pass writes.
    """

    whole: ConvPlan
    row_pass: CpuPlan
    column_pass: CpuPlan
    between: tuple[int, ...]

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order: of each of the three, since values decide on one."""
        passes = (self.row_pass.packing, self.column_pass.packing)
        return ("separable", self.whole.packing, *passes)

    def pack(self, weight: NDArray[Any]) -> Any:
        """Return the packed weights of both passes, or that of the kernel for any weight."""
        vectors = factors(weight[:, 0])
        if vectors is None:
            return self.whole.pack(weight)
        u, v = vectors
        return (
            self.row_pass.pack(np.ascontiguousarray(v[:, None, None, :])),
            self.column_pass.pack(np.ascontiguousarray(u[:, None, :, None])),
        )

    def run(
        self,
        x: NDArray[Any],
        packed: Any,
        bias: NDArray[Any] | None,
        residual: NDArray[Any] | None,
        out: NDArray[Any],
    ) -> None:
        """Compute into `out`."""
        if not isinstance(packed, tuple):
            self.whole.run(x, packed, bias, residual, out)
            return
        rows, columns = packed
        memory, (between,) = borrow_arrays((self.between, self.row_pass.compute))
        try:
            for n in range(x.shape[0]):
                extra = None if residual is None else residual[n : n + 1]
                self.row_pass.run(x[n : n + 1], rows, None, None, between)
                self.column_pass.run(between, columns, bias, extra, out[n : n + 1])
        finally:
            give_back(memory)


def with_passes(
    whole: ConvPlan, problem: ConvProblem, binding: Binding, device: DeviceInfo
) -> ConvPlan:
    """Return a plan that runs separable weights in two passes and others by `whole`."""
    if (
        problem.ndim != 2
        or not problem.is_depthwise
        or problem.weight_dtype not in ("float32", "float64")
        or min(problem.kernel_size) < 3
    ):
        return whole
    size = np.dtype(compute_dtype(problem.dtype)).itemsize
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel_size, problem.stride, problem.dilation
    one = problem.with_(
        out_dtype="", batch=1, kernel_size=(1, kw), stride=(1, sw), dilation=(1, dw),
        padding=((0, 0), problem.padding[1]),
    )  # fmt: skip
    two = one.with_(
        in_channels=problem.out_channels, groups=problem.out_channels, in_size=one.out_size,
        kernel_size=(kh, 1), stride=(sh, 1), dilation=(dh, 1),
        padding=(problem.padding[0], (0, 0)), layout="channels_first",
        dtype=problem.weight_dtype, out_dtype=problem.out_dtype,
    )  # fmt: skip
    _, channels, height, width = one.out_shape
    dense = (channels * height * width * size, height * width * size, width * size, size)
    row_pass = Binding(binding.x_strides, (kw * size, kw * size, kw * size, size), dense)
    column_pass = Binding(
        dense, (kh * size, kh * size, size, size), binding.out_strides, binding.residual_strides,
        binding.activation, binding.alpha,
    )  # fmt: skip
    return SeparablePlan(
        whole,
        depthwise.plan(one, row_pass, device),
        depthwise.plan(two, column_pass, device),
        one.out_shape,
    )
