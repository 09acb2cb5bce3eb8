"""Packed weights that calls of the functional form remember: the right ones, and not too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import functional, recall
from fastconv.calls import PreparedCall


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> recall.Recall:
    """What calls remember, nothing at first."""
    made = recall.Recall()
    monkeypatch.setattr(functional, "recall", made)
    return made


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every weight that is packed from now on."""
    packed: list[Any] = []
    pack = PreparedCall.pack

    def count(call: Any, weight: Any) -> Any:
        packed.append(weight)
        return pack(call, weight)

    monkeypatch.setattr(PreparedCall, "pack", count)
    return packed


def make(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_a_weight_is_packed_twice_and_not_again(
    rng: np.random.Generator, kept: recall.Recall, packs: list[Any]
) -> None:
    x, w = make(rng, 1, 64, 14, 14), make(rng, 64, 64, 3, 3)
    results = [fastconv.conv2d(x, w, padding=1) for _ in range(5)]
    assert len(packs) == 2
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert w.nbytes < kept.nbytes < 20 * w.nbytes


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1), (8, 4)])
def test_parts_of_a_weight_are_remembered(
    size: int, stride: int, rng: np.random.Generator, kept: recall.Recall
) -> None:
    """A transposed convolution packs one order a phase, or one a kind of band."""
    x, w = make(rng, 1, 64, 14, 14), make(rng, 64, 48, size, size)
    results = [fastconv.conv_transpose2d(x, w, stride=stride) for _ in range(4)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert kept.nbytes >= w.nbytes
    layer = fastconv.ConvTranspose2d(w, stride=stride)
    for rows in (14, 9, 14):  # the bytes of more than one order are counted
        made = layer(x[:, :, :rows])[:, :, :5]
        np.testing.assert_allclose(made, results[0][:, :, :5], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (63, 63, 2, 2), (31, 7, 1, 0)])
def test_a_weight_that_is_written_to_is_packed_anew(
    rng: np.random.Generator, kept: recall.Recall, place: tuple[int, ...]
) -> None:
    x, w = make(rng, 1, 64, 14, 14), make(rng, 64, 64, 3, 3)
    for _ in range(3):
        before = fastconv.conv2d(x, w, padding=1)
    for value in (np.float32(7), np.float32(np.nan), np.float32(-0.0), np.float32(0)):
        w[place] = value
        fresh = w.copy()
        for _ in range(4):
            got = fastconv.conv2d(x, w, padding=1)
            np.testing.assert_array_equal(got, fastconv.conv2d(x, fresh, padding=1))
        assert not np.array_equal(got, before)


def test_another_weight_at_the_same_place_is_not_taken_for_it(
    rng: np.random.Generator, kept: recall.Recall
) -> None:
    """An array that is freed leaves its address to the next one."""
    x = make(rng, 1, 64, 14, 14)
    for _ in range(6):
        w = make(rng, 64, 64, 3, 3)
        results = [fastconv.conv2d(x, w, padding=1) for _ in range(3)]
        with fastconv.use_kernel("cpu.im2col_gemm"):
            right = fastconv.conv2d(x, w, padding=1)
        for result in results:
            np.testing.assert_allclose(result, right, rtol=0, atol=1e-4 * abs(right).max())
        del w


def test_one_array_in_several_shapes_and_orders(
    rng: np.random.Generator, kept: recall.Recall
) -> None:
    buffer = make(rng, 64 * 64 * 9)
    views = [buffer.reshape(64, 64, 3, 3), buffer.reshape(64, 64, 9, 1),
             np.moveaxis(buffer.reshape(64, 3, 3, 64), -1, 1)]  # fmt: skip
    x = make(rng, 1, 64, 16, 16)
    right = [fastconv.conv2d(x, np.ascontiguousarray(view).copy()) for view in views]
    for _ in range(4):
        for view, expected in zip(views, right, strict=True):
            got = fastconv.conv2d(x, view)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * abs(expected).max())
    for kernel in ("cpu.brgemm", "cpu.winograd_f2", "cpu.winograd_f4", "cpu.direct"):
        with fastconv.use_kernel(kernel):
            for _ in range(4):
                got = fastconv.conv2d(x, views[0])
                np.testing.assert_allclose(got, right[0], rtol=0, atol=1e-4 * abs(got).max())


def test_a_weight_that_changes_each_time_is_never_copied(
    rng: np.random.Generator, kept: recall.Recall, packs: list[Any]
) -> None:
    x, w = make(rng, 1, 64, 14, 14), make(rng, 64, 64, 3, 3)
    for _ in range(4):
        fastconv.conv2d(x, w, padding=1)
        w *= np.float32(1.001)
    assert len(packs) == 4 and kept.nbytes == 0


def test_memory_is_bounded_and_the_weights_used_last_stay(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_MOST_BYTES", 1 << 20)
    kept, weights = recall.Recall(), [make(rng, 1 << 17) for _ in range(5)]  # 512 KiB each, packed
    count = 0

    def pack(weight: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return weight.copy()

    for weight in weights:
        for _ in range(3):
            kept.find("order", weight, pack)
    assert kept.nbytes == 1 << 20 and count == 10
    for weight in weights[-2:]:
        kept.find("order", weight, pack)
    assert count == 10
    large = make(rng, (1 << 18) + 1)
    for _ in range(3):
        kept.find("order", large, pack)
    assert count == 13 and kept.nbytes == 1 << 20


def test_calls_that_add_at_once_keep_the_bound(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps of a call another thread's may run from start to end."""
    monkeypatch.setattr(recall, "_MOST_BYTES", 1 << 20)
    weights = [make(rng, 1 << 16) for _ in range(6)]  # 512 KiB each, packed
    kept, waiting = recall.Recall(), list(weights)

    class Crowded(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            add_next()
            super().__setitem__(key, value)

    def add_next() -> None:
        if waiting:
            weight = waiting.pop()
            for _ in range(2):
                kept.find("order", weight, np.copy)

    kept._kept = Crowded()
    add_next()
    assert not waiting and kept.nbytes == 1 << 20


@pytest.mark.parametrize("axes", [(0, 3, 1, 2), (3, 2, 0, 1), (1, 0, 2, 3)])
def test_a_weight_whose_axes_lie_in_another_order(
    rng: np.random.Generator, axes: tuple[int, ...]
) -> None:
    """As one of spconv's, (K, R, S, C), is handed over."""
    kept, weight = recall.Recall(), make(rng, 64, 3, 1, 64).transpose(axes)
    packed = [kept.find("order", weight, np.copy) for _ in range(3)]
    assert packed[2] is packed[1] and np.array_equal(packed[1], weight)
    weight[1, 0, 0, 0] += 1
    assert np.array_equal(kept.find("order", weight, np.copy), weight)


@pytest.mark.parametrize("what", ["small", "gaps", "subclass", "in place"])
def test_what_is_not_remembered(rng: np.random.Generator, what: str) -> None:
    kept, weight = recall.Recall(), make(rng, 64, 64, 3, 3)
    pack: Callable[[Any], Any] = np.copy
    if what == "small":
        weight = weight[:4].copy()
    elif what == "gaps":
        weight = weight[:, ::2]
    elif what == "subclass":
        weight = weight.view(np.recarray)
    else:
        pack = np.asarray
    packed = [kept.find("order", weight, pack) for _ in range(4)]
    assert kept.nbytes == 0
    if what == "in place":
        assert all(p is weight for p in packed)
