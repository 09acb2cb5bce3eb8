"""The audit as tables, for ``python -m fastconv audit``: on the terminal, and as Markdown.

`AUDIT.md` beside this module is what ``python -m fastconv audit --markdown FILE`` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from fastconv.contract.errors import DeviceError

from .check import Audited, audit_everywhere, kernels_to_audit
from .compile import ARCHITECTURES

__all__ = ["markdown", "markdown_row", "run"]

_COLUMNS = ("sm", "registers", "spills", "shared", "blocks", "FMA share", "loads of the main loop",
            "fp64", "local", "")  # fmt: skip
#: Columns of text where the output has no width of its own.
_TABLE_WIDTH = 140


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


def _range(values: Iterable[int]) -> str:
    """Return what values lie between.

    >>> _range([3, 5, 4]), _range([2, 2])
    ('3 to 5', '2')
    """
    found = sorted(values)
    least, most = found[0], found[-1]
    return str(least) if least == most else f"{least} to {most}"


def markdown_row(found: Sequence[Audited]) -> str:
    """Return a row of the table in `markdown`: one kernel on all architectures."""
    cubins = [each.cubin for each in found]
    misses = [f"sm_{each.arch[3:]} {fault}" for each in found for fault in each.faults]
    cells = (
        found[0].kernel,
        _range(cubin.registers for cubin in cubins),
        _range(cubin.spill_stores + cubin.spill_loads for cubin in cubins),
        _range(cubin.shared for cubin in cubins),
        _range(each.blocks for each in found),
        *(f"{each.share:.1%}" if each.share else "-" for each in found),
        _range(each.doubles for each in found),
        _range(each.local for each in found),
        "; ".join(misses) or "ok",
    )
    return f"| {' | '.join(cells)} |"


def markdown(rows: Iterable[str], archs: Sequence[str]) -> str:
    """Return the audit of several kernels as Markdown."""
    shares = [f"FMA {arch.removeprefix('sm_')}" for arch in archs]
    columns = (
        "kernel",
        "registers",
        "spills",
        "shared",
        "blocks",
        *shares,
        "fp64",
        "local",
        "bars",
    )
    return "\n".join(
        (
            "# What the CUDA kernels are compiled to",
            "",
            "Written by `python -m fastconv audit --markdown FILE`; counted in machine code, not",
            "measured. Registers of a thread, bytes spilled and of static shared memory, blocks",
            "that share a multiprocessor, the part of the main loop that multiplies and adds on",
            "each architecture, instructions in float64 (where the kernel is not) and in local",
            "memory.",
            "",
            f"| {' | '.join(columns)} |",
            f"|{'---|' * len(columns)}",
            *rows,
            "",
        )
    )


def run(arguments: argparse.Namespace) -> int:
    """Audit and print; return 0, or 1 where a kernel misses a bar.

    Parameters
    ----------
    arguments : Namespace
        With `kernel`, a part of the names, `sm`, architectures or None, and `markdown`, a file to
        write or None.
    """
    archs = arguments.sm or ARCHITECTURES
    for arch in archs:
        if arch not in ARCHITECTURES:
            raise DeviceError(f"--sm: got {arch!r}, want some of {', '.join(ARCHITECTURES)}")
    chosen = [each for each in kernels_to_audit() if arguments.kernel in each[0].name]
    if not chosen:
        raise DeviceError(f"KERNEL: got {arguments.kernel!r}, which is in no kernel's name")
    console, faults, rows = Console(), 0, []
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=_TABLE_WIDTH)
    for kernel, bars in chosen:
        table = Table(*_COLUMNS, title=kernel.name, title_justify="left")
        found = audit_everywhere(kernel, bars, archs)
        for each in found:
            table.add_row(*_row(each))
            faults += bool(each.faults)
        rows.append(markdown_row(found))
        console.print(table)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(rows, archs), encoding="utf-8")
    console.print(f"{len(chosen)} kernels, {faults} of {len(chosen) * len(archs)} miss a bar")
    return 1 if faults else 0
