"""Every registered CUDA kernel on every problem of the matrix, on NumPy arrays in the emulator.

As in `test_kernels` the tests are generated from the registry. The kernels are called through
their plans: the memory of a call is NumPy's, everything else is what a GPU would run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "numba_cuda", reason="CUDA kernels need numba-cuda: pip install '.[cuda-audit]'"
)

from fastconv import dispatch
from fastconv.cuda_device import MODELS
from fastconv.kernels import reference
from fastconv.kernels.cuda import blocking, implicit_gemm
from fastconv.kernels.cuda.tile import tiles_for
from fastconv.problem import ConvProblem
from fastconv.spec import ACTIVATIONS, Binding, CudaInfo, KernelSpec
from helpers import (
    Tensors,
    assert_close,
    assert_exact,
    bits,
    expected,
    gaussians,
    in_layout,
    memory_orders,
    nan_output,
    small_integers,
)
from problem_matrix import matrix, problem

KERNELS = dispatch.kernels(op="conv", device="cuda")
DEVICE = MODELS["T4"]
MATRIX = [each.with_(device="cuda") for each in matrix() if each.batch > 0]
EPILOGUES = (None, "relu", ("leaky_relu", 0.25), "relu6")  # exact on small integers
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


def convolve(
    make: MakePlan, of: ConvProblem, t: Tensors, *, epilogue: bool, activation: Any = None,
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Run a plan as `fastconv.conv2d` would, into an output full of NaN."""
    out = nan_output(of) if out is None else out
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    alpha = ACTIVATIONS.get(name, 0.0) if alpha is None else alpha
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
        return implicit_gemm.plan_split(of, binding, split)

    return make


@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_small_integers_are_exact(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors, make = small_integers(each, rng), planner(spec)
    activation = EPILOGUES[(sum(each.in_size) + each.out_channels) % len(EPILOGUES)]
    for epilogue, name in ((False, None), (True, activation)):
        result = convolve(make, each, tensors, epilogue=epilogue, activation=name)
        truth = expected(each, tensors, epilogue=epilogue, activation=name)
        if spec.exact:
            assert_exact(result, truth, str(name))
        else:
            sums = expected(each, tensors, epilogue=epilogue)
            assert_close(result, truth, spec.tolerance[each.dtype], str(name), sums)


@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_random_values_are_within_tolerance(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    activation = list(ACTIVATIONS)[sum(each.in_size) % len(ACTIVATIONS)]
    fused = convolve(planner(spec), each, tensors, epilogue=True, activation=activation)
    sums = expected(each, tensors, epilogue=True)
    truth = reference.activate(sums, activation)
    assert_close(fused, truth, spec.tolerance[each.dtype], activation, sums)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_every_activation_and_a_nan_in_it(
    spec: KernelSpec, each: ConvProblem, activation: str, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    tensors.residual *= 8  # reach the saturated ends as well
    tensors.residual[(0,) * (each.ndim + 2)] = np.nan
    actual = convolve(planner(spec), each, tensors, epilogue=True, activation=activation)
    sums = expected(each, tensors, epilogue=True)
    truth = reference.activate(sums, activation)
    assert_close(actual, truth, spec.tolerance[each.dtype], activation, sums)


def shifted(array: np.ndarray) -> np.ndarray:
    """The same values and strides, one element away from where a load of 128 bits may begin."""
    memory = np.zeros(array.nbytes + 32, np.uint8)
    first = -memory.ctypes.data % 16 + array.itemsize
    moved = np.ndarray(array.shape, array.dtype, memory, first, array.strides)
    moved[...] = array
    return moved


@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_every_memory_order(spec: KernelSpec, each: ConvProblem, rng: np.random.Generator) -> None:
    tensors, make = gaussians(each, rng), planner(spec)
    truth = expected(each, tensors, epilogue=True)
    outputs = memory_orders(np.full(each.out_shape, np.nan, tensors.x.dtype))
    for name in memory_orders(tensors.x):
        if (
            name == "unaligned"
        ):  # no array of a device begins within an element, but within 16 bytes
            now = dataclasses.replace(tensors, x=shifted(tensors.x))
            result = convolve(make, each, now, epilogue=True)
            assert_close(result, truth, spec.tolerance[each.dtype], name)
            continue
        now = dataclasses.replace(
            tensors,
            **{
                argument: memory_orders(getattr(tensors, argument))[name]
                for argument in ("x", "weight", "residual")
            },
        )
        out = outputs[name] if outputs[name].flags.writeable else None
        result = convolve(make, each, now, epilogue=True, out=out)
        assert_close(result, truth, spec.tolerance[each.dtype], name)


# The halves are stored differently and share the arithmetic of float32: their smallest tile will do.
@pytest.mark.parametrize(
    ("dtype", "tile"),
    [
        *(("float32", tile) for tile in range(4)),
        *(("float64", tile) for tile in range(2)),
        ("float16", 3),
        ("bfloat16", 3),
    ],
)
@pytest.mark.parametrize("parts", [1, 3])
def test_every_tile_and_split_of_the_implicit_gemm(
    dtype: str, tile: int, parts: int, rng: np.random.Generator
) -> None:
    for each in (SMALL_PROBLEMS[0], SMALL_PROBLEMS[-1]):
        each = each.with_(dtype=dtype)
        tensors = small_integers(each, rng)
        results = {
            bits(convolve(forced(tile, parts), each, tensors, epilogue=True)) for _ in range(2)
        }
        truth = expected(each, tensors, epilogue=True)
        assert results == {bits(in_layout(truth.astype(tensors.x.dtype), each.layout))}


def test_loaders_are_chosen_where_samples_lie_side_by_side() -> None:
    loaders = {
        "pixels": problem((16, 24), (8, 16), 1, batch=2),
        "channels": problem((8, 20), (6, 13), 3, padding=1, layout="channels_last"),
        "single": problem((16, 24), (7, 9), 1),
    }
    for loader, each in loaders.items():
        x = in_layout(np.zeros(each.x_shape, np.float32), each.layout)
        binding = Binding(x.strides, (), ())
        assert implicit_gemm.choose_loader(each, binding) == loader
        shifted = Binding((x.strides[0] + 4, *x.strides[1:]), (), ())
        assert implicit_gemm.choose_loader(each, shifted) == "single"


def test_problems_beyond_32_bit_indices_and_the_grid_are_refused() -> None:
    (spec,) = (each for each in KERNELS if each.name == "cuda.implicit_gemm")
    huge = problem((64, 64), (9000, 9000), 3, padding=1).with_(device="cuda")
    assert spec.reasons(huge, DEVICE) == [
        "indexes in 32 bits; the input has 5184000000 elements",
        "indexes in 32 bits; the output has 5184000000 elements",
    ]
    assert "at most 65535" in spec.reasons(
        problem((70000, 70000), (4,), 3, groups=70000).with_(device="cuda"), DEVICE
    )[0]  # fmt: skip
    assert "add up to 301" in spec.reasons(
        problem((1, 1), (400, 9), (300, 1)).with_(device="cuda"), DEVICE
    )[0]  # fmt: skip
