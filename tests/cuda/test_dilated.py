"""Skipping taps on CUDA: lists that hold what each tile needs and no more, in the emulator too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from cuda_helpers import DEVICE, convolve
from fastconv.contract.problem import ConvProblem
from fastconv.contract.problem_line import parse_line
from fastconv.contract.spec import Binding, CudaInfo
from fastconv.cuda_device import MODELS
from fastconv.kernels.cuda import specs
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.emulator import ALL
from fastconv.kernels.cuda.gemm import dilated, dilated_costs
from fastconv.kernels.cuda.gemm.tile import BlockTile, tiles_for
from fastconv.kernels.taps import dilated_reasons
from helpers import DTYPES, assert_exact, expected, small_integers
from problem_matrix import float_matrix, problem

DILATED = [each for each in float_matrix() if each.batch > 0 and not dilated_reasons(each)]


def taps_in_reach(each: ConvProblem, pixel: int) -> set[int]:
    """The taps of a pixel that lie inside the input, from the definition."""
    _, *position = np.unravel_index(pixel, (each.batch, *each.out_size))
    found = set()
    for number, tap in enumerate(np.ndindex(*each.kernel_size)):
        where = [
            at * step - low + place * hole
            for at, step, (low, _), place, hole in zip(
                position, each.stride, each.padding, tap, each.dilation, strict=True
            )
        ]
        if all(0 <= at < size for at, size in zip(where, each.in_size, strict=True)):
            found.add(number)
    return found


def lists(each: ConvProblem, tile: BlockTile) -> list[list[int]]:
    """The panels of each tile, as the kernel reads them."""
    words = dilated_costs.schedule(each, tile).tolist()
    tiles = -(-each.batch * int(np.prod(each.out_size)) // tile.bn)
    return [words[at : words.index(dilated_costs.END, at)] for at in words[:tiles]]


@pytest.mark.parametrize("each", DILATED[::3], ids=lambda each: each.line())
def test_a_tile_has_the_panels_of_what_its_pixels_see_and_no_others(each: ConvProblem) -> None:
    tile = tiles_for(each.dtype)[-1]
    pixels = each.batch * int(np.prod(each.out_size))
    order = dilated_costs.pixel_order(each, tile.bn)
    assert sorted(order[:pixels]) == list(range(pixels))
    channels = each.in_channels // each.groups
    for number, panels in enumerate(lists(each, tile)):
        own = order[number * tile.bn : min(pixels, (number + 1) * tile.bn)]
        seen = set().union(*(taps_in_reach(each, int(pixel)) for pixel in own))
        steps = {tap * channels + channel for tap in seen for channel in range(channels)}
        assert panels == (sorted({step // tile.bk for step in steps}) or [0])


def test_more_than_a_third_of_the_panels_are_left_out() -> None:
    each = parse_line("mb16ic512ih33oc512kh3ph12dh11")[0]
    tile = tiles_for(each.dtype)[0]
    found = [len(panels) for panels in lists(each, tile)]
    all_panels = each.in_channels * 9 // tile.bk
    assert max(found) == all_panels and found[0] == all_panels
    # 57% of the products reach the input; tiles across two regions have a few more.
    assert 0.57 < sum(found) / (len(found) * all_panels) < 0.62


@pytest.mark.parametrize("gpu", MODELS)
def test_the_cost_counts_what_is_multiplied(gpu: str) -> None:
    each = parse_line("mb16ic512ih33oc512kh3ph12dh11")[0].with_(device="cuda")
    (work,) = specs.LAUNCHES["cuda.dilated"](each, MODELS[gpu])
    tile = dilated_costs.choose_tile(each, MODELS[gpu])
    panels = sum(len(panels) for panels in lists(each, tile)) * -(-512 // tile.bm)
    assert work.macs * work.blocks == pytest.approx(panels * tile.bm * tile.bn * tile.bk, rel=1e-6)
    dense = sum(
        each.macs * each.blocks for each in specs.LAUNCHES["cuda.implicit_gemm"](each, MODELS[gpu])
    )
    assert work.macs * work.blocks < 0.65 * dense


def of_tile(tile: BlockTile) -> Any:
    def make(each: ConvProblem, binding: Binding, device: CudaInfo) -> Any:
        return dilated.plan_tile(each, binding, dilated_costs.whole_split(each, tile))

    return make


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("dtype", "tile"),
    [(dtype, tile) for dtype in ("float32", "float64") for tile in tiles_for(dtype)],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_tile_under_every_check(
    dtype: str, tile: BlockTile, layout: str, rng: np.random.Generator
) -> None:
    kind = {"dtype": dtype, "layout": layout}
    for each in (
        problem((12, 40), (13, 17), 3, padding=6, dilation=6, batch=2, **kind),
        problem((10, 8), (9, 35), 3, padding=((9, 9), (2, 0)), dilation=(9, 2), groups=2, **kind),
    ):
        tensors = small_integers(each, rng)
        with emulation(checks=ALL) as reports:
            result = convolve(of_tile(tile), each, tensors, epilogue=True, activation="relu")
        assert reports[-1].kernel == "dilated"
        assert_exact(result, expected(each, tensors, epilogue=True, activation="relu"))


def test_weights_that_only_meet_padding_are_never_multiplied(rng: np.random.Generator) -> None:
    each = problem((16, 16), (30,), 3, padding=40, dilation=40)
    tensors = small_integers(each, rng)
    truth = expected(each, tensors)
    tensors.weight[..., [0, 2]] = np.nan
    result = convolve(dilated.plan, each, tensors, epilogue=False)
    assert_exact(result, truth)
    assert result.dtype == DTYPES[each.dtype] and dilated_costs.choose_tile(each, DEVICE)
