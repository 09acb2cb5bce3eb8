"""The roofline forecast of CUDA kernels for GPU models that need not be there.

``python -m fastconv forecast SUITE`` tells for each problem and model which kernel a call would run
and what bounds its time: counted, never measured. `forecast` returns the same as values. Neither
needs a GPU, a CUDA package or Numba.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .cuda_device import EMULATED, MODELS, use_device
from .dispatch import list_candidates
from .errors import FastconvError
from .problem import ConvProblem, parse_line

if TYPE_CHECKING:
    from .kernels.cuda.forecast import Forecast

__all__ = ["add_arguments", "forecast", "run"]

_COLUMNS = ("forecast ms", "arithmetic", "shared", "waves", "memory", "l2", "launch")


def forecast(what: ConvProblem | str, gpu: str = "A100") -> list[Forecast]:
    """Forecast every kernel that can run a problem on a GPU model.

    Parameters
    ----------
    what : ConvProblem or str
        A problem or a problem line (see `fastconv.problem.parse_line`), on whichever device.
    gpu : str
        A name of `fastconv.cuda_device.MODELS`.

    Returns
    -------
    list of Forecast
        Lowest time first: that is the kernel a call would run, unless it was forced or tuned. Empty
        where no CUDA kernel can run the problem.

    Examples
    --------
    >>> best, *others = forecast("g512ic512ih28oc512oh28kh3ph1", "RTX 4090")
    >>> best.kernel
    'cuda.depthwise'
    """
    from .kernels.cuda.forecast import forecast as forecast_kernel

    if gpu not in MODELS:
        raise FastconvError(f"gpu: got {gpu!r}, want one of {', '.join(MODELS)}")
    problem = parse_line(what)[0] if isinstance(what, str) else what
    problem = problem.with_(device="cuda")
    with use_device(EMULATED, MODELS[gpu]) as device:
        able = [each for each in list_candidates(problem, packed=True) if not each.reasons]
    able.sort(key=lambda each: each.seconds)
    return [forecast_kernel(each.spec.name, problem, device) for each in able]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ``forecast`` command."""
    parser.add_argument("suite", help="a suite of the benchmark, a file of problems or one line")
    parser.add_argument("--gpu", nargs="+", metavar="MODEL", help=f"{', '.join(MODELS)} (all)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the lines that match")
    parser.add_argument(
        "--all", action="store_true", help="every kernel that can run a row, not only the chosen"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the forecasts there too")


def run(arguments: argparse.Namespace) -> int:
    """Run the ``forecast`` command and return 0."""
    cases = importlib.import_module("fastconv.bench.cases")
    told = importlib.import_module("fastconv.kernels.cuda.forecast")
    try:
        rows = cases.select(cases.load(arguments.suite), arguments.rows)
    except ValueError as error:
        raise FastconvError(str(error)) from None
    if not rows:
        raise FastconvError(f"--rows: got {arguments.rows!r}, which matches no row")
    written = []
    for gpu in arguments.gpu or MODELS:
        found = [(case, forecast(case.problem, gpu)) for case in rows]
        shown = [(case, each if arguments.all else each[:1]) for case, each in found]
        print(_table(arguments.suite, gpu, [(case.name, each) for case, each in shown]))
        total = sum(each[0].forecast_ms * case.count for case, each in found if each)
        print(f"forecast of all rows, each as often as it runs: {total:.3f} ms\n")
        written += [
            {"name": case.name, "count": case.count, **asdict(one)}
            for case, each in shown
            for one in each
        ]
    print(f"A forecast, not a measurement.\nCounted: {told.COUNTED}.")
    print(f"Not counted: {told.NOT_COUNTED}.")
    if arguments.json is not None:
        footnote = {"counted": told.COUNTED, "not_counted": told.NOT_COUNTED}
        text = json.dumps({"title": "forecast", **footnote, "forecasts": written}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _table(suite: str, gpu: str, rows: Sequence[tuple[str, Sequence[Forecast]]]) -> str:
    """Return the forecasts of one model as text, milliseconds but for blocks and MiB."""
    lines = [
        f"Forecast of {suite} on {gpu}, ms (bounds in full; the one that decides is named)",
        f"{'row':<30} {'kernel':<20} "
        + " ".join(f"{name:>11}" for name in _COLUMNS)
        + f"  {'decides':<10} {'blocks':>7} {'rounds':>7} {'MiB':>8} {'L2 MiB':>8}",
    ]
    for name, found in rows:
        if not found:
            lines.append(f"{name:<30} no CUDA kernel can run it: see explain")
        for each in found:
            times = (each.forecast_ms, *each.bounds_ms.values())
            sizes = (each.memory_bytes / 2**20, each.l2_bytes / 2**20)
            lines.append(
                f"{name:<30} {each.kernel:<20} "
                + " ".join(f"{time:>11.4f}" for time in times)
                + f"  {each.decides:<10} {each.blocks:>7} {each.rounds:>7.2f} "
                + " ".join(f"{size:>8.2f}" for size in sizes)
            )
    return "\n".join(lines)
