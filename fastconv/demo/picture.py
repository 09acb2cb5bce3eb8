"""The demo's picture: inputs and outputs side by side on one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .cases import ANGLES, STEM_ROWS, Array, stem_weight
from .engines import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MUTED", "STYLE", "draw", "new_page", "write_titles"]

_DARK, MUTED = "#1b1f24", "#66707c"
_COLUMNS, _ROWS = 4, 3
#: Matplotlib's settings for every page.
STYLE: dict[Any, str] = {"font.family": "DejaVu Sans", "text.color": _DARK}
# Inches. A panel has the photographs' shape, 640 x 427.
_PANEL, _GAP, _MARGIN, _CAPTION, _HEADER = (3.9, 3.9 * 427 / 640), 0.28, 0.4, 0.5, 0.62
_TILES = 4  # a montage shows 4 x 4 channels
_GAMMA = 0.5  # lifts the weak responses of a montage
_FILTER_ROWS = 8.35  # eight rows of filters and the key of colours below


def draw(out: Path, china: Array, flower: Array, results: Sequence[Measured]) -> None:
    """Write the picture.

    Parameters
    ----------
    out : Path
        PNG file.
    china, flower : ndarray of float32, shape (3, H, W)
        The photographs, values from 0 to 1.
    results : sequence of Measured
        Outputs of `cases.image_cases` and `cases.block_case`, in that order.
    """
    from matplotlib import rc_context

    gaussian, sharpen, dilated, sobel, separable, stem, block = results
    width = 2 * _MARGIN + _COLUMNS * _PANEL[0] + (_COLUMNS - 1) * _GAP
    height = _HEADER + _ROWS * (_PANEL[1] + _CAPTION) + (_ROWS - 1) * _GAP + _MARGIN
    with rc_context(STYLE):
        figure = new_page("demo", width, height, _MARGIN)
        axes = _grid(figure)
        _image(next(axes), china, "Input", f"china.jpg, {_shape(china)}")
        for result in (gaussian, sharpen, dilated):
            _image(next(axes), result.y, result.case.name, _caption(result))
        for name, plane in zip(("x", "y"), sobel.y, strict=True):
            _image(next(axes), _grey(plane, signed=True), f"Sobel {name}", _caption(sobel))
        magnitude = np.hypot(*sobel.y)
        _image(next(axes), _grey(magnitude), "Sobel magnitude", "root of x² + y², by NumPy")
        _filters(next(axes))
        _image(next(axes), flower, "Input", f"flower.jpg, {_shape(flower)}")
        _montage(next(axes), separable)
        title = f"{stem.case.name}: edges by direction"
        _image(next(axes), _directions(stem.y), title, _caption(stem))
        _montage(next(axes), block)
        figure.savefig(out)


def new_page(title: str, width: float, height: float, margin: float) -> Figure:
    """Return an empty page, inches, with a title and the machine above a margin's width."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .. import __version__
    from ..contract.cpu import cpu_info

    figure = Figure(figsize=(width, height), dpi=125, facecolor="white")
    FigureCanvasAgg(figure)
    cpu = cpu_info()
    machine = f"{cpu.name}, {cpu.isa}, {cpu.threads} threads, float32"
    left, right, top = margin / width, 1 - margin / width, 1 - 0.5 / height
    figure.text(left, top, f"fastconv {__version__} {title}", fontsize=17, weight="bold")
    figure.text(right, top, machine, fontsize=11, color=MUTED, ha="right")
    return figure


def _grid(figure: Figure) -> Iterator[Axes]:
    """Yield the panels row by row, all of one size, with room for a caption above each."""
    width, height = figure.get_size_inches()
    for row in range(_ROWS):
        bottom = height - _HEADER - (row + 1) * (_PANEL[1] + _CAPTION) - row * _GAP
        for column in range(_COLUMNS):
            left = _MARGIN + column * (_PANEL[0] + _GAP)
            box = (left / width, bottom / height, _PANEL[0] / width, _PANEL[1] / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            yield axes


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape))


def _caption(result: Measured) -> str:
    kernels = " + ".join(dict.fromkeys(result.kernels))
    return f"{_shape(result.y)}, {kernels}, {result.milliseconds:.2f} ms"


