"""Weights of depthwise layers with channels in the lanes: (channels / lanes, taps, lanes)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.settings import config
from fastconv.contract.spec import DeviceInfo, dense_binding
from fastconv.kernels.cpu.window.depthwise import plan
from helpers import DTYPES
from problem_matrix import problem


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("order", ["dense", "strided"])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 7), (31,), (3, 3, 3)])
def test_taps_of_a_vector_of_channels_lie_together(
    size: tuple[int, ...], order: str, dtype: str, rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Fewer taps than lanes, as many, and some beyond; lanes without a channel are zero."""
    monkeypatch.setattr(config, "poison_workspace", True)
    of = problem((37, 37), (9,) * len(size), size, groups=37, padding=tuple((n, n) for n in size))
    of = of.with_(layout="channels_last", dtype=dtype)
    weight = rng.standard_normal(of.weight_shape).astype(DTYPES[dtype])
    if order == "strided":
        weight = np.ascontiguousarray(weight.swapaxes(0, -1)).swapaxes(0, -1)
    device = dispatch.device_info(of)
    assert isinstance(device, DeviceInfo)
    binding = dataclasses.replace(dense_binding(of), weight_strides=weight.strides)
    made = plan(of, binding, device)
    packed = made.pack(weight)
    assert made.packing[0] == "pixels"
    lanes = device.lanes(of.compute_itemsize)
    expected = np.zeros((-(-37 // lanes) * lanes, weight[0].size), packed.dtype)
    expected[:37] = weight.reshape(37, -1)
    expected = expected.reshape(-1, lanes, weight[0].size).swapaxes(1, 2)
    assert np.array_equal(packed, expected.ravel())
