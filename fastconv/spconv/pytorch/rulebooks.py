"""Which rulebook a layer computes by: the one of its `indice_key`, or a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...contract.errors import ShapeError
from ...sparse.geometry import make_geometry, require_match, require_return
from ...sparse.rulebook import Rulebook, build_trusted
from ...sparse.tensor import trusted_tensor
from .core import ConvAlgo, IndiceData, Sites, SparseConvTensor

__all__ = ["Step", "Window", "step_back", "step_to"]


class Window(NamedTuple):
    """A kernel's window: one number an axis."""

    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    output_padding: Sequence[int]


class Step(NamedTuple):
    """From the sites before an operator to those after it."""

    before: SparseConvTensor
    rulebook: Rulebook
    after: Sites
    indice_dict: dict[str, IndiceData]

    def lead(self, features: torch.Tensor) -> SparseConvTensor:
        """Return the tensor after, of its features."""
        shape = self.rulebook.out_shape
        return self.before._over(features, self.after, shape, self.indice_dict)


def step_to(
    x: SparseConvTensor, kind: str, window: Window, key: str | None, algo: ConvAlgo | None
) -> Step:
    """Return the step of an operator, by the rulebook of that name where there is one.

    A new one gets the name in the dictionary of the tensor after, as spconv has it; that of the
    tensor before stays as it is.
    """
    sites = x.checked_sites
    stride, padding, more = window.stride, tuple(window.padding), window.output_padding
    geometry = make_geometry(
        kind, sites, tuple(window.kernel_size),
        1 if kind == "submanifold" else tuple(stride),
        "same" if kind == "submanifold" else padding,
        tuple(window.dilation), tuple(more) if kind == "transposed" else 0,
    )  # fmt: skip
    known = x.find_indice_pair(key)
    if known is not None:
        require_match(f"indice_key={key!r}", known.rulebook, geometry, sites)
        return Step(x, known.rulebook, known.after, x.indice_dict)
    book = build_trusted(geometry, sites._indices)
    after = x._sites
    if kind != "submanifold":
        nothing = np.empty((book.out_rows, 0), np.float32)
        grid = trusted_tensor(nothing, book._out_indices, book.out_shape, x.batch_size)
        after = Sites(known=grid)
    indice_dict = x.indice_dict
    if key is not None:
        indice_dict = {**indice_dict, key: IndiceData(book, algo, x._sites, after)}
    return Step(x, book, after, indice_dict)


def step_back(x: SparseConvTensor, kernel_size: Sequence[int], key: str | None) -> Step:
    """Return the step back to the sites before the operator that named a rulebook."""
    known = x.find_indice_pair(key)
    if known is None:
        names = ", ".join(map(repr, x.indice_dict)) or "there is none yet"
        raise ShapeError(f"indice_key: got {key!r}, want one that is known: {names}")
    if known.is_subm:
        raise ShapeError(
            f"indice_key: got {key!r}, which a submanifold convolution named, want the name of one "
            "that makes other sites: nothing leads back from the same"
        )
    book = require_return(
        f"indice_key={key!r}", known.rulebook, tuple(kernel_size), x.checked_sites
    )
    return Step(x, book.reverse(), known.before, x.indice_dict)
