"""The CUDA kernels: what each can run, what it is thought to cost, where its code is.

This table imports no compiler, so that explaining and choosing are cheap, and need no CUDA package.
"""

from __future__ import annotations

import math

from fastconv.problem import ConvProblem
from fastconv.spec import CudaInfo, KernelSpec, Tolerance

from . import blocking
from .geometry import MOST_ELEMENTS

__all__ = ["SPECS"]

# As on the CPU: sums in compute precision lose a few units in the last place of the largest output,
# the halves are rounded once at the end.
_TOLERANCE = {
    "float32": Tolerance(2e-6),
    "float64": Tolerance(4e-15),
    "float16": Tolerance(2.0**-11),
    "bfloat16": Tolerance(2.0**-8),
}


def _implicit_gemm_reasons(problem: ConvProblem, device: CudaInfo) -> list[str]:
    reasons = []
    arrays = {"input": problem.x_shape, "output": problem.out_shape, "weight": problem.weight_shape}
    for name, shape in arrays.items():
        if (count := math.prod(shape)) > MOST_ELEMENTS:
            reasons.append(f"indexes in 32 bits; the {name} has {count} elements")
    if blocking.mask_words(problem) is None:
        taps = sum(problem.kernel_size)
        reasons.append(f"has bits for 223 taps over all axes; the kernel's sizes add up to {taps}")
    if problem.groups > blocking.MOST_BLOCKS:
        reasons.append(
            f"runs a group in each layer of the grid, at most {blocking.MOST_BLOCKS}; "
            f"this has {problem.groups} groups"
        )
    return reasons


def _implicit_gemm_workspace(problem: ConvProblem, device: CudaInfo) -> int:
    splits = blocking.choose_split(problem, device).splits
    size = 8 if problem.dtype == "float64" else 4
    return splits * math.prod(problem.out_shape) * size if splits > 1 else 0


SPECS = (
    KernelSpec(
        name="cuda.implicit_gemm",
        op="conv",
        device="cuda",
        reasons=_implicit_gemm_reasons,
        cost=blocking.seconds,
        target="fastconv.kernels.cuda.implicit_gemm:plan",
        workspace=_implicit_gemm_workspace,
        tolerance=_TOLERANCE,
    ),
)
