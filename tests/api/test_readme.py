"""What README lists is what there is, its examples run, and its sample is what is printed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.kernels.cpu.machine.zen4 import ZEN4

pytestmark = pytest.mark.program

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def kernel_tables() -> ModuleType:
    """The script that writes the table of kernels."""
    spec = importlib.util.spec_from_file_location(
        "kernel_tables", ROOT / ".ci" / "kernel_tables.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_kernels_is_the_registrys(kernel_tables: ModuleType) -> None:
    assert kernel_tables.with_table(README) == README, "run: python .ci/kernel_tables.py"


def test_a_kernel_that_is_not_in_the_table_is_seen(
    kernel_tables: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = dispatch.kernels()[1:]
    monkeypatch.setattr(dispatch, "kernels", lambda: fewer)
    assert kernel_tables.with_table(README) != README


def test_every_kernel_says_what_it_is_and_when_it_wins(kernel_tables: ModuleType) -> None:
    rows = kernel_tables.table(dispatch.kernels()).splitlines()[2:]
    silent = [row for row in rows if "|  |" in row]
    assert silent == [], "the docstring of its plan needs a sentence: Wins where ..."


def test_no_sentence_of_the_table_is_cut(kernel_tables: ModuleType) -> None:
    for spec in dispatch.kernels():
        what, when = kernel_tables.what_and_when(spec)
        text = kernel_tables.prose(kernel_tables.docstring(spec))
        assert f"{what[1:]}." in text or f"{what[1:]}, wins" in text, spec.name
        assert not when or re.search(rf"\bwins {re.escape(when)}[.:;]", text, re.IGNORECASE)
        assert re.match(r"where|for |on |from |$", when), f"{spec.name}: {when} is no occasion"


def test_no_two_rows_of_the_table_are_described_alike(kernel_tables: ModuleType) -> None:
    rows = kernel_tables.table(dispatch.kernels()).splitlines()[2:]
    titles = [row.split(" | ")[1] for row in rows]
    assert len(set(titles)) == len(titles), titles


def test_the_sample_of_explain_is_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of the profile: predictions are the same everywhere."""
    pytest.importorskip("scipy", reason="cpu.fft, a row of the sample, needs it")
    monkeypatch.setattr(dispatch, "cpu_info", lambda: ZEN4.device)
    x, w = np.empty((1, 64, 56, 56), np.float32), np.empty((64, 64, 3, 3), np.float32)
    printed = str(fastconv.explain(fastconv.conv2d, x, w, padding=1))
    sample = README[README.index("ic64ih56oc64oh56kh3ph1  float32") :].partition("\n```")[0]
    assert sample == printed


@pytest.mark.parametrize("number", range(6))
def test_the_examples_run(number: int) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(examples) == 6
    exec(compile(examples[number], "README.md", "exec"), {})


def test_every_key_of_a_problem_line_is_listed() -> None:
    table = README[README.index("| keys | meaning") :].partition("\n\n")[0]
    listed = set(re.findall(r"`([a-z]{1,2})`", table))
    said = {f"{letter}{axis}" for letter in "oskpd" for axis in "hw"}  # "and so with h and w"
    keys = ("g", "mb", "ic", "oc", *(f"{letter}{axis}" for letter in "ioskpd" for axis in "dhw"))
    assert set(keys) <= listed | said
