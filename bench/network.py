"""Rows of the benchmark that are whole networks.

A line is ``network NAME [mbBATCH]``: a network of `fastconv.bench.networks` on so many images, in
float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .networks import INPUTS, ONNX_PREFIX

__all__ = ["NetworkRun", "is_network_line", "parse_network"]

_LINE = re.compile(r"network\s+(?P<name>\w+)(?:\s+mb(?P<batch>\d+))?")


@dataclass(frozen=True, slots=True)
class NetworkRun:
    """A network on a batch of images.

    Parameters
    ----------
    name : str
        A key of `fastconv.bench.networks.INPUTS`.
    batch : int
        Images at a time.
    """

    name: str
    batch: int = 1
    dtype: str = "float32"

    @property
    def op(self) -> str:
        """Return the word that its line begins with."""
        return "network"

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of the input."""
        return (self.batch, *INPUTS[self.name])

    @property
    def is_onnx(self) -> bool:
        """Tell whether it is a model of ONNX, which PyTorch does not read."""
        return self.name.startswith(ONNX_PREFIX)

    def line(self) -> str:
        """Return the line that reads back as this row."""
        return f"network {self.name} mb{self.batch}"


def is_network_line(text: str) -> bool:
    """Tell whether a line means a whole network."""
    return text.split(None, 1)[:1] == ["network"]


def parse_network(text: str) -> NetworkRun:
    """Read a line without its quoted name.

    Raises
    ------
    ValueError
        Where it is no such line, or names no network.

    Examples
    --------
    >>> parse_network("network resnet50 mb8").x_shape
    (8, 3, 224, 224)
    """
    match = _LINE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()}: want 'network NAME [mbBATCH]'")
    if match["name"] not in INPUTS:
        raise ValueError(f"{text.strip()}: got {match['name']!r}, want one of {', '.join(INPUTS)}")
    batch = int(match["batch"] or 1)
    if batch < 1:
        raise ValueError(f"{text.strip()}: got a batch of {batch}, want at least 1")
    return NetworkRun(match["name"], batch)
