"""Which profile a machine's costs are taken from: measured on it, shipped of it, or the nearest."""

from __future__ import annotations

from typing import NamedTuple

from fastconv.contract.spec import DeviceInfo

from .measured import read
from .profile import Profile
from .scaling import scale
from .shipped import ZEN4_FIGURES, nearest
from .zen4 import ZEN4

__all__ = ["InForce", "in_force"]


class InForce(NamedTuple):
    """A profile, and where it is from, as `info` and `explain` say it."""

    profile: Profile
    source: str


def in_force(device: DeviceInfo) -> InForce:
    """Return the profile of a machine."""
    fitted = ZEN4_FIGURES.get(device.vector_bytes, ZEN4_FIGURES[64])
    figures = read(device)
    if figures is not None:
        return InForce(scale(ZEN4, fitted, figures), "measured on this machine")
    made, is_it = nearest(device)
    source = f"shipped for {made.name}"
    if not is_it:
        source += ", the nearest (python -m fastconv calibrate measures this machine)"
    figures = made.figures[device.vector_bytes]
    return InForce(ZEN4 if figures is ZEN4_FIGURES[64] else scale(ZEN4, fitted, figures), source)
