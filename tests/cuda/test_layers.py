"""Layers of ResNet-50 and MobileNet, and a dilated one, at full size by every CUDA kernel.

The truth is PyTorch's convolution in float64, since `kernels.reference` would take minutes; the
tests of the reference compare those two. Whole numbers make every sum exact.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from cuda_helpers import convolve, forced, planner, supported, thread_orders
from fastconv.bench import cases
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, KernelSpec
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.emulator import Checks
from fastconv.kernels.cuda.gemm import plan as gemm_plan
from helpers import Tensors, assert_close, assert_exact, geometry, in_layout, small_integers

SUITES = ("resnet50", "mobilenet_v1", "mobilenet_v2")
#: Those networks have no dilated layer.
DILATED = cases.select(cases.load("dilated"), "enet d8")
LAYERS = list(
    dict.fromkeys(
        case.problem.with_(device="cuda")
        for case in (*(case for suite in SUITES for case in cases.load(suite)), *DILATED)
    )
)
#: Most wavefronts of the banks that a store may take beyond the fewest possible.
MOST_CONFLICTS = 2


def torch_convolution(layer: ConvProblem, tensors: Tensors) -> np.ndarray:
    """PyTorch's answer in float64."""
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    given = (
        torch.from_numpy(array.astype(np.float64))
        for array in (tensors.x, tensors.weight, tensors.bias)
    )
    how = geometry(layer) | {"padding": tuple(low for low, _ in layer.padding)}
    sums: np.ndarray = torch.conv2d(*given, **how).numpy()
    return sums + tensors.residual


def test_padding_is_the_same_on_both_sides_as_pytorch_has_it() -> None:
    assert len(LAYERS) > 60
    assert all(low == high for layer in LAYERS for low, high in layer.padding)


@pytest.mark.parametrize(("spec", "layer"), supported(LAYERS))
def test_a_layer_at_full_size_in_every_order_of_threads(
    spec: KernelSpec, layer: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = small_integers(layer, rng)
    truth = torch_convolution(layer, tensors)
    for order in thread_orders(rng):
        with emulation(order=order):
            result = convolve(planner(spec), layer, tensors, epilogue=True)
        if spec.exact:
            assert_exact(result, truth, f"order {order}")
        else:
            assert_close(result, truth, spec.tolerance[layer.dtype], f"order {order}")


#: Layers of which every access is counted, in both memory orders.
COUNTED = [
    case.problem.with_(device="cuda", layout=layout)
    for case in cases.load("resnet50")[1::4]
    for layout in ("channels_first", "channels_last")
]


@pytest.mark.parametrize("tile", range(4))
@pytest.mark.parametrize("layer", COUNTED, ids=lambda layer: layer.line())
def test_stores_to_shared_memory_meet_few_conflicts(
    layer: ConvProblem, tile: int, rng: np.random.Generator
) -> None:
    tensors = small_integers(layer, rng)
    with emulation(checks=Checks.COUNTS) as reports:
        result = convolve(forced(tile, 1), layer, tensors, epilogue=True)
    assert_exact(result, torch_convolution(layer, tensors))
    product = reports[-1]
    stores = [each for each in product.accesses if (each.kind, each.space) == ("store", "shared")]
    assert stores and not product.uncounted
    for each in stores:
        assert each.conflicts <= MOST_CONFLICTS * each.requests, each


def test_the_counted_layers_load_samples_in_every_way() -> None:
    loaders = set()
    for layer in COUNTED:
        x = in_layout(np.zeros(layer.x_shape, np.float32), layer.layout)
        loaders.add(gemm_plan.choose_loader(layer, Binding(x.strides, (), ())))
    assert loaders == {"single", "pixels", "channels"}
