"""Arguments that cannot be meant: a sentence that names each, before anything is computed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

import fastconv.spconv.pytorch as spconv  # noqa: E402
from fastconv.contract.errors import FastconvError  # noqa: E402

pytestmark = pytest.mark.program


@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation", "padding"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", [1], [1, 2.0], True, None])
@pytest.mark.parametrize("kind", [spconv.SparseConv2d, spconv.SparseMaxPool2d])
def test_windows(kind: Any, argument: str, value: Any) -> None:
    if kind is spconv.SparseMaxPool2d and (argument, value) == ("stride", None):
        return  # the window's own size
    channels = (4, 4) if kind is spconv.SparseConv2d else ()
    with pytest.raises(FastconvError, match=argument):
        kind(*channels, **{"kernel_size": 3, argument: value})


@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation"])
def test_windows_of_nothing(argument: str) -> None:
    with pytest.raises(FastconvError, match=f"{argument}: got 0"):
        spconv.SparseConv2d(4, 4, **{"kernel_size": 3, argument: 0})


@pytest.mark.parametrize(
    ("name", "shape", "batch"),
    [
        ("batch_size", [5, 5], 2.7), ("batch_size", [5, 5], None),
        ("spatial_shape", [5.9, 5], 1), ("spatial_shape", [5, "5"], 1),
    ],
)  # fmt: skip
def test_grids(name: str, shape: Any, batch: Any) -> None:
    sites = torch.zeros(1, 3, dtype=torch.int32)
    with pytest.raises(FastconvError, match=name):
        spconv.SparseConvTensor(torch.zeros(1, 4), sites, shape, batch)


def test_nothing_leads_back_from_the_same_sites() -> None:
    sites = torch.zeros(1, 3, dtype=torch.int32)
    x = spconv.SparseConvTensor(torch.zeros(1, 4), sites, [5, 5], 1)
    y = spconv.SubMConv2d(4, 4, 3, indice_key="a")(x)
    with pytest.raises(FastconvError, match="indice_key: got 'a', which a submanifold"):
        spconv.SparseInverseConv2d(4, 4, 3, indice_key="a")(y)
