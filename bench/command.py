"""``python -m fastconv bench``: the command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastconv.contract.errors import DeviceError, DTypeError, FastconvError
from fastconv.contract.problem import DTYPES
from fastconv.contract.processors import MOST_THREADS
from fastconv.cuda_device import cuda_info

from .baseline import QUICK, compare, print_comparison, read
from .cases import Case, in_dtype, load, select, suite_names
from .registry import PEERS, TRUTHS, devices, installed_peers, missing_modules, other_peers
from .report import BEST, FUNCTIONAL, MODULE, PACKED, build, print_overview, print_report
from .runner import BenchError, Options, Result
from .runner import run as measure

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add_arguments", "run"]

#: The suite that is every suite.
ALL = "all"

_TABLE_WIDTH = 200
#: Seconds of the longest limit: a day.
_LONGEST = 86_400
#: Seconds of timing for one library on one case, by kind of row where it is not 0.45.
_BUDGETS = {"network": 1.5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ``bench`` command."""
    others = dict.fromkeys(
        name for kind in PEERS for device in PEERS[kind] for name in other_peers(device, kind)
    )
    parser.add_argument(
        "suite",
        metavar="SUITE",
        help=f"{', '.join(suite_names())}; '{ALL}': each of them, with one table at the end; a "
        "text file of problem lines; or one problem line",
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
    _add_files(parser)
    parser.add_argument(
        "--rows", metavar="REGEX", help="only the rows whose name or problem line matches"
    )
    parser.add_argument(
        "--dtype",
        choices=list(DTYPES),
        help="element type of every row (default: what its line says); sparse rows and networks "
        "know float32 alone",
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="also time the fastest of all kernels on each row that is one operator, to judge the "
        "dispatcher's choice",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round: a first look, neither a figure nor one for --against",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="give up on a library's row after this time (default: 20)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Declare where reports go, and what they are compared with."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"write the report there too (of {ALL}: into that folder, SUITE.json)",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help=f"say which rows got slower or faster than noise since a report that --json wrote "
        f"(of {ALL}: a folder of them)",
    )


class _Run(NamedTuple):
    """One suite's run, checked: what to measure and where its report goes."""

    suite: str
    cases: list[Case]
    libraries: list[str]
    options: Options
    notes: list[str]
    json: Path | None
    baseline: dict[str, Any] | None

    @property
    def own(self) -> list[str]:
        """Return the columns that are fastconv's."""
        return [name for name in self.libraries if name.startswith(PACKED)]


def run(args: argparse.Namespace) -> int:
    """Run the ``bench`` command.

    Returns
    -------
    int
        0; 1 where fastconv's own result was wrong or failed on some row.

    Raises
    ------
    FastconvError
        Where an argument is wrong, a package is missing or the run could not be finished.
    DeviceError
        Where a GPU is asked for and there is none, or CuPy is missing; no process was started.
    """
    _require_device(args.device)
    try:
        runs = _runs(args)  # all are checked before minutes of measuring
        reports = [_measure(one, args) for one in runs]
    except ModuleNotFoundError as error:
        raise FastconvError(f"{error}; pip install 'fastconv[bench]' brings it") from None
    except (ValueError, BenchError) as error:
        raise FastconvError(str(error)) from None
    if len(reports) > 1:
        print_overview(reports, _console())
    failed = any(
        name in (*row["wrong"], *row["failed"])
        for one, report in zip(runs, reports, strict=True)
        for row in report["rows"]
        for name in one.own
    )
    return 1 if failed else 0


def _runs(args: argparse.Namespace) -> list[_Run]:
    """Return what to measure: one suite, or every one."""
    if args.suite != ALL:
        return [_planned(args, args.suite, args.json, args.against)]
    for option, path in (("--json", args.json), ("--against", args.against)):
        if path is not None and not path.is_dir():
            raise ValueError(
                f"{option}: got {path}, want a folder that exists: {ALL} is many files"
            )
    runs = []
    for suite in suite_names():
        files = [path and path / f"{suite}.json" for path in (args.json, args.against)]
        try:
            runs.append(_planned(args, suite, *files))
        except (NoRowsError, DTypeError):  # it has no such rows, or not in that type
            continue
        except ModuleNotFoundError as error:
            _console().print(f"left out: {error}", markup=False, highlight=False)
    if not runs:
        dtype = f" in {args.dtype}" if args.dtype else ""
        raise ValueError(f"--rows: got {args.rows!r}, which matches no row of any suite{dtype}")
    return runs


def _planned(
    args: argparse.Namespace, suite: str, json_path: Path | None, against: Path | None
) -> _Run:
    """Check one suite's arguments."""
    _check_json(json_path)
    cases = _cases(suite, args.rows, args.dtype)
    kind = _kind(suite, cases, args)
    own = [PACKED, FUNCTIONAL, MODULE, *([BEST] if args.best else [])]
    # Operators without a weight have no object that packs one beside their function, and networks
    # are a session and a module.
    own = [name for name in own if name in PEERS[kind][args.device]]
    libraries = [*own, *_peers(args, kind)]
    # Asked for first: a scan that is not there is told before anything is measured.
    notes = [TRUTHS[kind].setting(), *(PEERS[kind][args.device][name].note for name in libraries)]
    notes += [f"every row in {args.dtype}"] if args.dtype else []
    notes += [QUICK] if args.quick else []
    options = _options(args, kind)
    baseline = None if against is None else read(against)
    return _Run(
        suite, cases, libraries, options, [note for note in notes if note], json_path, baseline
    )


def _measure(one: _Run, args: argparse.Namespace) -> dict[str, Any]:
    """Measure a suite, print its report and write it."""
    result = _with_progress(one.cases, one.libraries, one.options)
    report = build(one.suite, result, one.notes)
    console = _console()
    print_report(report, one.libraries, console)
    if one.json is not None:
        try:
            one.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"--json: cannot write {one.json}: {error.strerror}") from None
    if one.baseline is not None:
        print_comparison(compare(report, one.baseline), str(args.against), console)
    return report


