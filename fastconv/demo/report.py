"""The demo's table, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .cases import Array, Case
from .engines import Measured, PeerMeasured, run_reference

__all__ = ["aligned", "table"]


def table(results: Sequence[Measured], peers: Mapping[str, Sequence[PeerMeasured]]) -> str:
    """Return the table with its notes.

    Parameters
    ----------
    results : sequence of Measured
        One row each.
    peers : mapping of str to sequence of PeerMeasured
        A column of milliseconds for each library, rows as in `results`.
    """
    head = ["operation", "shape", "kernel", "fastconv ms"]
    head += [f"{name} ms" for name in peers] + ["difference"]
    rows = [head]
    for index, result in enumerate(results):
        others = [peer[index] for peer in peers.values()]
        row = [
            result.case.name,
            _shapes(result.case, result.y),
            " + ".join(dict.fromkeys(result.kernels)),
            f"{result.milliseconds:.2f}",
            *(_milliseconds(other) for other in others),
            _difference(result, others),
        ]
        rows.append(row)
    notes = ["ms: median of several calls, functional API (weights packed in every call)."]
    notes += ["SciPy: one thread; has no stride, dilation or channels, so planes are added up."]
    notes += ["difference: largest one from any other column, relative to the largest output."]
    return "\n".join([*aligned(rows, left=3), "", *notes, *_reasons(results, peers)])


def _shapes(case: Case, y: Array) -> str:
    return " -> ".join("x".join(map(str, array.shape)) for array in (case.x, y))


def _milliseconds(peer: PeerMeasured) -> str:
    return "-" if peer.milliseconds is None else f"{peer.milliseconds:.2f}"


def _difference(result: Measured, peers: Sequence[PeerMeasured]) -> str:
    """Return the largest difference from the peers, or from the reference where there is none."""
    others: list[npt.NDArray[np.floating]] = [peer.y for peer in peers if peer.y is not None]
    if not others:
        others = [run_reference(result.case)]
    largest = max(float(np.abs(result.y - other).max()) for other in others)
    return f"{largest / float(np.abs(result.y).max()):.0e}"


def _reasons(results: Sequence[Measured], peers: Mapping[str, Sequence[PeerMeasured]]) -> list[str]:
    """Return one sentence for each library and reason that left a cell empty."""
    notes = []
    for name, column in peers.items():
        for reason in dict.fromkeys(peer.reason for peer in column if peer.reason):
            empty = [
                result.case.name
                for result, peer in zip(results, column, strict=True)
                if peer.reason == reason
            ]
            where = "" if len(empty) == len(results) else f" for {', '.join(empty)}"
            notes.append(f"{name}: {reason}{where}.")
    return notes


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return the rows in columns, the first `left` of them flush left, a rule below the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines
