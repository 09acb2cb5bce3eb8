"""Compare a report with an earlier one: which rows got slower than noise.

A row counts as slower, or faster, where the quartiles of its calls do not overlap and the medians
are further apart than fresh processes of one program are: those spread by up to 1.07 on a quiet
machine. A drift of the whole machine shows in the peers, which are the same programs in both
reports: each row's ratio is divided by the median of theirs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from .report import FUNCTIONAL, MODULE, PACKED, geometric_mean

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["QUICK", "Comparison", "compare", "print_comparison", "read"]

#: How far apart the medians of fresh processes lie that run the same code.
_NOISE = 1.07
#: What makes figures incomparable where it differs.
_MACHINE = ("cpu", "model", "isa", "l1", "l2", "l3", "threads", "gpu")
#: What a report of one short round says of itself.
QUICK = "one short round a library (--quick): a first look, not figures to compare"
_FORMS = {PACKED: "packed", FUNCTIONAL: "functional", MODULE: "module"}


class Change(NamedTuple):
    """One row's medians, in milliseconds, and now over then without the machine's drift."""

    row: str
    form: str
    then: float
    now: float
    ratio: float


class Comparison(NamedTuple):
    """What differs between two reports.

    Parameters
    ----------
    slower, faster : list of Change
        Rows beyond noise, the largest change first.
    rows : int
        Rows that both reports have.
    mean : float or None
        Geometric mean of now over then, packed.
    drift : float
        Median of now over then over rows and peers; 1 where the reports share none.
    kernels : list of (row, then, now)
        Rows whose chosen kernel is another one.
    warnings : list of str
        Why the figures may not be comparable.
    """

    slower: list[Change]
    faster: list[Change]
    rows: int
    mean: float | None
    drift: float
    kernels: list[tuple[str, str, str]]
    warnings: list[str]


def read(path: Path) -> dict[str, Any]:
    """Read a report that ``--json`` wrote.

    Raises
    ------
    ValueError
        Where the file is missing or is no report: what is compared after minutes of measuring is
        looked at here.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--against: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"--against: {path} is no report that --json wrote: {error}") from error
    if not isinstance(report, dict) or not {"rows", "machine", "suite"} <= report.keys():
        raise ValueError(f"--against: {path} is no report that --json wrote")
    if not isinstance(report["machine"], dict) or not isinstance(report["rows"], list):
        raise ValueError(f"--against: {path} has no list of rows, or no machine")
    if not isinstance(report.get("setting", []), list):
        raise ValueError(f"--against: {path} has no list of sentences as its setting")
    for number, row in enumerate(report["rows"], 1):
        if reason := _why_no_row(row):
            raise ValueError(f"--against: row {number} of {path} {reason}")
    return report


def _why_no_row(row: Any) -> str | None:
    """Return why a row cannot be compared, None where it can."""
    wanted: dict[str, type | tuple[type, ...]] = {
        "problem": str, "name": str, "kernel": (str, type(None)), "times_ms": dict,
        "quartiles_ms": dict,
    }  # fmt: skip
    for key, kind in wanted.items():
        if not isinstance(row, dict) or not isinstance(row.get(key, ...), kind):
            return f"has no {key}"
    for name, taken in row["times_ms"].items():
        if not _is_time(taken):
            return f"has a median of {taken!r} ms for {name}, want more than 0"
        quartiles = row["quartiles_ms"].get(name)
        if not isinstance(quartiles, list) or len(quartiles) != 2:
            return f"has no two quartiles for {name}"
        if not all(map(_is_time, quartiles)) or quartiles[0] > quartiles[1]:
            return f"has quartiles of {quartiles} ms for {name}, want a lower and an upper one"
    return None


