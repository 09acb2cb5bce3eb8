"""The audit as a table, for ``python -m fastconv audit``."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from fastconv.errors import DeviceError

from .audit import Audited, audit_kernel, kernels_to_audit
from .compile import ARCHITECTURES

__all__ = ["run"]

_COLUMNS = ("sm", "registers", "spills", "shared", "blocks", "FMA share", "loads of the main loop",
            "fp64", "local", "")  # fmt: skip


def _row(found: Audited) -> tuple[str, ...]:
    cubin = found.cubin
    return (
        found.arch.removeprefix("sm_"),
        str(cubin.registers),
        str(cubin.spill_stores + cubin.spill_loads),
        str(cubin.shared),
        str(found.blocks),
        f"{found.share:.1%}" if found.share else "-",
        ", ".join(f"{count} {name}" for name, count in sorted(found.loads.items())) or "-",
        str(found.doubles),
        str(found.local),
        "; ".join(found.faults) or "ok",
    )


def run(arguments: argparse.Namespace) -> int:
    """Audit and print; return 0, or 1 where a kernel misses a bar.

    Parameters
    ----------
    arguments : Namespace
        With `kernel`, a part of the names, and `sm`, architectures or None.
    """
    archs = arguments.sm or ARCHITECTURES
    for arch in archs:
        if arch not in ARCHITECTURES:
            raise DeviceError(f"--sm: got {arch!r}, want some of {', '.join(ARCHITECTURES)}")
    chosen = [each for each in kernels_to_audit() if arguments.kernel in each[0].name]
    if not chosen:
        raise DeviceError(f"KERNEL: got {arguments.kernel!r}, which is in no kernel's name")
    console, faults = Console(), 0
    for kernel, bars in chosen:
        table = Table(*_COLUMNS, title=kernel.name, title_justify="left")
        for arch in archs:
            found = audit_kernel(kernel, bars, arch)
            table.add_row(*_row(found))
            faults += bool(found.faults)
        console.print(table)
    console.print(f"{len(chosen)} kernels, {faults} of {len(chosen) * len(archs)} miss a bar")
    return 1 if faults else 0
