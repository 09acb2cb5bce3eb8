"""Channels that become pixels, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastconv

from .node import Node, Refusal

__all__ = ["REARRANGING"]


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
