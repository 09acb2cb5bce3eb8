"""The demo: photographs through image filters, a ResNet-style stem and a residual block.

`cases` says what is computed, `engines` runs the same work with fastconv, SciPy and PyTorch,
`report` prints the table and `picture` draws the outputs. `sparse` is the demo of sparse layers,
`train` that of learning.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..contract.errors import FastconvError

__all__ = ["check_picture", "run", "say"]


def run(out: Path) -> int:
    """Run every case with every engine, draw a picture and print a table.

    Parameters
    ----------
    out : Path
        PNG file to write.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    FastconvError
        Where `out` cannot be written; nothing has been computed then.
    """
    check_picture(out)
    from . import cases, engines, picture, report

    china, flower = cases.photographs()
    say("fastconv: compiling or loading kernels, then timing")
    results = [engines.run_fastconv(case) for case in cases.image_cases(china, flower)]
    results.append(engines.run_fastconv(cases.block_case(results[-1].y)))
    chosen = [result.case for result in results]
    say("SciPy, then PyTorch in a process of its own, where they are installed")
    scipy = engines.run_scipy(chosen)
    torch = engines.run_torch(chosen)
    print(report.table(results, {"SciPy": scipy, "PyTorch": torch}))
    picture.draw(out, china, flower, results)
    print(f"\nwrote {out}")
    return 0


def check_picture(out: Path) -> None:
    """Raise where a picture cannot be written."""
    if out.suffix != ".png" or not os.access(out.parent, os.W_OK):
        raise FastconvError(f"--out: got {str(out)!r}, want a .png file in a folder to write in")


def say(text: str) -> None:
    """Tell on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)
