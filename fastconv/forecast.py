"""The roofline forecast of CUDA kernels for GPU models that need not be there.

``python -m fastconv forecast SUITE`` tells for each problem and model which kernel a call would run
and what bounds its time: counted, never measured. `forecast` returns the same as values. Neither
needs a GPU, a CUDA package or Numba; only ``--count``, which runs the rows in the emulator, needs
the packages.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .contract.errors import FastconvError
from .contract.problem import ConvProblem
from .contract.problem_line import parse_line
from .cuda_device import EMULATED, MODELS, named_model, use_device
from .dispatch import list_candidates

if TYPE_CHECKING:
    from .kernels.cuda.forecast.forecast import Forecast

__all__ = ["add_arguments", "forecast", "run"]

_COLUMNS = ("forecast ms", "arithmetic", "shared", "waves", "memory", "l2", "launch")


def forecast(
    what: ConvProblem | str, gpu: str = "A100", *, best: bool = False, count: bool = False
) -> list[Forecast]:
    """Forecast every kernel that can run a problem on a GPU model.

    Parameters
    ----------
    what : ConvProblem or str
        A problem or a problem line (see `fastconv.contract.problem_line.parse_line`), on whichever
        device.
    gpu : str
        A name of `fastconv.cuda_device.MODELS`.
    best : bool
        Whether to leave out all but the kernel a call would run.
    count : bool
        Whether to run each kernel in the emulator and take the sectors and bank conflicts counted
        there (about 0.5 GFLOP/s; needs numba-cuda).

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
    from .kernels.cuda.forecast.forecast import forecast as forecast_kernel

    model = named_model(gpu)
    problem = parse_line(what)[0] if isinstance(what, str) else what
    problem = problem.with_(device="cuda")
    with use_device(EMULATED, model):
        candidates = list_candidates(problem, packed=True)
    able = [candidate for candidate in candidates if not candidate.reasons]
    able.sort(key=lambda candidate: candidate.seconds)
    chosen = able[:1] if best else able
    return [forecast_kernel(candidate.spec.name, problem, model, count) for candidate in chosen]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ``forecast`` command."""
    parser.add_argument("suite", help="a suite of the benchmark, a file of problems or one line")
    parser.add_argument("--gpu", nargs="+", metavar="MODEL", help=f"{', '.join(MODELS)} (all)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the lines that match")
    parser.add_argument(
        "--all", action="store_true", help="every kernel that can run a row, not only the chosen"
    )
    parser.add_argument(
        "--count",
        action="store_true",
        help="run each row in the emulator and count its sectors and bank conflicts",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the forecasts there too")


def _models(words: list[str]) -> list[str]:
    """Return the models that words of the command line name; a shell splits ``RTX 4090`` in two."""
    names, at = list[str](), 0
    while at < len(words):
        two = " ".join(words[at : at + 2])
        if two.lower() in (name.lower() for name in MODELS if " " in name):
            names.append(named_model(two).name)
            at += 2
        else:
            names.append(named_model(words[at]).name)
            at += 1
    return names


def run(arguments: argparse.Namespace) -> int:
    """Run the ``forecast`` command and return 0."""
    cases = importlib.import_module("fastconv.bench.cases")
    told = importlib.import_module("fastconv.kernels.cuda.forecast.forecast")
    try:
        rows = cases.select(cases.load(arguments.suite), arguments.rows)
    except ValueError as error:
        raise FastconvError(str(error)) from None
    if not rows:
        raise FastconvError(f"--rows: got {arguments.rows!r}, which matches no row")
    if arguments.count and find_spec("numba_cuda") is None:
        raise FastconvError(
            "--count runs rows in the emulator, which needs numba-cuda: "
            "pip install 'fastconv[cuda-audit]'"
        )
    written = []
    for gpu in _models(arguments.gpu) if arguments.gpu else MODELS:
        by_case = [
            (case, forecast(case.problem, gpu, best=not arguments.all, count=arguments.count))
            for case in rows
        ]
        named = [(case.name, forecasts) for case, forecasts in by_case]
        print(_table(arguments.suite, gpu, named))
        total = sum(
            forecasts[0].forecast_ms * case.count for case, forecasts in by_case if forecasts
        )
        print(f"forecast of all rows, each as often as it runs: {total:.3f} ms\n")
        written += [
            {"name": case.name, "count": case.count, **asdict(prediction)}
            for case, forecasts in by_case
            for prediction in forecasts
        ]
    print(f"A forecast, not a measurement.\nCounted: {told.COUNTED}.")
    if arguments.count:
        print(f"Counted {told.EMULATED}.")
    print(f"Not counted: {told.NOT_COUNTED}.")
    if arguments.json is not None:
        footnote = {"counted": told.COUNTED, "not_counted": told.NOT_COUNTED}
        text = json.dumps({"title": "forecast", **footnote, "forecasts": written}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _table(suite: str, gpu: str, rows: Sequence[tuple[str, Sequence[Forecast]]]) -> str:
    """Return the forecasts of one model as text, milliseconds but for blocks and MiB.

    Where accesses were counted: sectors a request, and wavefronts of the banks for each needed.
    """
    counted = any(
        prediction.sectors is not None for _, forecasts in rows for prediction in forecasts
    )
    lines = [
        f"Forecast of {suite} on {gpu}, ms (bounds in full; the one that decides is named)",
        f"{'row':<30} {'kernel':<20} "
        + " ".join(f"{name:>11}" for name in _COLUMNS)
        + f"  {'decides':<10} {'blocks':>7} {'rounds':>7} {'MiB':>8} {'L2 MiB':>8}"
        + (f" {'sectors':>8} {'banks':>6}" if counted else ""),
    ]
    for name, forecasts in rows:
        if not forecasts:
            lines.append(f"{name:<30} no CUDA kernel can run it: see explain")
        for prediction in forecasts:
            times = (prediction.forecast_ms, *prediction.bounds_ms.values())
            sizes = (prediction.memory_bytes / 2**20, prediction.l2_bytes / 2**20)
            lines.append(
                f"{name:<30} {prediction.kernel:<20} "
                + " ".join(f"{time:>11.4f}" for time in times)
                + f"  {prediction.decides:<10} {prediction.blocks:>7} {prediction.rounds:>7.2f} "
                + " ".join(f"{size:>8.2f}" for size in sizes)
                + (f" {prediction.sectors:>8.2f} {prediction.conflicts:>6.2f}" if counted else "")
            )
    return "\n".join(lines)
