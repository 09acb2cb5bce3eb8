"""One machine's profile from another's: what was measured of a kernel, times what differs.

The cycles of a profile were fitted to kernels on one machine. On another a kernel executes the same
instructions, so that most of them stay; those that wait for the vector units, for the ports of L1
or for the bytes of a level of memory change as the figure of that unit does. `FOLLOWS` says which.
"""

from __future__ import annotations

from typing import Any

from .fields import Fields
from .figures import Figures
from .mechanisms import (
    Brgemm,
    FastFir,
    Fft,
    Gemm,
    Sparse,
    Window,
    Winograd,
    Winograd1d,
)
from .profile import Calls, Core, Memory, Packing, Profile

__all__ = ["FOLLOWS", "scale"]

#: The figure that a field rises with, after a minus sign falls with, or after an equals sign is.
#: Cycles that are not named are of instructions that every core executes at much the same rate.
FOLLOWS: dict[type[Fields], dict[str, str]] = {
    Core: {
        "nominal": "clock",
        "sustained": "clock",
        "peak": "clock",
        "multiply_adds": "=multiply_adds",
        "loads": "=loads",
        "far_loads": "=far_loads",
        "latency": "=latency",
    },
    Memory: {
        "operands": "memory_all",
        "scattered_writes": "memory_all",
        "far_rows": "memory_all",
        "repacked": "memory",
        "row_core": "memory",
        "rows": "memory_all",
        "window_l3": "l3_all",
        "window_memory": "memory_all",
        "weights_l3": "l3_all",
        "weights_memory": "memory_all",
        "weights_written": "past_all",
    },
    Calls: {"start": "-clock"},
    Packing: {
        "copy_start": "-clock",
        "tap": "-clock",
        "element": "-clock",
        "transform_start": "-clock",
    },
    Gemm: {"weights": "l3", "gathered": "gather", "transposed_vector": "transposition"},
    Brgemm: {
        "stored": "-stores",
        "transposed_lane": "transposition",
        "weights": "l3",
        "weights_cycle": "l2",
        "l2": "l2",
        "l3": "l3",
        "wait": "-clock",
    },
    Winograd: {"start": "-clock"},
    Winograd1d: {
        "transposed": "transposition",
        "transposed_parts": "transposition",
        "l2": "l2",
        "l3": "l3",
        "gathered": "gather",
    },
    Window: {"transposed": "transposition", "start": "-clock", "late_start": "-clock"},
    FastFir: {"folded": "transposition", "start": "-clock"},
    Fft: {"single": "clock", "double": "clock", "point": "-clock", "round": "-clock"},
    Sparse: {"start": "-clock"},
}


def scale(profile: Profile, before: Figures, after: Figures) -> Profile:
    """Return the profile of a machine whose figures are `after`, where `profile`'s are `before`.

    Examples
    --------
    >>> from fastconv.kernels.cpu.machine.shipped import ZEN4_FIGURES
    >>> from fastconv.kernels.cpu.machine.zen4 import ZEN4
    >>> figures = ZEN4_FIGURES[64]
    >>> faster = Figures(**{**vars(figures), "clock": 2 * figures.clock})
    >>> scale(ZEN4, figures, faster).core.peak / ZEN4.core.peak
    2.0
    """
    made: Profile = _scaled(profile, before, after)
    return made


def _scaled(part: Any, before: Figures, after: Figures) -> Any:
    follows = FOLLOWS.get(type(part), {})
    values = {}
    for name, value in vars(part).items():
        figure = follows.get(name, "")
        now = getattr(after, figure.lstrip("=-"), 0.0)
        if isinstance(value, Fields):
            values[name] = _scaled(value, before, after)
        elif figure.startswith("="):
            values[name] = now
        elif figure:
            ratio = now / getattr(before, figure.lstrip("-"))
            values[name] = value / ratio if figure.startswith("-") else value * ratio
        else:
            values[name] = value
    return type(part)(**values)
