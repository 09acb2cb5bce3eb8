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


def _row(audited: Audited) -> tuple[str, ...]:
    cubin = audited.cubin
    return (
        audited.arch.removeprefix("sm_"),
        str(cubin.registers),
        str(cubin.spill_stores + cubin.spill_loads),
        str(cubin.shared),
        str(audited.blocks),
        f"{audited.share:.1%}" if audited.share else "-",
        ", ".join(f"{count} {name}" for name, count in sorted(audited.loads.items())) or "-",
        str(audited.doubles),
        str(audited.local),
        "; ".join(audited.faults) or "ok",
    )


def _range(values: Iterable[int]) -> str:
    """Return what values lie between.

    >>> _range([3, 5, 4]), _range([2, 2])
    ('3 to 5', '2')
    """
    ordered = sorted(values)
    least, most = ordered[0], ordered[-1]
    return str(least) if least == most else f"{least} to {most}"


def markdown_row(audits: Sequence[Audited]) -> str:
    """Return a row of the table in `markdown`: one kernel on all architectures."""
    cubins = [audit.cubin for audit in audits]
    misses = [f"sm_{audit.arch[3:]} {fault}" for audit in audits for fault in audit.faults]
    cells = (
        audits[0].kernel,
        _range(cubin.registers for cubin in cubins),
        _range(cubin.spill_stores + cubin.spill_loads for cubin in cubins),
        _range(cubin.shared for cubin in cubins),
        _range(audit.blocks for audit in audits),
        *(f"{audit.share:.1%}" if audit.share else "-" for audit in audits),
        _range(audit.doubles for audit in audits),
        _range(audit.local for audit in audits),
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
    chosen = [
        (kernel, bars) for kernel, bars in kernels_to_audit() if arguments.kernel in kernel.name
    ]
    if not chosen:
        raise DeviceError(f"KERNEL: got {arguments.kernel!r}, which is in no kernel's name")
    console, faults, rows = Console(), 0, []
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=_TABLE_WIDTH)
    for kernel, bars in chosen:
        table = Table(*_COLUMNS, title=kernel.name, title_justify="left")
        audits = audit_everywhere(kernel, bars, archs)
        for audit in audits:
            table.add_row(*_row(audit))
            faults += bool(audit.faults)
        rows.append(markdown_row(audits))
        console.print(table)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(rows, archs), encoding="utf-8")
    console.print(f"{len(chosen)} kernels, {faults} of {len(chosen) * len(archs)} miss a bar")
    return 1 if faults else 0
