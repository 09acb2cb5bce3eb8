"""The benchmark: true outputs, the report's arithmetic, the command."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastconv.bench import baseline, command, peers, report, truth
from fastconv.bench.cases import Case, load, parse_case, suite_names
from fastconv.bench.runner import Measurement, Options, Result
from fastconv.cli import main
from fastconv.kernels import reference

TRUTHS = [
    "ic6ih9oc8oh9kh3ph1",
    "mb2ic5ih11iw8oc4kh3kw2sh2sw1ph1pw0",
    "g3ic6ih9iw7oc9kh3ph2dh1",
    "g4ic4ih12oc8kh3sh2ph1",
    "g4ic4ih20oc8kh9ph4",
    "mb2g2ic2iw300oc2kw70pw3",
    "ic3id6ih7iw5oc4kd3kh2kw1pd1",
    "ic40ih6oc4kh3ph1",
    "--dt=f64 g2ic2ih15iw16oc2kh8ph3",
    "--dt=f16 ic4ih6oc4kh3ph1",
    "--tag=axb ic4ih6oc4kh3ph1",
    "ic3ih8oc4oh4kh3sh2ph0",
    "--dt=u8:f32:s16 ic3ih9oc2kh3ph1",
]


@pytest.mark.parametrize("line", TRUTHS)
def test_truth_is_the_reference(line: str) -> None:
    problem = parse_case(line).problem
    x, w = truth.arrays(problem)
    again, _ = truth.arrays(problem)
    np.testing.assert_array_equal(x, again)
    assert (x.dtype.name, w.dtype.name) == (problem.dtype, problem.weight_dtype)
    assert x.shape == problem.x_shape
    wanted = reference.conv(
        x,
        w,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
    )
    assert truth.relative_error(truth.expected(problem, x, w), wanted) < 1e-14


def test_arrays_lie_as_the_layout_says() -> None:
    last, _ = truth.arrays(parse_case("--tag=axb ic4ih6oc4kh3").problem)
    assert last.transpose(0, 2, 3, 1).flags.c_contiguous
    strided, _ = truth.arrays(parse_case("--tag=any ic4ih6oc4kh3").problem)
    assert not strided.flags.c_contiguous


def test_wrong_results_have_a_reason() -> None:
    problem = parse_case("ic2ih4oc2kh3ph1").problem
    true = np.linspace(-1.0, 1.0, 32).reshape(problem.out_shape)
    assert truth.wrong(problem, true.astype(np.float32), true) is None
    assert "error 1.0e-03" in str(truth.wrong(problem, true + 1e-3, true))
    assert "shape" in str(truth.wrong(problem, true[0], true))
    true[0, 0, 0, 0] = np.nan
    assert "error inf" in str(truth.wrong(problem, true, np.ones_like(true)))


def test_symmetric_padding() -> None:
    assert peers.symmetric_padding(parse_case("ic3ih8oc4oh4kh3sh2ph1").problem) == (1, 1)
    unread = parse_case("ic3ih8oc4kh3sh2ph1").problem.with_(padding=((1, 0), (1, 0)))
    assert peers.symmetric_padding(unread) == (1, 1)
    read = parse_case("ic3ih8oc4kh3").problem.with_(padding=((0, 1), (0, 1)))
    assert peers.symmetric_padding(read) is None


def made_up() -> Result:
    first = parse_case('ic64ih56oc64oh56kh3ph1n"first*3"')
    second = parse_case('--dt=f64 ic4ih8oc4kh3n"second"')
    third = parse_case('ic4ih8oc4kh3n"third"')

    def took(*milliseconds: float, kernel: str | None = None) -> Measurement:
        return Measurement([ms / 1e3 for ms in milliseconds], error=1e-7, kernel=kernel)

    rows: list[tuple[Case, dict[str, Measurement]]] = [
        (
            first,
            {
                "fastconv": took(1.0, 2.0, 9.0, kernel="cpu.im2col_gemm"),
                "fastconv_functional": took(4.0),
                "fastconv_best": took(1.9, kernel="cpu.winograd_f4"),
                "torch": took(3.0, 4.0, 5.0),
                "onnxruntime": took(8.0),
            },
        ),
        (
            second,
            {
                "fastconv": took(2.0, kernel="cpu.direct"),
                "fastconv_functional": took(2.0),
                "fastconv_best": took(1.0, kernel="cpu.im2col_gemm"),
                "torch": took(1.0),
                "onnxruntime": Measurement(reason="no float64"),
            },
        ),
        (
            third,
            {
                "fastconv": Measurement(reason="wrong result: planted", wrong=True, kernel="cpu.x"),
                "fastconv_functional": took(2.0),
                "torch": Measurement(reason="broken"),
                "onnxruntime": Measurement(reason="broken"),
            },
        ),
    ]
    machine = {"cpu": "made up", "isa": "avx2", "threads": 2}
    return Result(machine, {"float32": 231.211008e9, "float64": 100e9}, rows)


def test_report_arithmetic() -> None:
    made = report.build("made_up", made_up())
    first, second, third = made["rows"]
    assert first["times_ms"] == pytest.approx(
        {
            "fastconv": 2.0,
            "fastconv_functional": 4.0,
            "fastconv_best": 1.9,
            "torch": 4.0,
            "onnxruntime": 8.0,
        }
    )
    assert (first["best_kernel"], first["regret"]) == ("cpu.winograd_f4", pytest.approx(2 / 1.9))
    assert second["regret"] == pytest.approx(2.0)
    assert made["good_choices"] == pytest.approx(0.5)  # the third has no figure of its own
    assert first["quartiles_ms"]["torch"] == pytest.approx([3.5, 4.5])
    assert (first["best_peer"], first["speedup"]) == ("torch", pytest.approx(2.0))
    assert first["functional_speedup"] == pytest.approx(1.0)
    # 231.2 million FLOP in 2 ms is 115.6 GFLOP/s: half of the peak made up above.
    assert first["gflops"] == pytest.approx(115.605504)
    assert first["percent_of_peak"] == pytest.approx(50.0)
    assert second["percent_of_peak"] == pytest.approx(100 * 2 * 5184 / 2e-3 / 100e9)
    assert second["refused"] == {"onnxruntime": "no float64"}
    assert (third["speedup"], third["best_peer"], third["wrong"]) == (None, None, ["fastconv"])
    assert made["geomean_speedup"] == pytest.approx(1.0)  # of 2 and 1/2; the count is no weight
    assert made["min_speedup"] == pytest.approx(0.5)
    assert made["min_speedup_problem"] == second["problem"]
    assert made["functional_geomean_speedup"] == pytest.approx(0.5**0.5)
    assert made["total_ms"] == pytest.approx({"fastconv_functional": 3 * 4.0 + 2.0 + 2.0})
    assert made["machine"]["peak_gflops"]["float64"] == pytest.approx(100.0)


def check_schema(made: dict[str, Any]) -> None:
    """Hold a report against the shape that its readers rely on."""
    assert isinstance(made["machine"], dict)
    assert isinstance(made["suite"], str)
    for key in ("geomean_speedup", "min_speedup"):
        assert made[key] is None or isinstance(made[key], float)
    for row in made["rows"]:
        assert isinstance(row["problem"], str)
        assert parse_case(row["problem"]).count == row["count"]
        assert isinstance(row["kernel"], str)
        assert all(isinstance(ms, float) for ms in row["times_ms"].values())
        assert row["best_peer"] is None or row["best_peer"] in row["times_ms"]
        for key in ("speedup", "percent_of_peak"):
            assert row[key] is None or isinstance(row[key], float)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_command_writes_json_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def measure(cases: Any, libraries: Any, options: Options, progress: Any) -> Result:
        seen.extend([len(cases), list(libraries), options.threads])
        return made_up()

    monkeypatch.setattr(command, "measure", measure)
    file = tmp_path / "made.json"
    code = command.run(arguments("vgg16", "--peers", "none", "--threads", "2", "--json", str(file)))
    assert code == 1  # fastconv's own third result is wrong
    assert seen == [9, ["fastconv", "fastconv_functional"], 2]
    check_schema(json.loads(file.read_text()))
    shown = capsys.readouterr().out
    for part in ("first x3", "cpu.im2col_gemm", "2.000", "wrong result: planted", "worst 0.500"):
        assert part in shown
    assert "milliseconds of all rows, each as often as its count says: " in shown
    assert "passes 100%" not in shown


def test_a_share_of_the_peak_above_all_of_it_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = report.build("made_up", made_up())
    made["rows"][0]["percent_of_peak"] = 241.0
    report.print_report(made, ["fastconv"], Console(width=200))
    assert "a kernel that needs fewer, as Winograd's do, passes 100%" in capsys.readouterr().out


#: Seconds that are no limit.
LIMITS = ("-1", "nan", "inf", "1e300")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet51"], "resnet51"),
        (["core", "--peers", "torhc"], "torhc"),
        (["core", "--peers", "fastconv"], "want some of torch"),
        (["core", "--peers", "none", "--rows", "nothing"], "matches no row"),
        (["core", "--peers", "none", "--threads", "0"], "--threads"),
        (["core", "--peers", "none", "--limit", "0"], "--limit"),
        (["core", "--peers", "none", "--json", "/no/such/folder/x.json"], "--json"),
        (["core", "--peers", "none", "--json", "/"], "--json: got /, which is a folder"),
        (["core", "--peers", "none", "--threads", "257"], "--threads: got 257, want 1 to 256"),
        *((["core", "--peers", "none", "--limit", word], "--limit") for word in LIMITS),
        (["core", "--peers", "none", "--rows", "("], "--rows"),
        (["core", "--peers", "none", "--against", "/no/such/file.json"], "--against"),
        (["all", "--peers", "none", "--json", "/no/such/folder"], "--json"),
        (["all", "--peers", "torhc"], "torhc"),
        (["all", "--peers", "none", "--rows", "nothing"], "no row of any suite"),
        (
            ["sparse", "--peers", "none", "--dtype", "float16"],
            "float32 for the sparse row subm 3^3",
        ),
        (["all", "--rows", "subm 3", "--dtype", "float16"], "no row of any suite in float16"),
    ],
)
def test_command_names_the_bad_argument(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastconv: ") and said in error


@pytest.mark.parametrize("command_", ["bench", "tune"])
def test_a_suite_that_can_not_be_read_is_named(
    command_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "suite.txt"
    file.write_bytes(b"\xff\xfe")
    assert main([command_, str(file)]) == 2
    assert f"suite: cannot read {file}" in capsys.readouterr().err


def test_a_line_that_is_longer_than_a_files_name_may_be_is_a_line() -> None:
    (case,) = load(f'ic4ih8oc6kh3n"{"a" * 5000}"')
    assert case.problem.in_channels == 4


def test_tune_says_that_no_row_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "core", "--rows", "nothing"]) == 2
    assert "--rows: got 'nothing', which matches no row of core" in capsys.readouterr().err


def test_a_report_that_can_not_be_written_after_all_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk may be full, or the folder gone, after minutes of measuring."""
    folder = tmp_path / "reports"
    folder.mkdir()

    def measure(*_: Any) -> Result:
        folder.rmdir()
        return made_up()

    monkeypatch.setattr(command, "measure", measure)
    words = ["core", "--peers", "none", "--threads", "1", "--json", str(folder / "core.json")]
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert f"fastconv: --json: cannot write {folder / 'core.json'}: " in error


