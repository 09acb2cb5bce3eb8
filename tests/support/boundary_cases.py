"""Convolutions with a boundary mode, small enough for the definition, and what they give."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fastconv import calls
from fastconv.contract.boundary_problem import BoundaryProblem, Part
from fastconv.contract.padding import normalise_padding
from fastconv.kernels import reference
from fastconv.ops import boundary_calls
from helpers import DTYPES, in_layout

WORDS = {"replicate": "edge", "circular": "wrap"}
ALL = ("reflect", "symmetric", "replicate", "circular", ("constant", 1.5))


@dataclass(frozen=True)
class Case:
    """A convolution, small enough for the definition."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: Any = 1
    stride: Any = 1
    dilation: Any = 1
    channels: tuple[int, int, int] = (3, 4, 1)  # of a group, filters of a group, groups
    batch: int = 2
    layout: str = "channels_first"

    @property
    def arguments(self) -> dict[str, Any]:
        told = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return told | {"groups": self.channels[2]}

    def sides(self) -> dict[str, Any]:
        ndim = len(self.size)
        steps = {
            name: value if isinstance(value, tuple) else (value,) * ndim
            for name, value in (("stride", self.stride), ("dilation", self.dilation))
        }
        pads = normalise_padding(self.padding, self.size, self.kernel, **steps)
        return steps | {"padding": pads, "groups": self.channels[2]}


CASES = (
    Case((9, 11), (3, 3)),
    Case((23, 40), (3, 3), batch=1),
    Case((12, 31), (5, 7), (2, 3), channels=(1, 1, 1), batch=1),
    Case((20, 33), (3, 3), 1, 2, channels=(5, 7, 2)),
    Case((9, 8), (3, 3), ((1, 0), (0, 2))),
    Case((9, 8), (2, 4), "same", dilation=(2, 1)),
    Case((14, 17), (3, 3), 2, dilation=2, channels=(4, 3, 2)),
    Case((14, 35), (3, 3), 1, channels=(1, 2, 9)),
    Case((9, 10), (3, 3), layout="channels_last", channels=(20, 6, 1)),
    Case((9, 10), (3, 3), layout="channels_last", channels=(1, 1, 18)),
    Case((9, 10), (3, 3), layout="strided"),
    Case((3, 2), (3, 3), (2, 1)),  # no wider pads can be mirrored
    Case((6, 7), (1, 1), 2, 3),
    Case((70,), (9,), 4, channels=(2, 3, 1)),
    Case((300,), (16,), (((5, 9),)), 3, channels=(1, 1, 5)),
    Case((4, 6, 9), (3, 3, 3), 1, channels=(4, 4, 1)),
    Case((4, 6, 9), (2, 1, 3), (1, 0, 2), (1, 2, 2), channels=(2, 2, 3)),
    Case((5, 6), (3, 3), batch=0),
)


def word(mode: Any) -> str:
    return mode if isinstance(mode, str) else f"constant {mode[1]}"


def drawn(
    case: Case, rng: np.random.Generator, dtype: str = "float32", integers: bool = True
) -> Any:
    c, k, groups = case.channels

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.integers(-4, 5, shape) if integers else rng.standard_normal(shape)
        return values.astype(DTYPES[dtype])

    x = in_layout(draw((case.batch, c * groups, *case.size)), case.layout)
    return x, draw((k * groups, c, *case.kernel)), draw((k * groups,))


def padded(x: np.ndarray, pads: Any, mode: Any) -> np.ndarray:
    """The input with its boundary, as NumPy makes it."""
    told: dict[str, Any] = {} if isinstance(mode, str) else {"constant_values": mode[1]}
    name: Any = WORDS.get(mode, mode) if isinstance(mode, str) else "constant"
    return np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), *pads), name, **told)


def truth(case: Case, mode: Any, x: Any, w: Any, bias: Any, **more: Any) -> np.ndarray:
    sides = case.sides()
    around = padded(x, sides.pop("padding"), mode)
    nothing = ((0, 0),) * len(case.size)
    return reference.conv(around, w, bias, padding=nothing, **sides, **more)


@contextlib.contextmanager
def by_parts(how: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute by parts: those "chosen", a "frame" wherever there is one, or by "turned" slabs."""

    def framed(of: BoundaryProblem, packed: bool) -> list[Part]:
        parts = of.frame() or [of.whole()]
        if how == "frame":
            return parts
        return [part._replace(turned=of.can_turn(part)) for part in parts]

    if how != "chosen":
        monkeypatch.setattr(boundary_calls, "choose_parts", framed)
    calls._prepared.clear()
    yield
    calls._prepared.clear()
