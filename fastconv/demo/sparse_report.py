"""The sparse demo's table, in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..scans.read import Scan
from .encoder import LayerRun, Run, SpconvRun
from .report import aligned

if TYPE_CHECKING:
    from ..sparse import SparseTensor

__all__ = ["table"]


def table(scan: Scan, voxels: SparseTensor, run: Run, spconv: SpconvRun | str) -> str:
    """Return the table with its notes.

    Parameters
    ----------
    scan : Scan
        The points.
    voxels : SparseTensor
        What the encoder was given.
    run : Run
        fastconv's.
    spconv : SpconvRun or str
        spconv's, or why there is none.
    """
    head = ["stage", "layer", "channels", "kernel", "sites", "pairs", "ms", "rulebook ms"]
    rows = [_row(layer) for layer in run.layers]
    sums = [
        sum(layer.milliseconds for layer in run.layers),
        sum(layer.rulebook_ms or 0 for layer in run.layers),
    ]
    rows.append(["", "all", "", "", "", "", *(f"{value:.2f}" for value in sums)])
    notes = [_scan_note(scan, voxels)]
    notes += ["ms: median of several calls; normalisation and ReLU are part of each layer."]
    notes += ["rulebook: built once for all layers over the same sites with the same kernel."]
    if isinstance(spconv, str):
        notes.append(f"spconv: {spconv}.")
    else:
        head += ["spconv ms", "its rulebook ms"]
        theirs = [*map(_cells, spconv.milliseconds, spconv.rulebook_ms)]
        theirs.append(
            _cells(sum(spconv.milliseconds), sum(built or 0 for built in spconv.rulebook_ms))
        )
        rows = [[*row, *cells] for row, cells in zip(rows, theirs, strict=True)]
        notes.append(_spconv_note(run, spconv))
    lines = aligned([head, *rows], left=4)
    return "\n".join([*lines, "", *notes])


def _row(run: LayerRun) -> list[str]:
    layer = run.layer
    return [
        str(layer.stage),
        layer.name,
        f"{layer.in_channels} > {layer.out_channels}",
        run.kernel,
        f"{run.out_rows:,}",
        f"{run.pairs:,}",
        *_cells(run.milliseconds, run.rulebook_ms),
    ]


def _cells(milliseconds: float, rulebook_ms: float | None) -> tuple[str, str]:
    return f"{milliseconds:.2f}", "" if rulebook_ms is None else f"{rulebook_ms:.2f}"


def _scan_note(scan: Scan, voxels: SparseTensor) -> str:
    shape = " x ".join(map(str, voxels.spatial_shape))
    share = len(voxels) / np.prod(voxels.spatial_shape, dtype=float)
    intensity = "" if scan.has_intensity else ", no intensity (0 is taken)"
    lost = f", {scan.left_out:,} more that are not finite left out" if scan.left_out else ""
    return (
        f"{scan.name}: {len(scan.points):,} points{lost}{intensity}; {len(voxels):,} voxels, "
        f"{share:.2%} of {shape} (z, y, x)."
    )


def _spconv_note(run: Run, spconv: SpconvRun) -> str:
    from .. import get_num_threads

    ours = run.stages[-1].features
    difference = float(np.abs(ours - spconv.features).max()) / float(np.abs(ours).max())
    return (
        f"spconv: one thread, since with more it is wrong on a CPU; fastconv: {get_num_threads()}. "
        f"Largest difference of the last features: {difference:.0e} of the largest."
    )
