"""Machines that figures are shipped of, and which of them a CPU is, or is nearest to.

Zen 3, Zen 4 and Zen 5 were measured; the others are put together from what is published of them:

- [I] Intel 64 and IA-32 Architectures Optimization Reference Manual, the chapters on each core:
  ports, vectors loaded and stored a cycle, peak and sustained bytes a cycle of the caches;
- [U] uops.info and Agner Fog's instruction tables: latency of a multiply-add, gathers, and the one
  port that shuffles of two 512-bit sources have on Intel's cores;
- [A] Arm's software optimization guides of Neoverse N1 and V1, and Dougall Johnson's measurements
  of Apple's M1: pipes, latencies, loads and stores.

Clocks are those of a server whose cores are all busy with vectors, bandwidths of memory what one
core, and two, draw from it. They are rough; ``python -m fastconv calibrate`` replaces them all.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastconv.contract.spec import DeviceInfo

from .figures import Figures

__all__ = ["SHIPPED", "ZEN4_FIGURES", "Shipped", "nearest"]


class Shipped(NamedTuple):
    """A machine and its figures.

    Parameters
    ----------
    name : str
        Of its core.
    models : str
        A pattern of `DeviceInfo.model` of the machines that it is.
    kin : str
        A pattern of those that it is nearest to, of all that are shipped.
    figures : dict of int to Figures
        By the bytes of a vector.
    """

    name: str
    models: str
    kin: str
    figures: dict[int, Figures]


def _varied(figures: Figures, **changes: float) -> Figures:
    return Figures(**{**vars(figures), **changes})


def _figures(
    clock: float, memory: float, *, l3: float, shared_l3: float = 2.0, **cycles: float
) -> Figures:
    """Make figures of which the rest follows: two threads get twice, stores read a line first."""
    values: dict[str, Any] = {
        "clock": clock,
        "l3": l3,
        "l3_all": shared_l3 * l3 * clock,
        "memory": memory,
        "memory_all": 2 * memory,
        "written": 0.8 * memory,
        "written_all": 1.6 * memory,
        "past_all": 2.5 * memory,
        "task": 37 / clock,
        "handover": 7e-6,
        "wake": 100e-6,
    }
    return Figures(**{**values, **cycles})


_ZEN4 = _figures(
    3.69e9, 30e9, l3=22, multiply_adds=1.0, loads=1.0, stores=0.5, latency=4.0, gather=19.8,
    transposition=91, far_loads=1.05, l2=31.6, l3_all=170e9, memory_all=45e9, written=38e9,
    written_all=35e9, past_all=86e9,
)  # fmt: skip
#: Of the machine that the profile was fitted on, two of its cores, which share it with others.
ZEN4_FIGURES = {
    64: _ZEN4,
    32: _varied(
        _ZEN4, multiply_adds=2.0, loads=2.0, stores=1.0, gather=5.1, transposition=19, far_loads=1.6
    ),
    # A product and a sum count for a multiply-add.
    16: _varied(
        _ZEN4,
        multiply_adds=2.0,
        loads=2.0,
        stores=1.0,
        latency=3.0,
        gather=2.4,
        transposition=4,
        far_loads=1.0,
    ),
}

# Two of its cores, which others use as well: the best of several runs of `calibrate`.
_ZEN3 = _figures(
    3.2e9, 20e9, l3=22, multiply_adds=2.0, loads=2.0, stores=1.0, latency=4.0, gather=7.3,
    transposition=27, far_loads=1.55, l2=32, l3_all=125e9, memory_all=35e9, written=17e9,
    written_all=28e9, past_all=77e9, handover=10e-6, wake=120e-6,
)  # fmt: skip
_ZEN3_FIGURES = {
    32: _ZEN3,
    # As on Zen 4, a product and a sum count for a multiply-add.
    16: _varied(_ZEN3, latency=3.0, gather=2.4, transposition=4, far_loads=1.0),
}

# A register tile's loads from L2: of 25 and 29 rows and one vector, 2048 and 768 channels.
_ZEN5 = _figures(
    4.253e9, 40.9e9, l3=27.2, multiply_adds=1.91, loads=1.99, stores=0.99, latency=4.01,
    gather=19.9, transposition=50, far_loads=1.2, l2=50, l3_all=235e9, memory_all=83.7e9,
    written=37.6e9, written_all=70.9e9, past_all=146e9,
)  # fmt: skip
_ZEN5_FIGURES = {
    64: _ZEN5,
    32: _varied(_ZEN5, multiply_adds=1.93, gather=5.1, transposition=19, far_loads=1.2),
    16: _varied(_ZEN5, multiply_adds=1.93, latency=3.0, gather=2.4, transposition=4, far_loads=1.0),
}

# [I] two multiply-adds and two loads of 32 bytes a cycle, one store; L2 some 25 bytes a cycle, L3
# 18 on a ring of few cores. [U] latency 5, gather of eight 12, 24 shuffles on one port.
_HASWELL = _figures(
    2.9e9, 11e9, l3=18, multiply_adds=2.0, loads=2.0, stores=1.0, latency=5.0, gather=12,
    transposition=26, far_loads=1.2, l2=25,
)  # fmt: skip
# [I] two ports of 64 bytes; L2 sustains 48 bytes a cycle, L3 10. [U] latency 4, gather of sixteen
# 11, 64 shuffles on one port.
_SKYLAKE = _figures(
    2.6e9, 12e9, l3=10, multiply_adds=2.0, loads=2.0, stores=1.0, latency=4.0, gather=11,
    transposition=66, far_loads=1.2, l2=48,
)  # fmt: skip
# [I] as Skylake's; L2 48 bytes a cycle, L3 10. [U] the same shuffles.
_ICE_LAKE = _varied(_SKYLAKE, clock=2.9e9, memory=13e9, memory_all=26e9, l3_all=58e9)
# [I] as Ice Lake's; memory is DDR5, L3 a larger mesh.
_SAPPHIRE_RAPIDS = _varied(_ICE_LAKE, clock=3.0e9, l3=9, l3_all=54e9)
# [A] four multiply-adds of 16 bytes a cycle, latency 4; three loads, two stores; no gather: four
# loads of one element. The shared L2 gives 64 bytes a cycle, the system cache is its L3.
_APPLE_M = _figures(
    3.2e9, 58e9, l3=20, shared_l3=1.3, multiply_adds=4.0, loads=3.0, stores=2.0, latency=4.0,
    gather=4, transposition=4, far_loads=2.0, l2=60, memory_all=62e9,
)  # fmt: skip
# [A] two multiply-adds of 16 bytes a cycle, two loads, one store; L2 32 bytes a cycle at most.
_NEOVERSE_N1 = _figures(
    2.6e9, 14e9, l3=10, multiply_adds=2.0, loads=2.0, stores=1.0, latency=4.0, gather=4,
    transposition=6, far_loads=1.5, l2=20,
)  # fmt: skip
# [A] four multiply-adds of 16 bytes a cycle, three loads, two stores.
_NEOVERSE_V1 = _varied(
    _NEOVERSE_N1, multiply_adds=4.0, loads=3.0, stores=2.0, transposition=4, far_loads=2.0, l2=32,
    memory=25e9, memory_all=50e9, written=20e9, written_all=40e9, past_all=62e9,
)  # fmt: skip

_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"
#: A machine's kin are looked for in this order, so that the widest pattern comes last.
SHIPPED = (
    Shipped("Zen 4", _AMD + r" 25\.(1[6-9]|2\d|3[01]|9[6-9]|1[0-2]\d|16\d|17[0-5])\.",
            _AMD + r" (2[45]|1\d)\.", ZEN4_FIGURES),
    Shipped("Zen 3", _AMD + r" 25\.(\d|1[0-5]|3[2-9]|4[0-7]|6[4-9]|[78]\d|9[0-5])\.",
            _AMD + r" 2[0-3]\.", _ZEN3_FIGURES),
    Shipped("Zen 5", _AMD + r" 26\.([0-9]|[12]\d|3[01]|6[4-9]|7\d)\.", _AMD, _ZEN5_FIGURES),
    Shipped("Haswell", _INTEL + r" 6\.(60|61|63|69|70|71|79|86)\.", _INTEL, {32: _HASWELL}),
    Shipped("Skylake-X", _INTEL + r" 6\.85\.", _INTEL + r" 6\.102\.", {64: _SKYLAKE}),
    Shipped("Ice Lake", _INTEL + r" 6\.(106|108|125|126)\.", _INTEL + r" 6\.(140|141|167)\.",
            {64: _ICE_LAKE}),
    Shipped("Sapphire Rapids", _INTEL + r" 6\.(143|207)\.", _INTEL, {64: _SAPPHIRE_RAPIDS}),
    Shipped("Apple M", r"0x61 |arm$", r"0x61|arm$", {16: _APPLE_M}),
    Shipped("Neoverse V1", r"0x41 0xd4[0f]\.", r"0x41 0xd[489]", {16: _NEOVERSE_V1}),
    Shipped("Neoverse N1", r"0x41 0xd0c\.", "", {16: _NEOVERSE_N1}),
)  # fmt: skip


def nearest(device: DeviceInfo) -> tuple[Shipped, bool]:
    """Return what is shipped that a machine is, or is nearest to, and whether it is that one.

    Nearest is a core of its own family with vectors as wide, else of its vendor, else the machine
    that all cycles were fitted on.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from fastconv.kernels.cpu.machine.zen4 import ZEN4
    >>> made, is_it = nearest(replace(ZEN4.device, model="GenuineIntel 6.173.1"))
    >>> made.name, is_it
    ('Sapphire Rapids', False)
    """
    wide = [made for made in SHIPPED if device.vector_bytes in made.figures]
    arm = device.isa == "neon"
    same = [made for made in wide if made.name.startswith(("Apple", "Neoverse")) == arm]
    for made in same:
        if re.match(made.models, device.model):
            return made, True
    for made in same:
        if re.match(made.kin, device.model):
            return made, False
    return same[0], False
