"""Transformed weights that outgrow L3 are stored past the caches: the same bits in place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.settings import config
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding
from fastconv.kernels.cpu.runtime import jit
from fastconv.kernels.cpu.winograd.plan import plan
from helpers import DTYPES
from problem_matrix import problem

SIZES = [(3,), (11,), (3, 3), (1, 7), (7, 1), (5, 3), (3, 3, 3), (3, 1, 1), (1, 3, 3), (3, 1, 3)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_of_l3_packs_alike(
    size: tuple[int, ...], dtype: str, threads: int, rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(config, "poison_workspace", True)
    monkeypatch.setattr(config, "num_threads", threads)
    of = problem((41, 90), (12,) * len(size), size, padding=tuple((n // 2, n // 2) for n in size))
    of = of.with_(dtype=dtype)
    weight = rng.standard_normal(of.weight_shape).astype(DTYPES[dtype])
    binding: Binding = dataclasses.replace(dense_binding(of), weight_strides=weight.strides)
    device = dispatch.device_info(of)
    assert isinstance(device, DeviceInfo) and device.threads == threads
    made = [plan(of, binding, dataclasses.replace(device, l3=l3), 2) for l3 in (32 << 20, 0)]
    assert [int(each.record["streamed"][0]) for each in made] == [0, 1]
    kept, streamed = (each.pack(weight) for each in made)
    assert np.array_equal(kept, streamed, equal_nan=True)  # a line between elements is not written
    gaps = np.isnan(kept).sum()
    assert 0 < gaps * kept.itemsize <= 64 * 64


@pytest.mark.parametrize(
    ("size", "last"), [((3, 3), "winograd_weights"), ((3, 3, 3), "winograd_lines")]
)
def test_the_last_transform_alone_goes_past_the_caches(size: tuple[int, ...], last: str) -> None:
    """And tasks wait for it: their stores come in no order that other threads could rely on."""
    of = problem((16, 32), (12,) * len(size), size, padding=1)
    device = dispatch.device_info(of)
    assert isinstance(device, DeviceInfo)
    with jit.recorded_variants() as variants:
        plan(of, dense_binding(of), dataclasses.replace(device, l3=0), 2)
    past = [key[0] for key, variant in variants.items() if "!nontemporal" in variant.llvm]
    waiting = [key[0] for key, variant in variants.items() if "fence seq_cst" in variant.llvm]
    assert (past, waiting) == ([last], ["winograd_pack"])
