"""The search for failures: planted faults are found, made small, and repeated by a command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import cli, dispatch
from fastconv.fuzz import client, dense, memory, operators, truth
from fastconv.fuzz import hunt as hunt_module
from fastconv.fuzz.case import Case, Step
from fastconv.fuzz.client import Worker
from fastconv.fuzz.drawing import Options
from fastconv.fuzz.execution import run_case
from fastconv.fuzz.hunt import Finding, Hunt
from fastconv.fuzz.render import render
from fastconv.kernels import reference

pytestmark = pytest.mark.program

SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.fixture(autouse=True)
def _planted_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    # However busy the machine is, cases become as small as they can.
    monkeypatch.setattr(hunt_module, "_SHRINK_SECONDS", 900.0)
    monkeypatch.setenv("PYTHONPATH", SUPPORT + os.pathsep + os.environ.get("PYTHONPATH", ""))


def hunt(name: str, seed: str = "1") -> Finding | None:
    """What some hundred cases find, if anything."""
    search = Hunt(seed, [f"fuzz_planted:{name}"], Options("chosen"), time.monotonic() + 3600)
    try:
        for number in range(5):
            search.search(f"{seed}/{number}")
            if search.findings:
                break
    finally:
        search.close()
    return next(iter(search.findings.values()), None)


def found(name: str, seed: str = "1") -> Finding:
    finding = hunt(name, seed)
    assert finding is not None
    return finding


def params_of(case: Case) -> dict[str, Any]:
    return {**dense.DEFAULTS, **case.params, **case.steps[0].params}


def test_a_right_operator_has_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hunt_module, "_ROUND", 30)
    assert hunt("right") is None


def test_a_wrong_result_is_shrunk_to_the_smallest_case() -> None:
    finding = found("wrong")
    assert finding.failure.kind == "wrong result" and finding.repeats
    params = params_of(finding.case)
    assert len(finding.case.steps) == 1
    assert params["kernel"] == 2 and params["filters"] * params["groups"] == 3
    assert len(finding.case.dumps()) < 100


def test_equal_seeds_find_the_same_case() -> None:
    first, second = found("wrong", "7"), found("wrong", "7")
    assert first.case == second.case and first.failure == second.failure


def test_a_crash_is_a_failure_like_any_other() -> None:
    finding = found("crash")
    assert finding.failure.kind == "crashed with SIGSEGV"
    assert len(finding.case.steps) == 1
    assert {"negative", "flip"} & set(finding.case.steps[0].layouts["out"].split("+"))


def test_memory_around_an_output_is_watched() -> None:
    finding = found("outside")
    assert finding.failure.kind == "wrote outside"
    assert len(finding.case.steps) == 1


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        (("cpu.direct", "cpu.direct"), "threads differ"),
        (("cpu.im2col_gemm", "cpu.direct"), None),  # the threads may decide which one is chosen
    ],
)
def test_bits_of_one_kernel_may_not_depend_on_the_threads(
    chosen: tuple[str, str], kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = {spec.name: spec for spec in dispatch.kernels("conv", "cpu")}
    monkeypatch.setattr(
        dispatch, "choose", lambda *_: by_name[chosen[fastconv.get_num_threads() - 1]]
    )
    steps = [Step(threads=(1, 2))]
    case = Case("fuzz_planted:threaded", {"size": 5}, values="gaussian", steps=steps)
    report = run_case(case)
    assert (report.failure and report.failure.kind) == kind
    assert set(report.calls) == set(chosen)


def test_what_depends_on_earlier_cases_is_kept_with_them() -> None:
    finding = found("later")
    assert not finding.repeats
    assert finding.history[-1] == finding.case.dumps() and len(finding.history) > 1


def test_bad_arguments_that_are_computed_or_raise_anything_are_failures() -> None:
    finding = found("careless")
    assert finding.failure.kind == "accepted" or finding.failure.kind.startswith("raised")


def test_a_case_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CASE_SECONDS", 5.0)
    worker = Worker()
    try:
        failure = worker.run(Case("fuzz_planted:hang")).failure
        assert failure is not None and failure.kind == "hang"
        assert worker.run(Case("fuzz_planted:right")).failure is None
    finally:
        worker.close()


def test_the_printed_command_repeats_the_failure(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fastconv", "fuzz", "--ops", "fuzz_planted:wrong"]
    words += ["--minutes", "0.3", "--seed", "3", "--jobs", "1", "--json", "found.json"]
    run = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "wrong result" in run.stdout
    summary = json.loads((tmp_path / "found.json").read_text())
    # One for each kernel that was asked to compute it.
    assert summary["seed"] == 3 and summary["calls"] > 0 and summary["failures"]
    command = next(line for line in run.stdout.splitlines() if "--case" in line)
    again = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 1 and "wrong result" in again.stdout


def test_a_case_without_failure_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fuzz", "--case", '{"op":"conv1d","params":{"size":4,"kernel":3}}']) == 0
    assert "no failure" in capsys.readouterr().out
    assert cli.main(["fuzz", "--case", "{}"]) == 2
    assert cli.main(["fuzz", "--ops", "convolution"]) == 2


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", ["readonly", "broadcast"])
def test_outputs_that_may_not_be_written_to_are_refused(
    kind: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of a single element too, whose strides alone say nothing against it."""
    step = {"layouts": {"out": ""}, "bad": {"out": kind}}
    case = {"op": "conv1d", "params": {"size": size}, "steps": [step]}
    assert cli.main(["fuzz", "--case", json.dumps(case)]) == 0
    del step["layouts"]
    assert cli.main(["fuzz", "--case", json.dumps(case)]) == 0  # there is none to refuse
    assert "no failure" in capsys.readouterr().out


