"""Depthwise convolution with input and kernel in each other's place, for kernels that reach it all.

Where every output reaches every input, a kernel has (2 n - 1)^2 taps for a map of n x n, of which
each output meets n^2: the others lie on padding. Turned round, the kernel is the image and the
input slides over it, so that only the products that count are made::

    y[i] = sum over s of x[n - 1 - s] * I[i + s]           I[j] = w[n - 1 + p - j], no padding

    27x27 taps on 14x14: 196 products an output instead of 729

I is the packed weight. For each image of the batch the input is packed as a kernel, reversed, and
the window kernels (depthwise.py) do the rest. Wins on the last stages of networks with very large
kernels (RepLKNet, SLaK), whose maps are smaller than their kernels.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, ConvPlan, DeviceInfo

__all__ = ["SwappedPlan", "plan", "reaches_all", "swap", "workspace"]


def reaches_all(problem: ConvProblem) -> bool:
    """Return whether every output reaches every input, with a stride and dilation of 1."""
    axes = zip(problem.out_size, problem.padding, problem.kernel_size, problem.in_size, strict=True)
    return max(*problem.stride, *problem.dilation) == 1 and all(
        o - 1 <= low <= k - n for o, (low, _), k, n in axes
    )


def swap(problem: ConvProblem) -> ConvProblem:
    """Return the problem of one image with the kernel as its input."""
    sizes = zip(problem.out_size, problem.in_size, strict=True)
    return problem.with_(
        batch=1, in_size=tuple(o + n - 1 for o, n in sizes), kernel_size=problem.in_size,
        padding=((0, 0),) * problem.ndim, layout="channels_first",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SwappedPlan:
    """The kernel made ready for one problem and one binding.

    Parameters
    ----------
    problem : ConvProblem
        What is computed.
    window : ConvPlan
        For the swapped problem.
    """

    problem: ConvProblem
    window: ConvPlan

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order."""
        return ("swapped", self.problem.in_size, self.problem.padding)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return the kernels as images: reversed, without the taps that reach nothing."""
        p = self.problem
        reach = (
            slice(low - o + 1, low + n)
            for o, (low, _), n in zip(p.out_size, p.padding, p.in_size, strict=True)
        )
        reached = weight[(slice(None), slice(None), *reach)]
        return np.flip(reached, tuple(range(2, weight.ndim))).swapaxes(0, 1).copy()

    def run(
        self,
        x: NDArray[Any],
        packed: NDArray[Any],
        bias: NDArray[Any] | None,
        residual: NDArray[Any] | None,
        out: NDArray[Any],
    ) -> None:
        """Compute into `out`."""
        kernels = np.flip(x, tuple(range(2, x.ndim)))
        for n in range(x.shape[0]):
            extra = None if residual is None else residual[n : n + 1]
            kernel = self.window.pack(kernels[n])
            self.window.run(packed, kernel, bias, extra, out[n : n + 1])


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    from . import depthwise

    return int(depthwise.workspace(swap(problem), device))


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> SwappedPlan:
    """Prepare the kernel for one problem and one binding."""
    from . import depthwise

    swapped = swap(problem)
    size = {"float64": 8, "float32": 4}.get(problem.dtype, 2)
    strides = [size]
    for length in reversed((swapped.in_channels, *swapped.in_size)):
        strides.insert(0, strides[0] * length)
    kernel = (binding.x_strides[1], 0, *(-step for step in binding.x_strides[2:]))
    window = Binding(
        tuple(strides), kernel, binding.out_strides, binding.residual_strides,
        binding.activation, binding.alpha,
    )  # fmt: skip
    return SwappedPlan(problem, depthwise.plan(swapped, window, device))