def write_titles(axes: Axes, title: str, caption: str) -> None:
    """Write a bold line and a muted one above a panel."""
    above: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    axes.annotate(title, (0, 1), (0, 19), fontsize=12.2, weight="bold", **above)
    axes.annotate(caption, (0, 1), (0, 6), fontsize=8.8, color=MUTED, **above)


def _image(axes: Axes, planes: Array, title: str, caption: str) -> None:
    """Show (3, H, W) values from 0 to 1 as colours, (H, W) ones as grey."""
    colours = np.broadcast_to(planes, (3, *planes.shape[-2:])).transpose(1, 2, 0)
    pixels = (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)
    axes.imshow(pixels, aspect="auto", interpolation="hanning")
    write_titles(axes, title, caption)


def _grey(plane: Array, signed: bool = False) -> Array:
    """Scale so that all but the largest half percent fits 0 to 1; a signed 0 becomes mid-grey."""
    scale = max(float(np.percentile(np.abs(plane), 99.5)), 1e-6)
    scaled: Array = plane / np.float32(scale)
    if signed:
        scaled = (scaled + 1) * np.float32(0.5)
    return scaled


def _montage(axes: Axes, result: Measured) -> None:
    """Show the 16 strongest channels as 4 x 4 tiles, each at its own scale."""
    strongest = np.argsort(result.y.mean((1, 2)))[-(_TILES**2) :]
    shown = result.y[np.sort(strongest)]
    title = f"{result.case.name}: {len(shown)} of {len(result.y)} channels"
    rim = max(shown.shape[2] // 60, 1)
    bright = (np.clip(_grey(tile), 0, 1) ** _GAMMA for tile in shown)
    tiles = [np.pad(tile, rim, constant_values=1.0) for tile in bright]
    rows = [np.hstack(tiles[i : i + _TILES]) for i in range(0, len(tiles), _TILES)]
    _image(axes, np.vstack(rows)[rim:-rim, rim:-rim], title, _caption(result))


def _filters(axes: Axes) -> None:
    """Show the stem's 64 filters: a column for each angle, two rows (phases) for each kind."""
    weight = stem_weight()
    tiles = weight / np.abs(weight).max((1, 2, 3), keepdims=True) / 2 + 0.5
    page = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1.0)
    page = page.reshape(8, 8, 3, 9, 9).transpose(0, 3, 1, 4, 2).reshape(72, 72, 3)
    extent = (0.0, 8.0, 8.0, 0.0)
    axes.imshow(page, extent=extent, aspect="auto", interpolation="nearest")
    for row, (name, _, _) in enumerate(STEM_ROWS):
        axes.text(-0.3, 2 * row + 1, name, fontsize=9.5, ha="right", va="center")
    for column, colour in enumerate(_hues(ANGLES, np.ones(8))):
        axes.plot([column + 0.15, column + 0.85], [8.2, 8.2], color=colour, lw=4)
    axes.set_ylim(_FILTER_ROWS, 0)
    width = _FILTER_ROWS * _PANEL[0] / _PANEL[1]  # keeps the tiles square
    axes.set_xlim(8.1 - width, 8.1)
    write_titles(axes, "Weights of the stem", "64x3x7x7: colours, two phases, angles of edges")


def _hues(angle: npt.NDArray[np.floating], value: npt.NDArray[np.floating]) -> Array:
    """Return colours (..., 3) whose hue turns once with `angle` from 0 to pi."""
    from matplotlib.colors import hsv_to_rgb

    hsv = np.stack([angle / np.pi % 1, np.full(angle.shape, 0.75), value], -1)
    rgb: Array = hsv_to_rgb(hsv).astype(np.float32)
    return rgb


def _directions(stem: Array) -> Array:
    """Return an image (3, H, W) of the stem's output: hue is direction, brightness strength."""
    energy = (stem.reshape(8, 8, *stem.shape[1:]) ** 2).sum(0)
    orientation = np.tensordot(np.exp(2j * ANGLES), energy, 1)
    strength = np.sqrt(np.abs(orientation))
    value = np.clip(_grey(strength), 0, 1)
    return _hues(np.angle(orientation) / 2 % np.pi, value).transpose(2, 0, 1)
