"""Compiled kernels on disk: found again, shared by processes, and never a reason to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import numpy as np
import fastconv
from fastconv.kernels.cpu import jit

for dtype in sys.argv[1:]:
    x = (np.arange(2 * 3 * 9 * 21) % 7).reshape(2, 3, 9, 21).astype(dtype)
    weight = np.ones((4, 3, 1, 1), dtype)
    y = fastconv.conv2d(x, weight)
    assert np.array_equal(y, np.repeat(x.sum(1, keepdims=True), 4, 1)), dtype
print(jit.statistics.compiled, jit.statistics.loaded)
"""


def start(folder: Path | str, *dtypes: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *dtypes],
        env={
            **os.environ,
            "FASTCONV_CACHE_DIR": str(folder),
            "FASTCONV_KERNEL": "cpu.direct",  # the quickest to compile
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(child: subprocess.Popen[str]) -> tuple[int, int]:
    """Variants that the process compiled and loaded."""
    out, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    compiled, loaded = out.split()
    return int(compiled), int(loaded)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A cache with every variant that float32 needs, and their number."""
    folder = tmp_path_factory.mktemp("cache")
    compiled, loaded = result(start(folder, "float32"))
    assert compiled > 0 and loaded == 0
    return folder, compiled


def test_the_next_process_compiles_nothing(filled: tuple[Path, int]) -> None:
    folder, variants = filled
    kept = files(folder)
    assert len(kept) == variants
    assert result(start(folder, "float32")) == (0, variants)
    assert files(folder) == kept


def test_variants_compiled_apart_work_together(tmp_path: Path) -> None:
    """Each variant was the first of its process, which is where its symbols get their names."""
    kernel = {"FASTCONV_KERNEL": "cpu.im2col_gemm"}
    for dtype in ("float32", "float64"):
        result(start(tmp_path, dtype, **kernel))
    for order in (("float32", "float64"), ("float64", "float32")):
        compiled, loaded = result(start(tmp_path, *order, **kernel))
        assert compiled == 0 and loaded > 0


def test_processes_that_compile_at_once_keep_one_file_a_variant(tmp_path: Path) -> None:
    children = [start(tmp_path, "float32") for _ in range(2)]
    for child in children:
        compiled, loaded = result(child)
    assert len(files(tmp_path)) == compiled + loaded
    assert result(start(tmp_path, "float32")) == (0, compiled + loaded)


def test_a_damaged_file_is_compiled_again(filled: tuple[Path, int], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(filled[0], folder)
    folder.chmod(0o700)
    for number, path in enumerate(files(folder)):
        whole = path.read_bytes()
        path.write_bytes((b"", whole[: len(whole) // 2], os.urandom(len(whole)))[number % 3])
    assert result(start(folder, "float32")) == (filled[1], 0)
    assert result(start(folder, "float32")) == (0, filled[1])


def test_no_writable_folder_costs_time_only(tmp_path: Path) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("")
    compiled, loaded = result(start(blocked / "cache", "float32"))
    assert compiled > 0 and loaded == 0
    assert files(tmp_path) == [blocked]


def test_switched_off_writes_nothing(tmp_path: Path) -> None:
    compiled, loaded = result(start(tmp_path, "float32", FASTCONV_CACHE="0"))
    assert compiled > 0 and loaded == 0
    assert files(tmp_path) == []