class NoRowsError(ValueError):
    """``--rows`` leaves nothing of a suite."""


def _cases(suite: str, rows: str | None, dtype: str | None) -> list[Case]:
    cases = load(suite)
    chosen = cases if rows is None else select(cases, rows)
    if not chosen:
        raise NoRowsError(f"--rows: got {rows!r}, which matches no row of {suite}")
    return chosen if dtype is None else [in_dtype(case, dtype) for case in chosen]


def _kind(suite: str, cases: Sequence[Case], args: argparse.Namespace) -> str:
    """Return the one kind that all rows are of."""
    kinds = {case.kind for case in cases}
    if len(kinds) > 1:
        raise ValueError(f"suite: {suite} holds {' and '.join(sorted(kinds))} rows, want one")
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
            f"--device: {device} needs the module {', '.join(missing)}, which is not installed: "
            "pip install 'fastconv[cuda13]' (or 'fastconv[cuda12]')"
        )


def _peers(args: argparse.Namespace, kind: str) -> list[str]:
    """Return the peers to run, checked: known, and installed."""
    installed = installed_peers(args.device, kind)
    if args.peers is None:
        return installed
    others = other_peers(args.device, kind)
    words = [name.strip() for name in args.peers.split(",")]
    names = [name for name in words if name not in ("", "none")]
    if args.suite == ALL:  # each suite takes those that know its kind of rows
        known = {name for each in PEERS for name in other_peers(args.device, each)}
        names = [name for name in names if name in others or name not in known]
    for name in names:
        if name not in others:
            raise ValueError(
                f"--peers: got {name!r}, want some of {', '.join(others)} on the device "
                f"{args.device} for {kind} rows"
            )
        if name not in installed:
            need = ", ".join(missing_modules(name, args.device, kind))
            raise ValueError(f"--peers: {name} needs the module {need}, which is not installed")
    return list(dict.fromkeys(names))


def _options(args: argparse.Namespace, kind: str) -> Options:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = min(available or 1, MOST_THREADS) if args.threads is None else args.threads
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"--threads: got {threads}, want 1 to {MOST_THREADS}")
    if not 0 < args.limit <= _LONGEST:  # nor NaN
        raise ValueError(f"--limit: got {args.limit}, want more than 0 and at most {_LONGEST}")
    budget, rounds = (0.08, 1) if args.quick else (_BUDGETS.get(kind, 0.45), 3)
    networks = kind == "network"
    return Options(
        threads, budget, rounds, args.limit, args.device, kind,
        slow=args.limit if networks else 0.5, fresh=networks,
    )  # fmt: skip


def _check_json(path: Path | None) -> None:
    """Raise before minutes of measuring where the report could not be written after them."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--json: got {path}, whose folder does not exist")
    if path.is_dir():
        raise ValueError(f"--json: got {path}, which is a folder, want a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ValueError(f"--json: got {path}, which cannot be written to")


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


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # A file or a pipe has no width of its own.
    return console if console.is_terminal else Console(width=_TABLE_WIDTH)
