"""Sparse rows of the benchmark: lines, true outputs, columns held against them, the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv.bench import registry, report, runner, sparse_scan, sparse_truth, worker
from fastconv.bench.cases import load, parse_case
from fastconv.bench.sparse import parse_layer
from fastconv.cli import main
from fastconv.contract.errors import FastconvError
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.sparse import Geometry

LINES = {
    "subm": "subm_conv k3x3x3 ic4oc8",
    "wide": "subm_conv k5x3x1 ic4oc4",
    "grouped": "subm_conv k3x3x3 g4ic4oc4",
    "rulebook": "rulebook k3x3x3 ic1oc1",
    "fresh": "subm_conv k3x3x3 ic4oc4 fresh",
    "down": "sparse_conv k3x3x3 s2x2x2 p1x1x1 ic4oc8",
    "flat": "sparse_conv k3x1x1 s2x1x1 ic4oc8 fresh",
    "inverse": "sparse_inverse_conv k3x3x3 s2x2x2 p1x1x1 ic8oc4",
    "pool": "sparse_max_pool k2x2x2 s2x2x2 ic4oc4",
}


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scan of some 300 voxels, in clusters, for this process and those it starts."""
    random = np.random.default_rng(1)
    points = np.repeat(random.uniform(-2, 2, (60, 3)), 6, 0)
    path = tmp_path / "scan.npy"
    np.save(path, points + random.normal(0, 0.12, points.shape))
    monkeypatch.setenv(sparse_scan.VARIABLE, str(path))
    sparse_scan.sites.cache_clear()
    yield path
    sparse_scan.sites.cache_clear()