def test_every_operator_draws_cases_that_come_back_from_their_text() -> None:
    from hypothesis import HealthCheck, given, settings, strategies

    for name, operator in operators.operators().items():
        cases = strategies.composite(lambda draw, o=operator: o.draw(draw, o.name, Options()))()

        @settings(
            max_examples=30, database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(cases)
        def check(case: Case) -> None:
            assert Case.loads(case.dumps()) == case
            assert render(case)

        check()
        assert render(Case(name))


def test_one_case_of_each_kind_of_operator_is_right() -> None:
    window = {"size": [4, 5], "kernel": 3, "padding": 1, "sites": 6, "channels": 2}
    cases = [
        Case("conv2d", {"size": 6, "kernel": 3, "channels": 2}, layouts={"bias": ""}, steps=[
            Step(layouts={"out": "last+nan", "residual": "negative"}),
            Step(form="object", layouts={"out": "overlap"}),
            Step({"size": 9}, form="copy", spoil=True),
            Step(bad={"stride": 0}),
            Step({"size": 2}),
        ]),
        Case("subm_conv", window, steps=[Step(kernel="all"), Step(form="object")]),
        Case("sparse_inverse_conv", {**window, "stride": 2, "padding": 1}),
        Case("grad.conv_weight", window),
        Case("grad.global_max_pool_input", {"size": [4, 5], "sites": 6}),
        *(
            Case(name, {"size": [4, 5], "sites": 6, "others": 9, "cut": [1, 1], "channels": 2},
                 values="gaussian")
            for name in operators.operators() if name.startswith(("sparse_", "grad."))
            and operators.find_operator(name).op == ""
        ),
        *(
            Case(f"max_unpool{ndim}d", {"size": 3, "stride": 2, "kernel": 2, "excess": 1})
            for ndim in (1, 2, 3)
        ),
        Case("max_unpool2d_input", {"size": 3, "stride": 2, "kernel": 2}),
        Case("adaptive_max_pool2d_input", {"size": 3, "stride": 2, "kernel": 2}),
        Case("layer_norm_input", {"shape": [2, 3, 4], "axes": 2}, values="gaussian"),
    ]  # fmt: skip
    for case in cases:
        report = run_case(case)
        assert report.failure is None, report.failure
        assert report.problems == len(case.steps)


def test_integers_with_a_boundary_mode_are_right() -> None:
    told = {"size": [9, 14], "kernel": 3, "padding": 2, "groups": 2, "batch": None}
    for dtype, result, mode in (
        ("uint8", "uint8", "reflect"), ("int16", None, ["constant", 1.0]),
        ("uint16", "int16", "circular"), ("float32", "uint8", "symmetric"),
    ):  # fmt: skip
        steps = [Step(layouts={"out": ""}), Step(form="object", precision="exact")]
        for values in ("integers", "gaussian"):
            params = {**told, "padding_mode": mode, "out_dtype": result}
            report = run_case(Case("conv2d", params, dtype, values, steps=steps))
            assert report.failure is None, report.failure
            assert report.problems == len(steps)


def test_the_truth_without_padding_agrees_with_the_reference() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 9, 7)), rng.standard_normal((6, 2, 3, 2))
    told = {"stride": (2, 1), "padding": ((3, 0), (1, 5)), "dilation": (1, 3), "groups": 2}
    np.testing.assert_allclose(
        truth.conv(x, weight, **told), reference.conv(x, weight, **told), atol=1e-13
    )


@pytest.mark.parametrize("layout", ["", "last+negative", "sliced+unaligned", "fortran+pitch+flip"])
def test_a_write_beside_an_output_is_seen_and_one_in_it_is_not(layout: str) -> None:
    placed = memory.place((2, 3, 4), np.dtype(np.float32), layout)
    placed.array[...] = 5
    assert placed.is_unchanged_around() and not placed.is_unchanged()
    placed.reset()
    assert placed.is_unchanged()
    own = np.zeros(placed.memory.size, bool)
    shape, strides = (*placed.array.shape, 4), (*placed.array.strides, 1)
    np.ndarray(shape, bool, own, placed.offset, strides)[...] = True
    for place in np.flatnonzero(~own)[::37]:
        placed.memory[place] ^= 1
        assert not placed.is_unchanged_around()
        placed.reset()


def test_arrays_have_the_strides_that_a_layout_says() -> None:
    values = np.arange(60.0).reshape(1, 3, 4, 5)
    for layout in (
        "",
        "last",
        "fortran",
        "swapped",
        "sliced",
        "wide",
        "negative",
        "one0",
        "onehuge",
    ):
        placed = memory.place(values, np.dtype(np.float32), layout)
        assert placed.array.strides == memory.strides_of(values.shape, 4, layout)[0]
        np.testing.assert_array_equal(placed.array, values)
    assert memory.place(values, np.dtype(np.float32), "one0").array.strides[0] == 0
    assert not memory.place(values, np.dtype(np.float32), "readonly").array.flags.writeable
    assert not memory.place(values, np.dtype(np.float32), "unaligned").array.flags.aligned
