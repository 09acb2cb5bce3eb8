"""The CPU guide of kernels/README.md: its example kernel runs, and what it names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import guide
from fastconv import dispatch, information
from fastconv.contract.spec import KernelSpec
from fastconv.kernels.cpu import specs
from helpers import refusals
from problem_matrix import matrix

#: Every so many problems of the matrix; the guide's kernel takes a part of them.
MATRIX = matrix()[::4]


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelSpec]:
    """The guide's kernel, registered."""
    before = specs.SPECS
    with guide.installed("cpu", tmp_path_factory.mktemp("guide")):
        assert specs.SPECS[:-1] == before, "the guide's table lacks a mechanism"
        yield specs.SPECS[-1]
    assert before == specs.SPECS


def test_it_is_a_kernel_as_others_are(naive: KernelSpec) -> None:
    assert naive.name == "cpu.naive"
    assert naive in dispatch.kernels("conv", "cpu")
    assert information.usable_kernels()["cpu.naive"].startswith("3x3, 1x1, strided, grouped")
    able = [each for each in MATRIX if not refusals(naive, each)]
    assert len(able) >= 50
    assert {each.ndim for each in able} == {1, 2, 3}
    assert {each.dtype for each in able} == {"float32", "float64"}
    assert all(dispatch.choose(each).name != "cpu.naive" for each in able if each.macs > 10_000)


def test_it_passes_the_tests_that_the_guide_names(request: pytest.FixtureRequest) -> None:
    told = guide.run_tests(request.config, "cpu", "tests/cpu/test_kernels.py")
    for name in ("refused_problems_raise", "nan_survives", "every_memory_order"):
        assert re.search(rf"test_\w*{name}\w*\[cpu\.naive.*PASSED", told), name
    assert "test_every_kernel_has_a_case_in_every_group[cpu/test_kernels.py] PASSED" in told


NAMES = re.compile(r"`([\w/.*-]+(?:\.py|\.md|/))`")


def named_files(line: str) -> Iterator[tuple[str, bool]]:
    """Each file or folder that a line of the guide names, and whether it is there.

    A name alone lies in a folder that stands before it in the line, or beside a file that does.
    """
    folders = [guide.KERNELS, guide.KERNELS.parent]
    for name in NAMES.findall(line):
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        yield name, path is not None
        if path is not None:
            folders.insert(0, path if path.is_dir() else path.parent)


def test_every_file_that_is_named_is_there() -> None:
    text = guide.GUIDE.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [
        (name, there)
        for line in prose.splitlines()
        for name, there in named_files(line)
        if name not in ("plan.py", "costs.py", "tasks.py", "tile.py")  # of any mechanism
    ]
    assert [name for name, there in found if not there] == []
    assert len(found) > 100
    assert list(named_files("`cpu/gemm/` has `tile.py` and `gone.py`")) == [
        ("cpu/gemm/", True), ("tile.py", True), ("gone.py", False),
    ]  # fmt: skip


def test_every_folder_file_and_kernel_is_named() -> None:
    text = guide.GUIDE.read_text(encoding="utf-8")
    folders = [path.parent for path in guide.KERNELS.glob("*/*/__init__.py")]
    names = [f"`{folder.relative_to(guide.KERNELS)}/`" for folder in folders]
    names += [f"`{spec.name}`" for spec in dispatch.kernels() if spec.name != "cpu.naive"]
    assert [name for name in names if name not in text] == []
    files = [path for path in guide.KERNELS.rglob("*.py") if path.parent.name != "emulator"]
    missing = [path for path in files if f"{path.name}`" not in text]
    assert {path.name for path in missing} == {"__init__.py"}


def test_the_guide_lists_what_a_new_folder_needs() -> None:
    """Each file that step 5 names is there, and each thing in it."""
    root = Path(guide.KERNELS.parent)
    for path, thing in (
        ("pyproject.toml", "[tool.setuptools.package-dir]"),
        (".ci/kernel_tables.py", "def "),
        ("fastconv/warmup.py", "_LINES"),
        ("fastconv/information.py", "_SAMPLES"),
        ("tests/api/test_imports.py", "SHARED"),
        ("tests/support/problem_matrix.py", "def matrix"),
        ("tests/cpu/test_kernels.py", "SMALL_PROBLEMS"),
        ("tests/cpu/test_choices.py", "KEPT"),
        ("tests/support/cuda_helpers.py", "SMALL_PROBLEMS"),
        ("tests/cuda/test_forecast.py", "LINES"),
    ):
        assert path.rpartition("/")[2] in guide.GUIDE.read_text(encoding="utf-8")
        assert thing in (root / path).read_text(encoding="utf-8"), path
