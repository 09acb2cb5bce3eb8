"""One object serves inputs of many sizes and orders: what it keeps packed must fit each of them.

A plan names the order of its packed weight, and an object keeps one packed weight a name. So plans
of any two kernels and problems that give the same name must pack the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.problem import ConvProblem
from fastconv.contract.settings import config
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import Binding, SparseBinding
from fastconv.kernels.cpu.sparse.specs import SPECS as SPARSE_KERNELS
from helpers import DTYPES, MODULES, assert_close, expected, geometry, in_layout, small_integers
from problem_matrix import problem

KERNELS = dispatch.kernels(op="conv", device="cpu")
#: Weights that a kernel may pack in more than one way: by its size, by its values.
BASES = {
    "image filter": problem((1, 1), (40, 45), 9, padding=4),
    "channels": problem((40, 33), (9, 14), 3, padding=1),
    "many channels": problem((300, 24), (5, 7), 3, padding=1),
    "pointwise": problem((65, 40), (7, 9), 1),
    "groups": problem((12, 18), (9, 17), 3, padding=1, groups=3),
    "depthwise": problem((19, 19), (14, 30), 3, padding=1, groups=19),
    "depthwise colours": problem((3, 3), (14, 50), 5, padding=2, groups=3),
    "separable": problem((16, 16), (40, 40), 31, padding=15, groups=16),
    "separable image": problem((1, 1), (40, 40), 13, padding=6),
    "long filter": problem((2, 2), (300,), 65, padding=32),
    "volume": problem((5, 13), (5, 6, 9), 3, padding=1),
    "halves": problem((24, 40), (9, 14), 3, padding=1, dtype="bfloat16"),
    "doubles": problem((12, 20), (9, 14), 3, padding=1, dtype="float64"),
}


def weight_of(of: ConvProblem) -> np.ndarray:
    """Whole numbers; an outer product where the filter is large enough for two passes."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-4, 5, of.weight_shape)
    if of.is_depthwise and of.ndim == 2 and min(of.kernel_size) > 9:
        first, second = (rng.integers(-2, 3, (of.groups, size)) for size in of.kernel_size)
        weight = (first[:, :, None] * second[:, None, :])[:, None]
    return weight.astype(DTYPES[of.dtype])


def variants(base: ConvProblem) -> Iterator[ConvProblem]:
    """Other inputs, geometries and memory orders for the same weight."""
    wide = (*base.in_size[:-1], 3 * base.in_size[-1] + 2)
    changes: list[dict[str, Any]] = [
        {},
        {"layout": "channels_last"},
        {"in_size": wide, "batch": 3},
        {"in_size": wide, "layout": "channels_last"},
        {"padding": tuple((k, k - 1) for k in base.kernel_size), "layout": "strided"},
        {"stride": (2,) * base.ndim},
        {"dilation": (2,) * base.ndim, "padding": tuple((k, k) for k in base.kernel_size)},
    ]
    yield from (base.with_(**changed) for changed in changes)


def few_variants(base: ConvProblem) -> Iterator[ConvProblem]:
    """Of those, a few that an object with one geometry may be called with, one after another."""
    grown = base.with_(in_size=(*base.in_size[:-1], 2 * base.in_size[-1] + 1))
    orders = ("channels_first", "channels_last")
    yield from (of.with_(layout=layout) for of in (base, grown) for layout in orders)


def binding_of(of: ConvProblem, weight: np.ndarray) -> Binding:
    x, out = (
        in_layout(np.empty(shape, weight.dtype), of.layout) for shape in (of.x_shape, of.out_shape)
    )
    if of.layout == "strided":
        out = np.empty(of.out_shape, weight.dtype)
    return Binding(x.strides, weight.strides, out.strides)


def content(packed: Any) -> bytes:
    """The bytes of a packed weight, whatever it is made of."""
    if isinstance(packed, np.ndarray):
        return packed.tobytes()
    if dataclasses.is_dataclass(packed):
        packed = [getattr(packed, each.name) for each in dataclasses.fields(packed)]
    assert isinstance(packed, (tuple, list)), type(packed)
    return b"|".join(content(part) for part in packed)


@pytest.mark.parametrize("name", BASES)
def test_equal_names_mean_equal_packed_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "poison_workspace", True)  # gaps of a packed weight compare equal
    base = BASES[name]
    weight = weight_of(base)
    known: dict[Hashable, tuple[bytes, str]] = {}
    for of in variants(base):
        for spec in KERNELS:
            if spec.reasons(of, dispatch.device_info(of)):
                continue
            with dispatch.use_kernel(spec.name):
                _, plan = dispatch.make_plan(of, binding_of(of, weight))
            packed, who = content(plan.pack(weight)), f"{spec.name} {of.line()}"
            before, first = known.setdefault(plan.packing, (packed, who))
            assert before == packed, f"{first} and {who} share {plan.packing}"
    assert known


@pytest.mark.parametrize("name", BASES)
def test_one_object_serves_all_sizes_and_orders(name: str, rng: np.random.Generator) -> None:
    """Called in turn, by the kernels of the dispatcher's choice and by each kernel."""
    base = BASES[name]
    weight = weight_of(base)
    calls = 0
    for padding, same in itertools.groupby(few_variants(base), geometry):
        layer, cases = MODULES[base.ndim](weight, **padding), list(same)
        tensors = [dataclasses.replace(small_integers(of, rng), weight=weight) for of in cases]
        truths = [expected(of, t) for of, t in zip(cases, tensors, strict=True)]
        for forced in (None, *KERNELS):
            for of, t, truth in zip(cases, tensors, truths, strict=True):
                if forced and forced.reasons(of, dispatch.device_info(of)):
                    continue
                spec = forced or dispatch.choose(of)
                with dispatch.use_kernel(spec.name) if forced else contextlib.nullcontext():
                    result = layer(t.x)
                assert_close(result, truth, spec.tolerance[of.dtype], f"{spec.name} {of.line()}")
                calls += 1
    assert calls


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("channels", "groups"), [((33, 40), 1), ((64, 130), 1), ((12, 6), 3), ((19, 19), 19)]
)
def test_sparse_plans_of_equal_names_pack_alike(
    channels: tuple[int, int], groups: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any number of sites and pairs."""
    monkeypatch.setattr(config, "poison_workspace", True)
    rng = np.random.default_rng(3)
    weight = rng.integers(-4, 5, (channels[1], channels[0] // groups, 3, 3)).astype(DTYPES[dtype])
    known: dict[Hashable, bytes] = {}
    calls = 0
    for rows in (1, 40, 3000, 200_000):
        of = SparseProblem("sparse_conv", rows, rows, 6 * rows, (3, 3), *channels, groups, dtype)
        for spec in SPARSE_KERNELS:
            if spec.op != of.op or spec.reasons(of, dispatch.device_info(of)):
                continue
            with dispatch.use_kernel(spec.name):
                _, plan = dispatch.make_plan(of, SparseBinding(weight.strides))
            packed = content(plan.pack(weight))
            assert known.setdefault(plan.packing, packed) == packed, f"{spec.name} {rows}"
            calls += 1
    assert calls >= 4
