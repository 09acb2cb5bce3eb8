"""The sparse demo's picture: a scan's voxels and each stage's features, from above."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..scans.read import Scan
from .cases import Array
from .encoder import LayerRun, Run
from .picture import MUTED, STYLE, new_page, write_titles
from .sparse import VOXEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..sparse import SparseTensor

__all__ = ["draw", "from_above"]

#: Metres: left, right, bottom, top.
_Sides = tuple[float, float, float, float]

_COLUMNS, _ROWS = 3, 2
# Inches.
_PANEL, _BAR, _GAP, _AFTER, _BELOW = 4.7, 0.13, 1.05, 0.45, 0.4
_MARGIN, _CAPTION, _HEADER = 0.7, 0.55, 0.7
_PIXELS = 580  # across a panel
_GAMMA = 0.6  # lifts the weak
_NIGHT = "#0d1016"  # where no site is


def draw(out: Path, scan: Scan, voxels: SparseTensor, low: tuple[float, ...], run: Run) -> None:
    """Write the picture.

    Parameters
    ----------
    out : Path
        PNG file.
    scan : Scan
        The points.
    voxels : SparseTensor
        Their voxels; axes z, y, x.
    low : tuple of float
        Metres of the low corner of the grid: z, y, x.
    run : Run
        Features after each stage.
    """
    from matplotlib import rc_context

    view = _view(scan)
    width = 2 * _MARGIN + _COLUMNS * _PANEL + (_COLUMNS - 1) * _GAP + _AFTER
    height = _HEADER + _ROWS * (_panel_height(view) + _CAPTION) + (_ROWS - 1) * _BELOW + _MARGIN
    muted: dict[Any, str] = dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), MUTED)
    with rc_context(STYLE | muted):
        figure = new_page(f"sparse demo: {scan.name}", width, height, _MARGIN)
        edges = " x ".join(f"{edge:g}" for edge in VOXEL[::-1])
        caption = f"{len(scan.points):,} points, {len(voxels):,} voxels of {edges} m"
        axes = _panel(figure, 0, view, "Occupancy", caption)
        counts = from_above(voxels, np.ones(len(voxels), np.float32), np.add)
        _show(axes, counts, _extent(counts, low, 1), "viridis", "voxels above each other")
        step = 1
        for number, tensor in enumerate(run.stages, 1):
            layers = [layer_run for layer_run in run.layers if layer_run.layer.stage == number]
            step *= math.prod(layer_run.layer.stride[-1] for layer_run in layers)
            axes = _panel(figure, number, view, *_stage_titles(layers, step))
            plane = from_above(tensor, np.linalg.norm(tensor.features, axis=1), np.maximum)
            _show(axes, plane, _extent(plane, low, step), "inferno", "length of the feature vector")
        figure.savefig(out)


def from_above(tensor: SparseTensor, values: Array, join: np.ufunc) -> npt.NDArray[np.float32]:
    """Return a map of a value of each site, shape (y, x), NaN where no site is.

    Parameters
    ----------
    tensor : SparseTensor
        Axes z, y, x.
    values : ndarray of float32, shape (rows,)
        One a site.
    join : ufunc
        What becomes of sites above each other, say ``np.maximum``.
    """
    _, y, x = tensor.indices[:, 1:].T
    plane = np.full(tensor.spatial_shape[1:], np.nan, np.float32)
    plane[y, x] = 0
    join.at(plane, (y, x), values)
    return plane


def _view(scan: Scan) -> _Sides:
    """Return what holds all but stray points: no higher than wide, and at least half as high."""
    low, high = np.percentile(scan.points[:, :2], (0.2, 99.8), axis=0).astype(float)
    across, up = 0.53 * (high - low) + 0.5
    across = max(across, up)
    up = max(up, across / 2)
    x, y = (low + high) / 2
    return (x - across, x + across, y - up, y + up)


def _panel_height(view: _Sides) -> float:
    left, right, bottom, top = view
    return _PANEL * (top - bottom) / (right - left)


def _extent(plane: npt.NDArray[np.float32], low: tuple[float, ...], step: int) -> _Sides:
    """Return the sides of a map whose cells are `step` voxels wide, about the voxel in the middle.

    A kernel of 3 with a padding of 1 has its middle at every `step`-th voxel.
    """
    _, down, across = VOXEL
    left = low[2] + across * (1 - step) / 2
    bottom = low[1] + down * (1 - step) / 2
    rows, columns = plane.shape
    return (left, left + columns * step * across, bottom, bottom + rows * step * down)


def _stage_titles(layers: list[LayerRun], step: int) -> tuple[str, str]:
    channels = [
        layers[0].layer.in_channels,
        *(layer_run.layer.out_channels for layer_run in layers),
    ]
    title = f"Stage {layers[0].layer.stage}: {' > '.join(map(str, channels))} channels"
    taken = sum(layer_run.milliseconds for layer_run in layers)
    kernels = ", ".join(dict.fromkeys(layer_run.kernel for layer_run in layers))
    cell = f"{step * VOXEL[-1]:.2g} m"
    return title, f"{layers[-1].out_rows:,} sites, cells of {cell}, {kernels}, {taken:.1f} ms"


def _panel(figure: Figure, number: int, view: _Sides, title: str, caption: str) -> Axes:
    """Return the axes of a panel, in metres."""
    width, height = figure.get_size_inches()
    high = _panel_height(view)
    row, column = divmod(number, _COLUMNS)
    left = _MARGIN + column * (_PANEL + _GAP)
    bottom = height - _HEADER - (row + 1) * (high + _CAPTION) - row * _BELOW
    box = (left / width, bottom / height, _PANEL / width, high / height)
    axes = figure.add_axes(box, facecolor=_NIGHT, xlim=view[:2], ylim=view[2:])
    axes.tick_params(labelsize=8, length=3, color=MUTED)
    axes.spines[:].set_visible(False)
    if row == _ROWS - 1:
        axes.set_xlabel("x in metres", fontsize=9)
    if column == 0:
        axes.set_ylabel("y in metres", fontsize=9, labelpad=2)
    write_titles(axes, title, caption)
    return axes


def _show(
    axes: Axes,
    plane: npt.NDArray[np.float32],
    extent: _Sides,
    colours: str,
    label: str,
) -> None:
    """Show a map with a bar of its colours; the brightest half percent is one colour."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator

    view = (*axes.get_xlim(), *axes.get_ylim())
    scale = PowerNorm(_GAMMA, 0, float(np.nanpercentile(plane, 99.5)), clip=True)
    shown, sides = _at_resolution(plane, extent, view[1] - view[0])
    image = axes.imshow(
        shown,
        cmap=colormaps[colours].with_extremes(bad=_NIGHT),
        norm=scale,
        extent=sides,
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )
    axes.set(xlim=view[:2], ylim=view[2:])  # imshow has moved them
    inset: Any = axes.inset_axes((1.015, 0.0, _BAR / _PANEL, 1.0))
    bar = axes.figure.colorbar(image, cax=inset, ticks=MaxNLocator(5))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=MUTED)
    bar.set_label(label, fontsize=9, color=MUTED)


def _at_resolution(
    plane: npt.NDArray[np.float32], extent: _Sides, width: float
) -> tuple[npt.NDArray[np.float32], _Sides]:
    """Join cells that are finer than the panel's pixels by their largest, so that none is lost."""
    cell = (extent[1] - extent[0]) / plane.shape[1]
    join = max(1, round(width / _PIXELS / cell))
    rows, columns = (-size % join for size in plane.shape)
    padded = np.pad(plane, ((0, rows), (0, columns)), constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // join, join, -1, join)
    left, _, bottom, _ = extent
    cells = (padded.shape[1] * cell, padded.shape[0] * cell)
    return np.fmax.reduce(blocks, (1, 3)), (left, left + cells[0], bottom, bottom + cells[1])
