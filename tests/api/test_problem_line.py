"""The one-line text form of a problem: benchdnn's grammar, read and written."""

from __future__ import annotations

import pytest

from fastconv.contract.errors import DTypeError, ShapeError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.problem_line import parse_line
from problem_matrix import matrix, problem

pytestmark = pytest.mark.program

# Lines as oneDNN's tests/benchdnn/inputs/conv and its knobs_conv.md have them.
BENCHDNN = {
    'mb256ic3ih227oc96oh55kh11sh4ph0n"alexnet:conv1"': problem(
        (3, 96), (227, 227), 11, batch=256, stride=4
    ),
    'g2mb256ic96ih27oc256oh27kh5ph2n"alexnet:conv2"': problem(
        (96, 256), (27, 27), 5, batch=256, padding=2, groups=2
    ),
    'ic3ih224oc64oh112kh7sh2ph3n"resnet_50:conv1"': problem(
        (3, 64), (224, 224), 7, stride=2, padding=3
    ),
    'ic64ih56oc256oh56kh1ph0n"resnet_50:res2a_branch1"': problem((64, 256), (56, 56), 1),
    'ic128ih17oc128oh17kh1kw7ph0pw3n"googlenet_v3:mixed_4"': problem(
        (128, 128), (17, 17), (1, 7), padding=((0, 0), (3, 3))
    ),
    'g32ic32ih112oc32oh112kh3ph1n"mobilenet:conv2_1/dw"': problem(
        (32, 32), (112, 112), 3, padding=1, groups=32
    ),
    'g64mb1ic64ih112oc64oh56kh3sh2ph1n"mobilenet:conv3_1/dw"': problem(
        (64, 64), (112, 112), 3, stride=2, padding=1, groups=64
    ),
    'ic512ih33oc512oh33kh3sh1ph2dh1n"ssd:dilated"': problem(
        (512, 512), (33, 33), 3, padding=2, dilation=2
    ),
    'mb100ic3id16ih112iw112oc64od16oh112ow112kd3kh3kw3pd1ph1pw1n"c3d:conv1"': problem(
        (3, 64), (16, 112, 112), 3, batch=100, padding=1
    ),
    'ic64id8oc64kd3pd1n"cube"': problem((64, 64), (8, 8, 8), 3, padding=1),
    'ic32iw100oc64ow98kw3n"line"': problem((32, 64), (100,), 3),
    'ic3ih32iw64oc8kh3kw3ph1pw1n"wide"': problem((3, 8), (32, 64), 3, padding=1),
    'ic8ih14oc8oh7kh3sh2ph0n"tensorflow:same"': problem(
        (8, 8), (14, 14), 3, stride=2, padding=((0, 1), (0, 1))
    ),
    '--dt=f16 --tag=axb ic4ih6oc4kh1n"half"': problem(
        (4, 4), (6, 6), 1, dtype="float16", layout="channels_last"
    ),
    '--dt=bf16 ic4ih6oc4kh1n"brain"': problem((4, 4), (6, 6), 1, dtype="bfloat16"),
    '--dt=f64 --tag=abx ic4ih6oc4kh1n"double"': problem((4, 4), (6, 6), 1, dtype="float64"),
}


@pytest.mark.parametrize("line", BENCHDNN)
def test_reads_benchdnn(line: str) -> None:
    parsed, name = parse_line(line)
    assert parsed == BENCHDNN[line]
    assert f'n"{name}"' in line


@pytest.mark.parametrize("line", BENCHDNN)
def test_writes_what_it_reads(line: str) -> None:
    parsed, name = parse_line(line)
    assert parse_line(parsed.line(name)) == (parsed, name)


@pytest.mark.parametrize("each", matrix(), ids=lambda each: each.line())
def test_every_problem_comes_back(each: ConvProblem) -> None:
    line = each.line("name:1/2_x-y")
    parsed, name = parse_line(line)
    assert name == "name:1/2_x-y"
    assert parsed.line(name) == line
    assert parsed.out_shape == each.out_shape
    # The text has no word for zeros at the high side that no window reaches.
    assert parsed.with_(padding=each.padding) == each
    for told, asked in zip(parsed.padding, each.padding, strict=True):
        assert told[0] == asked[0] and (told[1] <= asked[1] or told[0] == told[1])
        if asked[0] == asked[1]:
            assert told == asked


def test_a_name_keeps_its_spaces() -> None:
    of = problem((3, 4), (8, 8), 3)
    assert parse_line(of.line("second conv")) == (of, "second conv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "ic"),
        ("hello", "hello"),
        ("ic64ih56oc64", "kernel"),
        ("ih56oc64kh3", "ic"),
        ("ic64oc64kh3", "ih"),
        ("ic64ih56oc64kh3zz9", "got keys zz in"),
        ("ic64ih56oc64kh3zz9", "want g (groups), mb (batch), ic and oc"),
        ("ic64ih56oc64kh99", "99"),
        ("ic64ih56oc64oh40kh3", "40"),
        ("ic64ih56oc64kh3sh0", "stride"),
        ("ic64ih56oc64kh3ph-1", "padding"),
        ("g7ic64ih56oc64kh3", "groups"),
        ("--dt=int8 ic64ih56oc64kh3", "int8"),
        ("--dt= ic64ih56oc64kh3", "dt"),
        ("--tag=nchw ic64ih56oc64kh3", "nchw"),
        ("--dir=FWD_B ic64ih56oc64kh3", "--dir"),
        ("ic64ih56oc64kh", "kh"),
        (f"ic64ih{'9' * 20}oc64kh3", "at most 19 digits"),
        ("ic64ih56oc64kh3dh-1", "dilation of -1"),
        ("ic64ih56oc64kh3ic32", "ic twice"),
        ('ic64ih56oc64kh3n"open', "open"),
    ],
)
def test_a_bad_line_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises((ShapeError, DTypeError)) as caught:
        parse_line(text)
    assert words in str(caught.value)


def test_sizes_of_known_layers() -> None:
    conv1 = parse_line("ic3ih227oc96kh11sh4")[0]
    assert conv1.out_shape == (1, 96, 55, 55)
    assert conv1.weight_shape == (96, 3, 11, 11)
    assert conv1.macs == 105_415_200 and conv1.flops == 2 * conv1.macs
    depthwise = parse_line("g64ic64ih112oc64kh3sh2ph1")[0]
    assert depthwise.weight_shape == (64, 1, 3, 3) and depthwise.out_size == (56, 56)
    assert parse_line("ic5iw9oc7kw3")[0].ndim == 1
    assert parse_line("ic5id9oc7kd3")[0].in_size == (9, 9, 9)


def test_a_problem_is_a_key() -> None:
    first, second = (problem((3, 4), (8, 8), 3) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert len({first, second, first.with_(dtype="float64")}) == 2
    with pytest.raises(AttributeError):
        first.batch = 2  # type: ignore[misc]
