"""``python -m fastconv bench``: the command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastconv.contract.errors import DeviceError
from fastconv.cuda_device import cuda_info

from .cases import Case, load, select, suite_names
from .registry import PEERS, TRUTHS, devices, installed_peers, missing_modules, other_peers
from .report import BEST, FUNCTIONAL, PACKED, build, print_report
from .runner import BenchError, Options, Result
from .runner import run as measure

__all__ = ["add_arguments", "run"]

_TABLE_WIDTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ``bench`` command."""
    others = dict.fromkeys(
        name for kind in PEERS for device in PEERS[kind] for name in other_peers(device, kind)
    )
    parser.add_argument(
        "suite",
        metavar="SUITE",
        help=f"{', '.join(suite_names())}; or a text file of problem lines, or one problem line",
    )
    parser.add_argument(
        "--peers",
        metavar="LIST",
        help=f"comma-separated: {', '.join(others)}, or none (default: those installed)",
    )
    parser.add_argument(
        "--device",
        choices=devices(),
        default="cpu",
        help="what to compute on (default: cpu); cuda takes the device's time, L2 flushed",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of every library (default: the processors that this process may use)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument(
        "--rows", metavar="REGEX", help="only the rows whose name or problem line matches"
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="also time the fastest of all kernels on each row, to judge the dispatcher's choice",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a first look, not a figure"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="give up on a library's row after this time (default: 20)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the ``bench`` command.

    Returns
    -------
    int
        0; 1 where fastconv's own result was wrong or failed on some row; 2 where an argument is
        wrong, a package is missing or the run could not be finished.

    Raises
    ------
    DeviceError
        Where a GPU is asked for and there is none, or CuPy is missing; no process was started.
    """
    _require_device(args.device)
    try:
        cases = _cases(args)
        kind = _kind(cases, args)
        own = [PACKED, FUNCTIONAL, *([BEST] if args.best else [])]
        libraries = [*own, *_peers(args.peers, args.device, kind)]
        options = _options(args, kind)
        _check_json(args.json)
        setting = TRUTHS[kind].setting()  # before minutes of measuring on data that is not there
        result = _with_progress(cases, libraries, options)
    except ModuleNotFoundError as error:
        print(f"bench: {error}; pip install 'fastconv[bench]' brings it", file=sys.stderr)
        return 2
    except (ValueError, BenchError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    notes = [PEERS[kind][args.device][name].note for name in libraries]
    report = build(args.suite, result, [note for note in [setting, *notes] if note])
    _print(report, libraries)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    failed = any(name in row["refused"] for row in report["rows"] for name in own)
    return 1 if failed else 0


def _cases(args: argparse.Namespace) -> list[Case]:
    cases = load(args.suite)
    if args.rows is None:
        return cases
    chosen = select(cases, args.rows)
    if not chosen:
        raise ValueError(f"--rows: got {args.rows!r}, which matches no row of {args.suite}")
    return chosen


def _kind(cases: Sequence[Case], args: argparse.Namespace) -> str:
    """Return the one kind that all rows are of."""
    kinds = {case.kind for case in cases}
    if len(kinds) > 1:
        raise ValueError(f"suite: {args.suite} holds {' and '.join(sorted(kinds))} rows, want one")
    (kind,) = kinds
    if args.device not in PEERS[kind]:
        raise ValueError(
            f"--device: got {args.device}, want {' or '.join(PEERS[kind])} for {kind} rows"
        )
    return kind


def _require_device(device: str) -> None:
    """Raise where fastconv cannot compute on a device here."""
    if device == "cpu":
        return
    cuda_info()
    if missing := missing_modules(PACKED, device):
        raise DeviceError(
            f"--device: {device} needs {', '.join(missing)}, which is not installed: "
            "pip install 'fastconv[cuda13]' (or 'fastconv[cuda12]')"
        )


def _peers(text: str | None, device: str, kind: str) -> list[str]:
    """Return the peers to run, checked: known, and installed."""
    installed = installed_peers(device, kind)
    if text is None:
        return installed
    others = other_peers(device, kind)
    names = [name.strip() for name in text.split(",") if name.strip() and name != "none"]
    for name in names:
        if name not in others:
            raise ValueError(
                f"--peers: got {name!r}, want some of {', '.join(others)} on the device {device}"
                f" for {kind} rows"
            )
        if name not in installed:
            need = ", ".join(PEERS[kind][device][name].modules)
            raise ValueError(f"--peers: {name} needs the module {need}, which is not installed")
    return list(dict.fromkeys(names))


def _options(args: argparse.Namespace, kind: str) -> Options:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = (available or 1) if args.threads is None else args.threads
    if threads < 1:
        raise ValueError(f"--threads: got {threads}, want at least 1")
    if args.limit <= 0:
        raise ValueError(f"--limit: got {args.limit}, want more than 0")
    if args.quick:
        return Options(threads, 0.08, rounds=1, limit=args.limit, device=args.device, kind=kind)
    return Options(threads, limit=args.limit, device=args.device, kind=kind)


def _check_json(path: Path | None) -> None:
    """Raise before minutes of measuring where the report could not be written after them."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ValueError(f"--json: got {path}, whose folder does not exist")


def _with_progress(cases: list[Case], libraries: Sequence[str], options: Options) -> Result:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=len(cases))
        return measure(
            cases,
            libraries,
            options,
            lambda text, done: bar.update(task, description=text, completed=done),
        )


def _print(report: dict[str, Any], libraries: Sequence[str]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=_TABLE_WIDTH)
    print_report(report, libraries, console)
