"""What a run says: rows, means, JSON and the table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from .cases import Case
from .registry import RIVALS, TRUTHS
from .runner import Measurement, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["build", "geometric_mean", "print_overview", "print_report"]

PACKED = "fastconv"
FUNCTIONAL = "fastconv_functional"
#: Of networks: the module of PyTorch, optimized.
MODULE = "fastconv_torch"
BEST = "fastconv_best"

#: A choice within so much of the fastest kernel's time counts as right.
_GOOD_CHOICE = 1.1


def build(suite: str, result: Result, setting: Sequence[str] = ()) -> dict[str, Any]:
    """Turn measurements into the report, ready for JSON.

    Parameters
    ----------
    suite : str
        The suite's name, or the file or line that stood for it.
    result : Result
        What `fastconv.bench.runner.run` measured.
    setting : sequence of str
        Sentences that a reader of the figures must know: the data, how libraries are called.

    Returns
    -------
    dict
        ``machine``, ``suite``, ``setting``, ``rows``, ``geomean_speedup`` and ``min_speedup``
        (packed fastconv against the best peer of each row; None without such a row), the same two
        for the functional form and, of networks, for a module of PyTorch, ``min_speedup_problem``,
        ``good_choices`` (the share of rows whose kernel is within a tenth of the fastest one; None
        unless that was timed), and ``total_ms``: for each library, the sum over rows of count
        times median, where it has every row.
    """
    rows = [_row(case, measured, result.peaks) for case, measured in result.rows]
    packed = [row["speedup"] for row in rows if row["speedup"] is not None]
    functional = [row["functional_speedup"] for row in rows if row["functional_speedup"]]
    modules = [row["module_speedup"] for row in rows if row["module_speedup"]]
    worst = min(
        (row for row in rows if row["speedup"] is not None),
        key=lambda row: row["speedup"],
        default=None,
    )
    regrets = [row["regret"] for row in rows if row["regret"] is not None]
    good = [regret <= _GOOD_CHOICE for regret in regrets]
    gflops = {dtype: peak / 1e9 for dtype, peak in result.peaks.items()}
    return {
        "machine": result.machine | {"peak_gflops": gflops},
        "suite": suite,
        "setting": list(setting),
        "rows": rows,
        "geomean_speedup": geometric_mean(packed),
        "min_speedup": min(packed, default=None),
        "min_speedup_problem": worst["problem"] if worst else None,
        "functional_geomean_speedup": geometric_mean(functional),
        "functional_min_speedup": min(functional, default=None),
        "module_geomean_speedup": geometric_mean(modules),
        "module_min_speedup": min(modules, default=None),
        "good_choices": sum(good) / len(good) if good else None,
        "total_ms": _totals(rows),
    }


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean, None of nothing.

    Examples
    --------
    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None


def _row(case: Case, measured: dict[str, Measurement], peaks: dict[str, float]) -> dict[str, Any]:
    times = {name: 1e3 * median(m.times) for name, m in measured.items() if m.times}
    best, speedup = _against_best(times, PACKED, case.kind)
    best_module, module_speedup = _against_best(times, MODULE, case.kind)
    own, fastest = times.get(PACKED), times.get(BEST)
    flops = TRUTHS[case.kind].flops(case.problem)
    gflops = flops / own / 1e6 if own and flops else None
    peak = peaks["float64" if case.problem.dtype == "float64" else "float32"] / 1e9
    return {
        "problem": case.line,
        "name": case.name,
        "count": case.count,
        "kernel": measured[PACKED].kernel if PACKED in measured else None,
        "times_ms": times,
        "quartiles_ms": {name: _quartiles(m.times) for name, m in measured.items() if m.times},
        "samples": {name: len(m.times) for name, m in measured.items() if m.times},
        "best_peer": best,
        "speedup": speedup,
        "functional_speedup": _against_best(times, FUNCTIONAL, case.kind)[1],
        "best_module_peer": best_module if module_speedup else None,
        "module_speedup": module_speedup,
        "best_kernel": measured[BEST].kernel if BEST in measured else None,
        "regret": own / fastest if own and fastest else None,
        "gflops": gflops,
        "percent_of_peak": 100 * gflops / peak if gflops else None,
        "errors": {name: m.error for name, m in measured.items() if m.error is not None},
        "refused": {name: m.reason for name, m in measured.items() if m.reason},
        "wrong": sorted(name for name, m in measured.items() if m.wrong),
        "failed": sorted(name for name, m in measured.items() if m.failed),
        "memory_mb": {name: m.memory / 1e6 for name, m in measured.items() if m.memory is not None},
    }


def _against_best(
    times: dict[str, float], column: str, kind: str
) -> tuple[str | None, float | None]:
    """Return the fastest of the libraries that a column is held against, and by what factor."""
    others = [name for name in times if not name.startswith(PACKED)]
    if kind in RIVALS:
        others = [name for name in others if name in RIVALS[kind].get(column, ())]
    best = min(others, key=lambda name: times[name], default=None)
    return best, times[best] / times[column] if best and column in times else None


def _quartiles(times: Sequence[float]) -> list[float]:
    if len(times) < 2:
        return [1e3 * times[0]] * 2
    low, _, high = quantiles(times, n=4, method="inclusive")
    return [1e3 * low, 1e3 * high]


def _totals(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = {name for row in rows for name in row["times_ms"]}
    return {
        name: math.fsum(row["count"] * row["times_ms"][name] for row in rows)
        for name in sorted(names)
        if all(name in row["times_ms"] for row in rows)
    }


def print_report(report: dict[str, Any], libraries: Sequence[str], console: Console) -> None:
    """Print the tables, the reasons for missing figures, the means and the totals."""
    console.print(_table(report, libraries))
    if any(row["memory_mb"] for row in report["rows"]):
        console.print(_memory_table(report, libraries))
    for note in _notes(report["rows"]):
        console.print(note, style="dim", markup=False, highlight=False)
    for line in _summary(report):
        console.print(line, markup=False, highlight=False)


#: Columns behind the libraries' that show where a row fills them: heading, value in the row, form.
_FIGURES = (
    ("GFLOP/s", "gflops", ".1f"),
    ("% of\npeak", "percent_of_peak", ".0f"),
    ("speed-up", "speedup", ".2f"),
    ("best peer", "best_peer", ""),
    ("module's\nspeed-up", "module_speedup", ".2f"),
    ("its best peer", "best_module_peer", ""),
)


def _table(report: dict[str, Any], libraries: Sequence[str]) -> Table:
    from rich.table import Table

    rows = report["rows"]
    has_kernels = any(row["kernel"] for row in rows)
    figures = [each for each in _FIGURES if any(row[each[1]] is not None for row in rows)]
    table = Table(title=f"{report['suite']}: median milliseconds", header_style="bold")
    table.add_column("problem", no_wrap=True)
    if has_kernels:
        table.add_column("kernel", no_wrap=True)
    for name in libraries:
        table.add_column(name.replace("_", "\n"), justify="right")
    for heading, _, form in figures:
        table.add_column(heading, justify="right" if form else "left", no_wrap=not form)
    for row in rows:
        count = f" x{row['count']}" if row["count"] > 1 else ""
        times = ["wrong" if name in row["wrong"] else _milliseconds(row["times_ms"].get(name))
                 for name in libraries]  # fmt: skip
        table.add_row(
            row["name"] + count,
            *([row["kernel"] or ""] if has_kernels else []),
            *times,
            *(_number(row[key], form) if form else row[key] or "" for _, key, form in figures),
        )
    return table


def _memory_table(report: dict[str, Any], libraries: Sequence[str]) -> Table:
    from rich.table import Table

    title = f"{report['suite']}: peak memory in MB, beyond the loaded library's"
    table = Table(title=title, header_style="bold")
    table.add_column("problem", no_wrap=True)
    for name in libraries:
        table.add_column(name.replace("_", "\n"), justify="right")
    for row in report["rows"]:
        told = (_number(row["memory_mb"].get(name), ".0f") for name in libraries)
        table.add_row(row["name"], *told)
    return table


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return one line for each library and reason, with the rows that it meets."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row["refused"].items():
            grouped.setdefault((name, reason), []).append(row["name"])
    notes = []
    for (name, reason), where in grouped.items():
        some = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        notes.append(f"no figure for {name} on {some}: {reason}")
    return notes


def _machine_line(machine: dict[str, Any]) -> str:
    peaks = ", ".join(f"{dtype} {peak:.0f}" for dtype, peak in machine["peak_gflops"].items())
    if "gpu" in machine:
        major, minor = machine["compute_capability"]
        return (
            f"{machine['gpu']}, sm_{major}{minor}, {machine['multiprocessors']} multiprocessors; "
            f"the device's time by events, L2 flushed before each call; nominal multiply-add peak: "
            f"{peaks} GFLOP/s"
        )
    return (
        f"{machine.get('cpu', 'unknown CPU')}, {machine.get('isa', '')}, {machine['threads']} "
        f"threads; multiply-add peak measured in this run: {peaks} GFLOP/s"
    )


def _summary(report: dict[str, Any]) -> list[str]:
    machine = report["machine"]
    lines = [_machine_line(machine), *report["setting"]]
    networks = any(row["memory_mb"] for row in report["rows"])
    if report["geomean_speedup"] is not None:
        worst = next(r for r in report["rows"] if r["problem"] == report["min_speedup_problem"])
        form = "session" if networks else "packed"
        lines.append(
            f"{form} against the best peer: geometric mean {report['geomean_speedup']:.3f}, "
            f"worst {report['min_speedup']:.3f} ({worst['name']}, {worst['best_peer']})"
        )
    for form in ("functional", "module"):
        if report[f"{form}_geomean_speedup"] is not None:
            lines.append(
                f"{form} against the best peer: geometric mean "
                f"{report[f'{form}_geomean_speedup']:.3f}, "
                f"worst {report[f'{form}_min_speedup']:.3f}"
            )
    if report["good_choices"] is not None:
        lines.append(
            f"dispatch: the kernel chosen is within a tenth of the fastest one on "
            f"{report['good_choices']:.0%} of the rows"
        )
    if report["total_ms"] and len(report["rows"]) > 1:
        totals = ", ".join(f"{name} {ms:.2f}" for name, ms in report["total_ms"].items())
        lines.append(f"milliseconds of all rows, each as often as its count says: {totals}")
    if any((row["percent_of_peak"] or 0) > 100 for row in report["rows"]):
        lines.append(
            "GFLOP/s and % of peak count the definition's operations: a kernel that needs fewer, "
            "as Winograd's do, passes 100%"
        )
    return lines


def print_overview(reports: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one table of many suites: a row each."""
    from rich.table import Table

    table = Table(title="all suites: speed-up over the best peer of each row", header_style="bold")
    table.add_column("suite", no_wrap=True)
    for name in ("rows", "packed", "worst", "functional", "worst", "good\nchoices"):
        table.add_column(name, justify="right")
    table.add_column("worst row, packed", no_wrap=True)
    for report in reports:
        worst = report["min_speedup_problem"]
        table.add_row(
            report["suite"],
            str(len(report["rows"])),
            _number(report["geomean_speedup"], ".2f"),
            _number(report["min_speedup"], ".2f"),
            _number(report["functional_geomean_speedup"], ".2f"),
            _number(report["functional_min_speedup"], ".2f"),
            _number(report["good_choices"], ".0%"),
            next((row["name"] for row in report["rows"] if row["problem"] == worst), ""),
        )
    console.print(table)
    console.print(_machine_line(reports[0]["machine"]), markup=False, highlight=False)
