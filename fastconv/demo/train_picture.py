"""The training demo's picture: loss and accuracy, confusions, and the digits that were mistaken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .lenet import Array
from .picture import MUTED, STYLE, new_page, write_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .train import Course

__all__ = ["confusions", "draw"]

Labels = npt.NDArray[np.int64]

_BLUE, _ORANGE = "#2b6cb0", "#c05621"
#: Inches.
_WIDTH, _HEIGHT, _MARGIN, _HEADER, _GAP = 16.5, 6.6, 0.6, 1.3, 1.3
#: Beside and below a panel with axes.
_LABELS = 0.5
_MISTAKES = 12
#: Batches over which the drawn loss is a mean.
_SMOOTHED = 21


def confusions(labels: Labels, told: Labels) -> npt.NDArray[np.int64]:
    """Return how often each digit (row) was told as each (column).

    Examples
    --------
    >>> confusions(np.array([3, 3, 5]), np.array([3, 5, 5]))[[3, 5]][:, [3, 5]].tolist()
    [[1, 1], [0, 1]]
    """
    table = np.zeros((10, 10), np.int64)
    np.add.at(table, (labels, told), 1)
    return table


def draw(out: Path, course: Course, images: Array, labels: Labels, told: Labels) -> None:
    """Write the picture.

    Parameters
    ----------
    out : Path
        PNG file.
    course : Course
        Losses and accuracies.
    images, labels, told : ndarray
        Held-out images, what they show and what the network says.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = new_page("demo train", _WIDTH, _HEIGHT, _MARGIN)
        width = (_WIDTH - 2 * _MARGIN - 2 * _GAP - _LABELS) / 3
        height = _HEIGHT - _MARGIN - _HEADER
        left = _MARGIN + _LABELS
        places = [(left + i * (width + _GAP), _MARGIN, width, height) for i in range(3)]
        scale = np.array([_WIDTH, _HEIGHT, _WIDTH, _HEIGHT])
        panels = [figure.add_axes(tuple(np.array(place) / scale)) for place in places]
        _course(panels[0], course)
        _table(panels[1], confusions(labels, told))
        _mistakes(panels[2], images, labels, told)
        figure.savefig(out)


def _course(axes: Axes, course: Course) -> None:
    """Draw the loss of each batch, and the accuracy after each epoch beside it."""
    losses, epochs = np.array(course.losses), len(course.accuracies)
    at = np.linspace(0, epochs, len(losses), endpoint=False)
    axes.plot(at, losses, color=_BLUE, lw=0.5, alpha=0.35)
    window = np.ones(min(_SMOOTHED, len(losses)))
    smooth = np.convolve(losses, window, "same") / np.convolve(losses * 0 + 1, window, "same")
    axes.plot(at, smooth, color=_BLUE, lw=1.8)
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy of a batch", color=_BLUE)
    beside = axes.twinx()
    errors = 100 * (1 - np.array(course.accuracies))
    beside.plot(np.arange(1, epochs + 1), errors, "o-", color=_ORANGE, ms=3.5, lw=1.2)
    beside.set_ylim(0, max(10.0, 1.1 * float(errors[1:].max(initial=1.0))))
    beside.set_ylabel("held-out digits told wrong, %", color=_ORANGE)
    for side in (axes, beside):
        side.spines["top"].set_visible(False)
    milliseconds = 1e3 * course.seconds / len(losses)
    caption = f"{epochs} epochs in {course.seconds:.1f} s, {milliseconds:.2f} ms a batch"
    write_titles(axes, "Loss and error", caption)


def _table(axes: Axes, table: npt.NDArray[np.int64]) -> None:
    """Show the confusions; the diagonal is what was told right."""
    shown = np.log1p(table)
    axes.imshow(shown, cmap="Blues", vmin=0)
    for row, column in np.argwhere(table):
        dark = shown[row, column] > 0.6 * shown.max()
        colour = "white" if dark else "black" if row == column else _ORANGE
        axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.set_xlabel("told as")
    axes.set_ylabel("digit")
    right = int(np.trace(table))
    write_titles(
        axes,
        "Confusions",
        f"{right} of {table.sum()} held-out digits right, {right / table.sum():.2%}",
    )


def _mistakes(axes: Axes, images: Array, labels: Labels, told: Labels) -> None:
    """Show digits that were told wrong, and then right ones, as tiles."""
    axes.set_axis_off()
    wrong = np.flatnonzero(labels != told)
    others = np.flatnonzero(labels == told)
    chosen = np.concatenate([wrong, others])[:_MISTAKES]
    columns, size = 3, images.shape[-1]
    for number, index in enumerate(chosen):
        row, column = divmod(number, columns)
        left, top = column * 1.35 * size, row * 1.35 * size
        box = (left, left + size, top + size, top)
        axes.imshow(images[index, 0], cmap="gray_r", extent=box, interpolation="nearest")
        mistaken = labels[index] != told[index]
        text = f"{labels[index]} told as {told[index]}" if mistaken else f"{labels[index]}, right"
        axes.text(left, top - 2, text, color=_ORANGE if mistaken else MUTED, fontsize=9)
    axes.set_xlim(0, columns * 1.35 * size)
    axes.set_ylim(-(-_MISTAKES // columns) * 1.35 * size, -0.2 * size)
    title = "Mistakes" if len(wrong) >= _MISTAKES else "Mistakes, and digits told right"
    write_titles(axes, title, f"{len(wrong)} of {len(labels)}")
