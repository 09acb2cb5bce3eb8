"""The benchmark: true outputs, the report's arithmetic, the command."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench_results import made_up
from fastconv.bench import command, peers, report, truth
from fastconv.bench.cases import Case, load, parse_case, suite_names
from fastconv.bench.runner import Options, Result
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
