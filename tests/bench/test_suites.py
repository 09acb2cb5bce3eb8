"""The benchmark's suites and the lines that they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastconv.bench.cases import in_dtype, load, parse_case, select, suite_names
from fastconv.contract.boundary_problem import BoundaryProblem
from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import DTYPES, INTEGERS
from fastconv.contract.problem_line import parse_any_line

NETWORKS = {
    # name: (convolutions, published multiply-accumulates of them in millions,
    #        published parameters less the fully connected, batch-norm and bias ones)
    "alexnet": (5, 655.6, 61_100_840 - 58_631_144 - 1_152),
    "vgg16": (13, 15_346.6, 138_357_544 - 123_642_856 - 4_224),
    "resnet50": (53, 4_087.1, 25_557_032 - 2_049_000 - 53_120),
    "inception_v3": (94, 5_711.2, 23_834_568 - 2_049_000 - 34_432),
    "mobilenet_v1": (27, 567.7, 4_231_976 - 1_025_000 - 21_888),
    "mobilenet_v2": (52, 299.5, 3_504_872 - 1_281_000 - 34_112),
    "squeezenet": (26, 349.2, 1_235_496 - 3_944),
    "shufflenet": (49, 137.5 - 0.96, None),
    "densenet121": (120, 2_833.1, 7_978_856 - 1_025_000 - 83_648),
}
KINDS = {
    "core", "depthwise", "dilated", "grouped", "conv1d", "conv3d", "image", "float64", "transposed",
    "pool", "gradients", "deform", "rearrange", "norm", "resize", "separable", "boundary",
    "integers",
}  # fmt: skip


def test_suites_are_those_announced() -> None:
    assert set(suite_names()) == KINDS | set(NETWORKS) | {"sparse", "networks"}


@pytest.mark.parametrize("suite", sorted(KINDS | set(NETWORKS)))
def test_suite_reads_and_has_no_row_twice(suite: str) -> None:
    cases = load(suite)
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.problem for case in cases}) == len(cases)
    for case in cases:
        assert parse_any_line(case.problem.line())[0].out_shape == case.problem.out_shape


@pytest.mark.parametrize("suite", sorted(NETWORKS))
def test_network_has_its_published_size(suite: str) -> None:
    cases = load(suite)
    convolutions, millions, parameters = NETWORKS[suite]
    weights = sum(case.count * int(np.prod(case.problem.weight_shape)) for case in cases)
    assert sum(case.count for case in cases) == convolutions
    macs = sum(case.count * case.problem.macs for case in cases)
    assert macs / 1e6 == pytest.approx(millions, rel=1e-3)
    assert parameters is None or weights == parameters
    assert all(case.problem.batch == 1 for case in cases)


def test_core_rows() -> None:
    cases = load("core")
    assert len(cases) == 39
    assert [case.name for case in cases][::19] == ["conv1 7x7s2", "dw7x7 96@56", "lenet N256"]


@pytest.mark.parametrize("suite", sorted(KINDS - {"core"}))
def test_kind_suites_hold_their_kind(suite: str) -> None:
    problems = [case.problem for case in load(suite)]
    assert 20 <= len(problems) <= (208 if suite == "gradients" else 30)
    test = {
        "depthwise": lambda p: p.is_depthwise,
        "dilated": lambda p: max(p.dilation) > 1,
        "grouped": lambda p: 1 < p.groups < p.in_channels,
        "conv1d": lambda p: p.ndim == 1,
        "conv3d": lambda p: p.ndim == 3,
        "image": lambda p: p.in_channels <= 4 and p.ndim == 2 and min(p.in_size) >= 512,
        "float64": lambda p: p.dtype == "float64",
        "transposed": lambda p: p.op == "conv_transpose",
        "pool": lambda p: "_pool" in p.op,
        "gradients": lambda p: p.op in ("conv_input_grad", "conv_weight_grad"),
        "deform": lambda p: p.op == "deform_conv",
        "rearrange": lambda p: p.op.endswith(("shuffle", "fold")),
        "norm": lambda p: p.op.endswith(("norm", "softmax", "prelu")),
        "resize": lambda p: p.op == "interpolate",
        "boundary": lambda p: isinstance(p, BoundaryProblem),
        "separable": lambda p: p.op == "conv_pair",
        "integers": lambda p: p.dtype in INTEGERS,
    }[suite]
    assert all(test(problem) for problem in problems)


def test_case_with_count_and_spaces() -> None:
    case = parse_case('--dt=f64 g2ic4ih8oc6kh3ph1n"two groups, 8x8*12"')
    assert (case.name, case.count) == ("two groups, 8x8", 12)
    assert (case.problem.groups, case.problem.dtype) == (2, "float64")
    assert parse_case("ic4ih8oc6kh3").name == "ic4ih8oc6oh6kh3"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "suite", ["core", "image", "float64", "transposed", "separable", "boundary"]
)
def test_rows_in_another_element_type(suite: str, dtype: str) -> None:
    for case in load(suite):
        other = in_dtype(case, dtype)
        assert other.problem == case.problem.with_(dtype=dtype)
        assert (other.name, other.count) == (case.name, case.count)
        assert other == parse_case(other.line)  # by which workers and users run it again


def test_a_line_in_another_element_type_is_as_a_user_writes_it() -> None:
    case = parse_case('--tag=axb --dt=f64 ic4ih8oc6kh3n"as --dt=f64 *2"')
    half = in_dtype(case, "float16")
    assert half.line == '--dt=f16 --tag=axb ic4ih8oc6kh3n"as --dt=f64 *2"'
    assert in_dtype(half, "float32").line == '--tag=axb ic4ih8oc6kh3n"as --dt=f64 *2"'
    assert in_dtype(case, "float64") is case
    assert in_dtype(parse_case("ic4ih8oc6kh3"), "bfloat16").name == "--dt=bf16 ic4ih8oc6oh6kh3"


def test_load_reads_files_and_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text('# a comment\n\nic4ih8oc6kh3n"a*2"\n  ic4iw8oc6kw3n"b"\n')
    assert [(case.name, case.count) for case in load(str(file))] == [("a", 2), ("b", 1)]
    assert [case.name for case in select(load(str(file)), "iw8")] == ["b"]
    assert load('ic4ih8oc6kh3n"single"')[0].name == "single"


def test_load_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("ic4ih8oc6kh3\nic4ih8oc6kh9\n")
    with pytest.raises(ValueError, match=r"bad\.txt:2: .*kernel"):
        load(str(file))
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no problem line"):
        load(str(file))
    with pytest.raises(ValueError, match="one of alexnet"):
        load("resnet51")
    with pytest.raises(ValueError, match="count of 0"):
        parse_case('ic4ih8oc6kh3n"x*0"')
    with pytest.raises(ShapeError):
        load("ic4ih8")
