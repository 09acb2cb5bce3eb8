"""An earlier report beside a new one: what differs, and what cannot be compared."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench_results import made_up
from fastconv.bench import baseline, report
from fastconv.cli import main


def places(part: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a report, itself among them."""
    yield path
    inside = dict(enumerate(part)) if isinstance(part, list) else part
    for key, value in inside.items() if isinstance(inside, dict) else ():
        yield from places(value, *path, key)


def with_value(part: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A report with another value at one place, or, for `...`, without it."""
    if not path:
        return value
    key, *rest = path
    again = part.copy()
    if not rest and value is ...:
        del again[key]
    else:
        again[key] = with_value(part[key], tuple(rest), value)
    return again


@pytest.mark.parametrize("value", [..., None, 0, -1, np.nan, np.inf, True, "x", [], {}, [{}], [1]])
def test_a_damaged_baseline_is_refused_or_does_no_harm(value: Any, tmp_path: Path) -> None:
    """Whatever is wrong with it: before anything is measured, or never."""
    made = report.build("made_up", made_up())
    file, console, refused = tmp_path / "old.json", Console(file=io.StringIO()), 0
    for path in places(made):
        if value is ... and not path:
            continue
        file.write_text(json.dumps(with_value(made, path, value)), encoding="utf-8")
        try:
            before = baseline.read(file)
        except ValueError as error:
            assert str(error).startswith("--against: ") and str(file) in str(error)
            refused += 1
            continue
        compared = baseline.compare(made, before)
        baseline.print_comparison(compared, "old.json", console)
        assert np.isfinite(compared.drift) and np.isfinite(compared.mean or 1.0)
    assert refused > 10


def test_against_a_file_that_is_no_report_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text("import fastconv\n")
    words = ["bench", "core", "--peers", "none", "--against", str(tmp_path / "script.py")]
    assert main(words) == 2
    assert "script.py is no report that --json wrote" in capsys.readouterr().err


def with_times(made: dict[str, Any], name: str, *milliseconds: float) -> dict[str, Any]:
    """A report whose first row has other figures for one library."""
    again: dict[str, Any] = json.loads(json.dumps(made))
    row = again["rows"][0]
    low, row["times_ms"][name], high = milliseconds
    row["quartiles_ms"][name] = [low, high]
    return again


def test_what_is_slower_than_noise_is_told() -> None:
    before = with_times(report.build("made_up", made_up()), "fastconv", 1.9, 2.0, 2.1)
    same = baseline.compare(before, before)
    assert (same.slower, same.faster, same.mean, same.drift) == ([], [], pytest.approx(1.0), 1.0)
    slower = baseline.compare(with_times(before, "fastconv", 2.2, 2.4, 2.6), before)
    (change,) = slower.slower
    assert change == ("first", "packed", 2.0, 2.4, pytest.approx(1.2))
    assert slower.faster == [] and slower.mean == pytest.approx(1.2**0.5)
    (change,) = baseline.compare(with_times(before, "fastconv", 1.0, 1.2, 1.4), before).faster
    assert change.ratio == pytest.approx(0.6)


@pytest.mark.parametrize(
    "now",
    [
        (1.95, 2.4, 2.6),  # its quartiles reach into those of then
        (2.11, 2.12, 2.13),  # less than fresh processes differ by
    ],
)
def test_noise_is_not_told(now: tuple[float, float, float]) -> None:
    before = with_times(report.build("made_up", made_up()), "fastconv", 1.9, 2.0, 2.1)
    assert baseline.compare(with_times(before, "fastconv", *now), before).slower == []


def test_a_drift_of_the_machine_is_taken_out() -> None:
    before = with_times(report.build("made_up", made_up()), "fastconv", 1.9, 2.0, 2.1)
    after: dict[str, Any] = json.loads(json.dumps(before))
    for row in after["rows"]:
        row["times_ms"] = {name: 1.5 * ms for name, ms in row["times_ms"].items()}
        row["quartiles_ms"] = {
            name: [1.5 * low, 1.5 * high] for name, (low, high) in row["quartiles_ms"].items()
        }
    compared = baseline.compare(after, before)
    assert (compared.slower, compared.faster) == ([], [])
    assert compared.drift == pytest.approx(1.5) and compared.mean == pytest.approx(1.0)


def test_another_machine_kernel_or_suite_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    before = report.build("made_up", made_up())
    after: dict[str, Any] = json.loads(json.dumps(before))
    after["machine"]["threads"] = 4
    after["rows"][0]["kernel"] = "cpu.direct"
    console = Console(width=200)
    baseline.print_comparison(baseline.compare(after, before), "old.json", console)
    shown = capsys.readouterr().out
    assert "another threads: 2 then, 4 now" in shown
    assert "first: cpu.im2col_gemm then, cpu.direct now" in shown
    after["rows"] = []
    baseline.print_comparison(baseline.compare(after, before), "old.json", console)
    assert "no row in common" in capsys.readouterr().out


def test_a_quick_report_is_none_to_compare() -> None:
    full, quick = (report.build("made_up", made_up(), told) for told in ([], [baseline.QUICK]))
    assert baseline.compare(full, full).warnings == []
    assert baseline.compare(full, quick).warnings == [f"then: {baseline.QUICK}"]
    assert baseline.compare(quick, quick).warnings == [f"then and now: {baseline.QUICK}"]