def test_no_suite_is_measured_where_one_report_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "vgg16.json").mkdir()
    words = ["all", "--peers", "none", "--threads", "1", "--json", str(tmp_path)]
    assert main(["bench", *words]) == 2
    assert f"{tmp_path / 'vgg16.json'}, which is a folder" in capsys.readouterr().err


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


def test_command_takes_an_element_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[Case]] = []

    def measure(cases: Any, libraries: Any, options: Options, progress: Any) -> Result:
        seen.append(cases)
        return made_up()

    monkeypatch.setattr(command, "measure", measure)
    words = ("--peers", "none", "--threads", "1", "--dtype")
    command.run(arguments("vgg16", *words, "bfloat16"))
    cases = seen.pop()
    assert [case.problem.dtype for case in cases] == ["bfloat16"] * 9
    assert [case.name for case in cases] == [case.name for case in load("vgg16")]
    assert "every row in bfloat16" in capsys.readouterr().out
    command.run(arguments("all", *words, "float16", "--json", str(tmp_path)))
    assert {file.stem for file in tmp_path.iterdir()} == set(suite_names()) - {"sparse", "networks"}
    command.run(arguments("sparse", *words, "float32"))
    assert seen[-1] == load("sparse")
    with pytest.raises(SystemExit):
        main(["bench", "core", "--dtype", "float8"])
    said = capsys.readouterr().err
    assert "--dtype: invalid choice: 'float8'" in said and "bfloat16" in said