def test_lines_read_back() -> None:
    for line in LINES.values():
        layer = parse_layer(line)
        assert parse_layer(layer.line()) == layer
    case = parse_case('sparse_conv k3x3x3 s2x2x2 p1x1x1 ic4oc8 fresh n"down, fresh*3"')
    assert (case.kind, case.name, case.count) == ("sparse", "down, fresh", 3)
    assert case.problem.fresh and case.problem.weight_shape == (8, 4, 3, 3, 3)
    assert parse_case("ic4ih8oc6kh3").kind == "dense"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("subm_conv k3x3 ic4oc4", "want 'OP k3x3x3"),
        ("subm_conv k3x3x3 s2x2x2 ic4oc4", "a stride of 1"),
        ("sparse_conv k3x3x3 g3ic4oc4", "a divisor of both"),
        ("sparse_conv k3x0x3 ic4oc4", "at least 1"),
    ],
)
def test_bad_lines_are_named(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_case(line)
    assert line in str(caught.value)


def test_suite_has_the_rows_that_are_asked_for() -> None:
    cases = load("sparse")
    assert {case.kind for case in cases} == {"sparse"}
    assert len({case.name for case in cases}) == len({case.problem for case in cases})
    problems = [case.problem for case in cases]
    assert [p.in_channels for p in problems if p.line().startswith("subm_conv k3x3x3 ic")] == [
        16, 32, 64, 32,
    ]  # fmt: skip
    assert {p.op for p in problems} == {
        "rulebook", "subm_conv", "sparse_conv", "sparse_inverse_conv", "sparse_max_pool",
    }  # fmt: skip


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("label", LINES)
def test_truth_is_the_reference(label: str) -> None:
    layer = parse_layer(LINES[label])
    indices, x, w = sparse_truth.arrays(layer)
    pads = tuple((pad, pad) for pad in layer.padding)
    kind = "submanifold" if layer.is_submanifold else "regular"
    shape = sparse_scan.sites().spatial_shape
    steps = (layer.kernel_size, layer.stride, (1, 1, 1), pads, (0, 0, 0))
    _, table = reference_sparse.build(Geometry(kind, shape, 1, *steps), indices)
    assert 200 < len(indices) < 360 and sparse_truth.flops(layer) == layer.flops(
        int((table >= 0).sum())
    )
    if layer.op == "rulebook":
        wanted: Any = table
    elif layer.op == "sparse_max_pool":
        wanted = reference_sparse.max_pool(x, table)
    else:
        if layer.op == "sparse_inverse_conv":
            table = reference_sparse.reverse(table, len(indices))
        wanted = reference_sparse.conv(x, w, table, None, layer.groups)
    np.testing.assert_allclose(
        sparse_truth.expected(layer, indices, x, w), wanted, rtol=0, atol=1e-13
    )


@pytest.mark.usefixtures("scan")
def test_a_rulebook_is_right_only_where_all_of_it_is() -> None:
    layer = parse_layer(LINES["rulebook"])
    table = sparse_truth.expected(layer, *sparse_truth.arrays(layer))
    assert sparse_truth.wrong(layer, table, table) is None
    other = table.copy()
    other[3, 5] += 1
    assert str(sparse_truth.wrong(layer, other, table)).startswith("wrong result: error")
    assert "shape" in str(sparse_truth.wrong(layer, table[:5], table))


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("name", registry.PEERS["sparse"]["cpu"])
def test_column_is_right_or_says_why_not(name: str, tmp_path: Path) -> None:
    if missing := registry.missing_modules(name, "cpu", "sparse"):
        pytest.skip(f"{', '.join(missing)} not installed")
    path, truths = str(tmp_path / "truth.npy"), worker.Worker(None)
    with (tmp_path / "log").open("w+b") as log:
        process = runner.WorkerProcess(name, 2, log, "cpu", "sparse")
        try:
            for label, line in LINES.items():
                truths.truth(line, path)
                reply = process.ask("prepare", 120, line=line, path=path)
                if (name, label) == ("spconv", "grouped"):
                    assert reply == {"reason": "spconv has no groups"}
                    continue
                assert "reason" not in reply, (label, reply)
                own = name.startswith("fastconv") and label != "rulebook"
                assert bool(reply["kernel"]) is own
                assert process.ask("time", 60, budget=1e-3)["times"]
        finally:
            process.close()


def test_command_end_to_end(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite, file = tmp_path / "tiny.txt", tmp_path / "tiny.json"
    suite.write_text("\n".join(LINES[label] for label in ("subm", "rulebook")) + "\n")
    words = ["--peers", "spconv", "--threads", "2", "--best", "--quick", "--json", str(file)]
    assert main(["bench", str(suite), *words]) == 0
    made = json.loads(file.read_text())
    subm, rulebook = made["rows"]
    for row in made["rows"]:
        columns = {"fastconv", "fastconv_functional", "fastconv_best", "spconv"}
        assert set(row["times_ms"]) == columns and row["best_peer"] == "spconv"
    assert subm["gflops"] > 0 and subm["kernel"].startswith("cpu.")
    assert rulebook["gflops"] is None and rulebook["kernel"] is None
    assert str(scan) in made["setting"][0] and "one thread" in made["setting"][1]
    printed = capsys.readouterr().out
    assert "spconv: one thread" in printed and f"scan: {scan}" in printed


def test_bad_arguments_are_named_before_anything_runs(
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(runner.WorkerProcess, "__init__", start)
    mixed = tmp_path / "mixed.txt"
    mixed.write_text(f"{LINES['subm']}\nic4ih8oc6kh3\n")
    scan.unlink()
    for words, said in (
        (["bench", str(mixed)], "holds dense and sparse rows, want one"),
        (["bench", "sparse", "--peers", "torch"], "want some of spconv on the device cpu for spar"),
        (["bench", "sparse", "--peers", "none"], f"SCAN: got '{scan}', which is no file"),
        (["tune", "sparse"], "want dense convolutions alone to tune"),
    ):
        assert main(words) == 2
        shown = capsys.readouterr()
        assert said in shown.err and not shown.out


def test_a_scan_beyond_the_grid_is_named(scan: Path) -> None:
    np.save(scan, np.array([[200.0, 200, 0], [-200, -200, 0]]))
    with pytest.raises(FastconvError, match=r"FASTCONV_SCAN: .* no point from"):
        sparse_scan.sites()


def test_without_a_recorded_scan_one_is_simulated(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sparse_scan.scan_name().startswith(str(scan))
    monkeypatch.delenv(sparse_scan.VARIABLE)
    monkeypatch.setattr(sparse_scan, "_RECORDED", Path("nowhere/scan.npz"))
    sparse_scan.sites.cache_clear()
    assert sparse_scan.scan_name().startswith("simulated sweep (FASTCONV_SCAN names another)")
    assert len(sparse_scan.sites().indices) > 40_000


def test_rows_that_multiply_nothing_have_no_rate(scan: Path) -> None:
    assert scan.is_file()
    case = parse_case(LINES["pool"])
    rows = [(case, {"fastconv": runner.Measurement([1e-3])})]
    made = report.build("x", runner.Result({"threads": 1}, {"float32": 1e11}, rows), ["a note"])
    assert made["rows"][0]["gflops"] is None and made["rows"][0]["percent_of_peak"] is None
    assert "a note" in report._summary(made)
