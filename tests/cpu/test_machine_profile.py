"""The profile of a machine: what is measured stands in it alone, and each field moves some cost."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fastconv import dispatch
from fastconv.contract.problem_line import parse_line
from fastconv.contract.sparse_problem import OPERANDS, SparseProblem
from fastconv.contract.spec import DeviceInfo
from fastconv.kernels.cpu.machine import seconds
from fastconv.kernels.cpu.machine.fields import Fields
from fastconv.kernels.cpu.machine.in_force import InForce
from fastconv.kernels.cpu.machine.zen4 import ZEN4

KERNELS = Path(__file__).resolve().parents[2] / "kernels" / "cpu"
#: Numbers of that size which are no time and no rate: lower bits of log 2.
ELSE = {
    (name, "1.42860682030941723212e-6")
    for name in ("common/activations.py", "simd/exponentials.py")
}


def measured(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each number that looks like a clock, a bandwidth or a time."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NUMBER or not re.search(r"[.eE]", token.string):
            continue
        if token.string.lower().startswith("0x"):
            continue
        value = ast.literal_eval(token.string)
        if value >= 1e8 or 0 < value < 1e-5 or re.search(r"e(\+?0?9|-0?[69])$", token.string, re.I):
            yield token.start[0], token.string


def test_clocks_bandwidths_and_times_stand_in_the_profile_alone() -> None:
    outside = []
    for path in KERNELS.rglob("*.py"):
        name = path.relative_to(KERNELS).as_posix()
        if name not in ("machine/zen4.py", "machine/shipped.py"):
            numbers = measured(path.read_text(encoding="utf-8"))
            outside += [(name, line, text) for line, text in numbers if (name, text) not in ELSE]
    assert outside == [], "measured of a machine, so they belong into kernels/cpu/machine"


@pytest.mark.parametrize("number", ["3.6e9", "3500000000.0", "20E9", "2e-6", "60e-6", "0.36e-09"])
def test_a_planted_number_is_found(number: str) -> None:
    assert list(measured(f"a = 1\nb = {number} + 2e-5")) == [(2, number)]


#: Problems that between them meet every field of a profile.
LINES = (
    "ic64ih27oc192oh27kh5ph2",
    "ic3ih224oc32oh112kh3sh2ph1",
    "--tag=axb g3ic3ih1024oc3oh1024kh5ph2",
    "g128ic128ih56oc128oh56kh31ph15",
    "ic512ih33oc256oh33kh3ph6dh5",
    "ic3ih224oc64oh55kh11sh4ph2",
    "--tag=axb g32ic128ih56oc128oh56kh3ph1",
    "--tag=axb g96ic96ih56oc96oh56kh7ph3",
    "ic16ih112oc96oh112kh1",
    "ic1iw1048576oc1ow1048576kw255pw127",
    "ic64iw16000oc128ow15936kw2dw63",
    "ic256ih56oc512oh28kh1sh2",
    "--dt=f64 ic3ih512oc3oh512kh9ph4",
    "--dt=f16 ic3ih56oc64oh56kh3ph1",
)
DENSE = [parse_line(line)[0] for line in LINES]
SPARSE = [
    SparseProblem(op, rows, rows, 7 * rows, (3, 3, 3), 64, 64, groups)
    for op in OPERANDS
    for groups in (1, 64)
    for rows in (900, 90_000)
]
DEVICES = (
    ZEN4.device,
    replace(ZEN4.device, isa="avx2", vector_bytes=32, registers=16),
    replace(ZEN4.device, threads=1),
)
#: What a group's field may move: kernels whose names begin so, all where none is named.
READERS: dict[str, tuple[str, ...]] = {
    "gemm": ("im2col_gemm", "swapped_gemm", "dilated"),
    "brgemm": ("brgemm",),
    "winograd": ("winograd_f",),
    "winograd_1d": ("winograd_1d",),
    "window": ("depthwise", "direct"),
    "fast_fir": ("fast_fir",),
    "fft": ("fft",),
    "sparse": ("sparse",),
}


def leaves(part: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The path to every field that holds a number."""
    for name, value in vars(part).items():
        if isinstance(value, DeviceInfo):
            continue
        if isinstance(value, Fields):
            yield from leaves(value, *path, name)
        else:
            yield (*path, name)


def scaled(part: Any, path: tuple[str, ...], factor: float) -> Any:
    """A profile, or a part of one, with one field multiplied."""
    name, *rest = path
    value: Any = getattr(part, name)
    if rest:
        value = scaled(value, tuple(rest), factor)
    elif isinstance(value, tuple):
        value = tuple(number * factor for number in value)
    else:
        value *= factor
    return type(part)(**{**vars(part), name: value})


def costs(group: str, tag: str) -> Iterator[tuple[float, float]]:
    """What kernels that read a group are predicted to take; `tag` tells what is kept apart."""
    readers = READERS.get(group, ("",))
    for device, of in product(DEVICES, (*DENSE, *SPARSE)):
        op = of.op if isinstance(of, SparseProblem) else "conv"
        named = replace(device, name=tag)
        for spec in dispatch.kernels(op=op, device="cpu"):
            if spec.name.removeprefix("cpu.").startswith(readers) and not spec.reasons(of, named):
                yield spec.cost(of, named), spec.pack_cost(of, named)


@functools.cache
def known(group: str) -> list[tuple[float, float]]:
    return list(costs(group, "as measured"))


@pytest.mark.parametrize("path", [*leaves(ZEN4)], ids=".".join)
def test_every_field_moves_a_cost(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if path[0] == "fft":
        pytest.importorskip("scipy")
    before = known(path[0])
    for factor in (3, 1 / 3):
        made = InForce(scaled(ZEN4, path, factor), "")
        monkeypatch.setattr(seconds, "in_force", lambda device, made=made: made)
        after = costs(path[0], f"{path} {factor}")
        if any(old != new for old, new in zip(before, after, strict=True)):
            return
    pytest.fail("no cost reads it")