def test_command_says_which_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "openvino" or None)
    assert main(["bench", "core", "--peers", "openvino"]) == 2
    assert "openvino needs the module openvino, which is not installed" in capsys.readouterr().err


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


def test_a_misspelt_suite_is_answered_with_the_one_meant() -> None:
    with pytest.raises(ValueError, match=r"got 'cor' \(do you mean core\?\)"):
        load("cor")


def test_all_suites_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, list[str]]] = []

    def measure(cases: Any, libraries: Any, options: Options, progress: Any) -> Result:
        seen.append((len(cases), list(libraries)))
        return made_up()

    monkeypatch.setattr(command, "measure", measure)
    words = ["all", "--peers", "none", "--threads", "2", "--json", str(tmp_path)]
    assert command.run(arguments(*words)) == 1  # as of one suite: a result is wrong
    assert len(seen) == len(suite_names())
    assert {file.stem for file in tmp_path.iterdir()} == set(suite_names())
    overview = capsys.readouterr().out.split("all suites:")[1]
    assert all(name in overview for name in suite_names())
    command.run(arguments(*words, "--against", str(tmp_path), "--rows", "3x3 64@56"))
    shown = capsys.readouterr().out
    assert "0 slower and 0 faster beyond noise" in shown
    assert len(seen) - len(suite_names()) < 4
