"""Every registered CUDA kernel on every problem of the matrix, on NumPy arrays in the emulator.

As in `test_kernels` the tests are generated from the registry. The kernels are called through
their plans: the memory of a call is NumPy's, everything else is what a GPU would run. Threads and
blocks are taken in three orders, which must leave the same bits; the seed of the random order comes
from the test's generator and is shown with a failure.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from cuda_helpers import (
    DEVICE,
    KERNELS,
    SMALL_PROBLEMS,
    convolve,
    forced,
    planner,
    supported,
    thread_orders,
)
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS, Binding, KernelSpec
from fastconv.kernels import reference
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.gemm import blocking
from fastconv.kernels.cuda.gemm import plan as gemm_plan
from helpers import (
    assert_close,
    assert_exact,
    bits,
    expected,
    gaussians,
    in_layout,
    memory_orders,
    small_integers,
)
from problem_matrix import float_matrix, problem

MATRIX = [each.with_(device="cuda") for each in float_matrix() if each.batch > 0]
EPILOGUES = (None, "relu", ("leaky_relu", 0.25), "relu6")  # exact on small integers


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_small_integers_are_exact_in_every_order_of_threads(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors, make = small_integers(each, rng), planner(spec)
    activation = EPILOGUES[(sum(each.in_size) + each.out_channels) % len(EPILOGUES)]
    for epilogue, name in ((False, None), (True, activation)):
        truth = expected(each, tensors, epilogue=epilogue, activation=name)
        sums = expected(each, tensors, epilogue=epilogue)
        results = set()
        for order in thread_orders(rng):
            what = f"{name}, order {order}"
            with emulation(order=order):
                result = convolve(make, each, tensors, epilogue=epilogue, activation=name)
            if spec.exact:
                assert_exact(result, truth, what)
            else:
                assert_close(result, truth, spec.tolerance[each.dtype], what, sums)
            results.add(bits(result))
        assert len(results) == 1


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_random_values_are_within_tolerance(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    activation = list(ACTIVATIONS)[sum(each.in_size) % len(ACTIVATIONS)]
    sums = expected(each, tensors, epilogue=True)
    truth = reference.activate(sums, activation)
    results = set()
    for order in thread_orders(rng):
        what = f"{activation}, order {order}"
        with emulation(order=order):
            fused = convolve(planner(spec), each, tensors, epilogue=True, activation=activation)
        assert_close(fused, truth, spec.tolerance[each.dtype], what, sums)
        results.add(bits(fused))
    assert len(results) == 1


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


# The halves are stored differently and share the arithmetic of float32: one tile will do.
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
        assert gemm_plan.choose_loader(each, binding) == loader
        shifted = Binding((x.strides[0] + 4, *x.strides[1:]), (), ())
        assert gemm_plan.choose_loader(each, shifted) == "single"


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


def test_long_sums_are_split_and_single_sums_refused() -> None:
    """Equal products are the worst case of a running sum: each rounding falls the same way."""
    of = problem((2, 3), (90, 91), 90).with_(device="cuda")
    makers = {spec.name: planner(spec) for spec in KERNELS if not spec.reasons(of, DEVICE)}
    assert list(makers) == ["cuda.implicit_gemm"]
    longest = blocking.choose_split(of, DEVICE)
    assert longest.split_panels * longest.tile.bk <= blocking.LONGEST_SUM
    tensors = small_integers(of, np.random.default_rng(0))
    tensors.x[...], tensors.weight[...] = 0.77, 0.26
    result = convolve(makers["cuda.implicit_gemm"], of, tensors, epilogue=False)
    truth = float(tensors.x.flat[0]) * float(tensors.weight.flat[0]) * 2 * 90 * 90
    assert np.abs(result / truth - 1).max() <= 8e-5
    ordinary = problem((512, 512), (7, 7), 3, padding=1).with_(device="cuda")
    assert ordinary.macs // 7**2 // 512 <= blocking.LONGEST_SUM, "such layers stay whole"
