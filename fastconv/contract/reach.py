"""What one output position sees of the input along an axis, in exact fractions.

Operators that enlarge an axis step by less than one sample from output to output, so reaches are
intervals of real numbers, and an output sees the whole numbers within. Following them through a
stack is then a product and a sum for each layer, whatever enlarges or reduces what.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from .padding import Pads

__all__ = ["Reach", "transposed_reach", "window_reach"]


class Reach(NamedTuple):
    """What the outputs of one axis see.

    Output ``o`` sees no more than the samples from ``start + o * step`` to ``start + o * step +
    size - 1``, both included.

    Parameters
    ----------
    size : Fraction
        Extent: as many samples are seen at most as fit.
    step : Fraction
        Samples from what one output sees to what the next one does.
    start : Fraction
        Where what output 0 sees begins; negative inside padding.
    """

    size: Fraction
    step: Fraction
    start: Fraction

    def through(self, later: Reach) -> Reach:
        """Return what an output sees of this layer's input through a `later` layer.

        Examples
        --------
        >>> (three,) = window_reach((3,), (1,), ((1, 1),), (1,))
        >>> (half,) = window_reach((2,), (2,), ((0, 0),), (1,))
        >>> [str(number) for number in three.through(half)]
        ['4', '2', '-1']
        """
        size = self.size + (later.size - 1) * self.step
        return Reach(size, self.step * later.step, self.start + later.start * self.step)


def window_reach(
    kernel_size: tuple[int, ...], stride: tuple[int, ...], padding: Pads, dilation: tuple[int, ...]
) -> tuple[Reach, ...]:
    """Return what a window sees that slides over the input."""
    return tuple(
        Reach(Fraction(hole * (taps - 1) + 1), Fraction(step), Fraction(-low))
        for taps, step, (low, _), hole in zip(kernel_size, stride, padding, dilation, strict=True)
    )


def transposed_reach(
    kernel_size: tuple[int, ...], stride: tuple[int, ...], padding: Pads, dilation: tuple[int, ...]
) -> tuple[Reach, ...]:
    """Return what outputs see in whose windows samples lie: those of the window turned around.

    Examples
    --------
    >>> (axis,) = transposed_reach((4,), (2,), ((1, 1),), (1,))
    >>> [str(number) for number in axis]
    ['5/2', '1/2', '-1']
    """
    made = []
    for taps, step, (low, _), hole in zip(kernel_size, stride, padding, dilation, strict=True):
        extent = hole * (taps - 1)
        made.append(
            Reach(1 + Fraction(extent, step), Fraction(1, step), Fraction(low - extent, step))
        )
    return tuple(made)
