"""Channels that become pixels and back, and arrays that are copied to their places in others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv

from ..contract.errors import FastconvError
from .node import Node, Refusal

__all__ = ["REARRANGING", "copy_part"]


def _block(node: Node, x: Any) -> int:
    size = int(node.get("blocksize", 0))
    if x.ndim != 4 or size < 1:
        raise Refusal(f"fastconv rearranges images in blocks, not {x.ndim} axes by {size}")
    return size


def _pixels_behind(node: Node) -> bool:
    """Return whether the pixels of a block lie behind the channels, as fastconv's, or before."""
    mode = node.get("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise Refusal(f"mode: got {mode!r}, want DCR or CRD")
    return bool(mode == "CRD")


def _depth_to_space(node: Node, x: Any) -> tuple[Any, ...]:
    size = _block(node, x)
    if not _pixels_behind(node):
        x = fastconv.channel_shuffle(x, size * size)
    return (fastconv.pixel_shuffle(x, size),)


def _space_to_depth(node: Node, x: Any) -> tuple[Any, ...]:
    made = fastconv.pixel_unshuffle(x, _block(node, x))
    return (made if _pixels_behind(node) else fastconv.channel_shuffle(made, x.shape[1]),)


REARRANGING: dict[str, Callable[..., tuple[Any, ...]]] = {
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}


def copy_part(array: Any, place: Any, axis: int) -> None:
    """Copy an array to its place in another, which goes on along an axis."""
    if not 3 <= array.ndim <= 5:
        lead, rest = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
        shape = lead, array.shape[axis], rest
        folded = place.reshape(shape)
        if np.may_share_memory(folded, place):  # its axes lie as if they were three
            array, place = array.reshape(shape), folded
    try:
        fastconv.channel_shuffle(array, 1, out=place)
    except FastconvError:  # of other axes, or of elements that no kernel has
        place[...] = array
