"""What the tests of CUDA kernels share: their plans, run on NumPy arrays in the emulator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS, Binding, CudaInfo, KernelSpec
from fastconv.cuda_device import MODELS
from fastconv.kernels.cuda.gemm import blocking
from fastconv.kernels.cuda.gemm import plan as gemm_plan
from fastconv.kernels.cuda.gemm.tile import tiles_for
from helpers import Tensors, nan_output
from problem_matrix import problem

KERNELS = dispatch.kernels(op="conv", device="cuda")
DEVICE = MODELS["T4"]
SMALL_PROBLEMS = [
    each.with_(device="cuda")
    for each in (
        problem((5, 19), (6, 35), 3, padding=1),
        problem((16, 24), (8, 16), 1, batch=2),
        problem((6, 9), (9, 35), 3, padding=2, dilation=2, stride=2, groups=3),
        problem((17, 33), (37,), 1),
        problem((5, 10), (9, 31), 3, padding=1, groups=5),
        problem((8, 20), (6, 13), 3, padding=1, layout="channels_last"),
    )
]

MakePlan = Callable[[ConvProblem, Binding, CudaInfo], Any]


def planner(spec: KernelSpec) -> MakePlan:
    module, _, function = spec.target.partition(":")
    make: MakePlan = getattr(import_module(module), function)
    return make


def supported(problems: Iterable[ConvProblem]) -> list[Any]:
    """Every pair of a kernel and a problem that it runs, for parametrize."""
    pairs = [(s, each) for s in KERNELS for each in problems if not s.reasons(each, DEVICE)]
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].line()}") for pair in pairs]


def thread_orders(rng: np.random.Generator) -> tuple[str | int, ...]:
    """The orders of threads and blocks in which kernels are tested; the last is a random one."""
    return "forward", "reverse", int(rng.integers(1 << 31))


def convolve(
    make: MakePlan, of: ConvProblem, t: Tensors, *, epilogue: bool, activation: Any = None,
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Run a plan as `fastconv.conv2d` would, into an output full of NaN."""
    out = nan_output(of) if out is None else out
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    if alpha is None:
        alpha = 0.0 if name is None else ACTIVATIONS[name].default
    residual = t.residual if epilogue else None
    strides = None if residual is None else residual.strides
    binding = Binding(t.x.strides, t.weight.strides, out.strides, strides, name, alpha)
    plan = make(of, binding, DEVICE)
    plan.run(t.x, plan.pack(t.weight), t.bias if epilogue else None, residual, out)
    return out


def forced(tile: int, parts: int) -> MakePlan:
    """Plans of one tile and a reduction in so many parts, or as many as it has panels."""

    def make(of: ConvProblem, binding: Binding, device: CudaInfo) -> Any:
        size = tiles_for(of.dtype)[tile]
        panels = -(-math.prod(of.weight_shape[1:]) // size.bk)
        each = -(-panels // parts)
        split = blocking.Split(
            size,
            -(-of.batch * math.prod(of.out_size) // size.bn),
            -(-(of.out_channels // of.groups) // size.bm),
            panels,
            -(-panels // each),
        )
        return gemm_plan.plan_split(of, binding, split)

    return make