def _is_time(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def compare(report: dict[str, Any], before: dict[str, Any]) -> Comparison:
    """Compare a report with an earlier one, row by row.

    Parameters
    ----------
    report, before : dict
        As `fastconv.bench.report.build` returns them.
    """
    old = {row["problem"]: row for row in before["rows"]}
    pairs = [(old[row["problem"]], row) for row in report["rows"] if row["problem"] in old]
    drift = _drift(pairs)
    changes = [
        change
        for form in _FORMS
        for then, now in pairs
        if (change := _change(form, then, now, drift)) is not None
    ]
    ratios = [
        now["times_ms"][PACKED] / then["times_ms"][PACKED] / drift
        for then, now in pairs
        if PACKED in now["times_ms"] and PACKED in then["times_ms"]
    ]
    kernels = [
        (now["name"], then["kernel"], now["kernel"])
        for then, now in pairs
        if then["kernel"] != now["kernel"]
    ]
    return Comparison(
        sorted((c for c in changes if c.ratio > 1), key=lambda change: -change.ratio),
        sorted((c for c in changes if c.ratio < 1), key=lambda change: change.ratio),
        len(pairs),
        geometric_mean(ratios),
        drift,
        kernels,
        _warnings(report, before),
    )


def _drift(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """Return by how much the peers take longer now."""
    ratios = [
        now["times_ms"][name] / then["times_ms"][name]
        for then, now in pairs
        for name in now["times_ms"]
        if not name.startswith(PACKED) and name in then["times_ms"]
    ]
    return median(ratios) if ratios else 1.0


def _change(form: str, then: dict[str, Any], now: dict[str, Any], drift: float) -> Change | None:
    if form not in then["times_ms"] or form not in now["times_ms"]:
        return None
    times = then["times_ms"][form], now["times_ms"][form]
    ratio = times[1] / times[0] / drift
    low, high = (drift * quartile for quartile in then["quartiles_ms"][form])
    now_low, now_high = now["quartiles_ms"][form]
    beyond = now_low > high if ratio > 1 else now_high < low
    if not beyond or max(ratio, 1 / ratio) < _NOISE:
        return None
    return Change(now["name"], _FORMS[form], *times, ratio)


def _warnings(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """Return what keeps two reports from being compared."""
    machines = then["machine"], now["machine"]
    told = [
        f"another {key}: {machines[0].get(key)} then, {machines[1].get(key)} now"
        for key in _MACHINE
        if machines[0].get(key) != machines[1].get(key)
    ]
    reports = {"then": then, "now": now}
    hurried = [when for when, each in reports.items() if QUICK in each.get("setting", [])]
    return [*told, f"{' and '.join(hurried)}: {QUICK}"] if hurried else told


def print_comparison(comparison: Comparison, against: str, console: Console) -> None:
    """Print the rows beyond noise, and the means."""
    from rich.table import Table

    for warning in comparison.warnings:
        console.print(f"against {against}: {warning}", markup=False, highlight=False)
    if comparison.rows == 0:
        console.print(f"against {against}: no row in common", markup=False, highlight=False)
        return
    table = Table(title=f"beyond noise, against {against}", header_style="bold")
    table.add_column("problem", no_wrap=True)
    for name in ("form", "then", "now", "now / then"):
        table.add_column(name, justify="right")
    for change in (*comparison.slower, *comparison.faster):
        times = f"{change.then:.3f}", f"{change.now:.3f}"
        table.add_row(change.row, change.form, *times, f"{change.ratio:.2f}")
    if table.row_count:
        console.print(table)
    for row, then, now in comparison.kernels:
        console.print(f"{row}: {then} then, {now} now", markup=False, highlight=False)
    mean = "-" if comparison.mean is None else f"{comparison.mean:.3f}"
    console.print(
        f"against {against}: {len(comparison.slower)} slower and {len(comparison.faster)} faster "
        f"beyond noise on {comparison.rows} rows; packed, geometric mean of now / then {mean} "
        f"(peers {comparison.drift:.3f}, taken out)",
        markup=False,
        highlight=False,
    )
