"""Calls from many threads, after a fork and inside foreign parallel regions.

Each scenario of support/concurrency_child.py runs in a process of its own, on each of Numba's
threading layers where a foreign Numba program takes part: it may not abort, hang or change a bit.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import os
import subprocess

import pytest

from helpers import run_child

ALONE = (
    "first_calls_at_once",
    "many_threads",
    "thread_counts",
    "thread_count_changes_while_computing",
    "interrupted_calls",
    "exit_while_computing",
    "multiprocessing_pools",
)
WITH_NUMBA = (
    "fork_before_use",
    "fork_after_use",
    "fork_while_computing",
    "beside_a_foreign_parallel_program",
    "inside_a_foreign_parallel_region",
    "denormals_survive",
)
LAYERS = ("omp", "tbb", "workqueue")

pytestmark = [
    pytest.mark.program,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork"),
]


def tbb_library() -> str | None:
    """Folder of the `tbb` package's shared library, "" for the system's own, None without any."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return "" if ctypes.util.find_library("tbb") else None
    found = [str(file.locate().resolve().parent) for file in files if file.name == "libtbb.so.12"]
    return found[0] if found else None


def run(scenario: str, **environment: str) -> None:
    try:
        child = run_child("concurrency_child.py", scenario, **environment)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{scenario} hangs: {error.stderr!r}")
    assert child.returncode == 0, f"ended with {child.returncode}\n{child.stdout}{child.stderr}"
    assert f"passed {scenario}" in child.stdout


@pytest.mark.parametrize("scenario", ALONE)
def test_alone(scenario: str) -> None:
    run(scenario)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("scenario", WITH_NUMBA)
def test_beside_numba(scenario: str, layer: str) -> None:
    environment = {"NUMBA_THREADING_LAYER": layer}
    if layer == "tbb":
        folder = tbb_library()
        if folder is None:
            pytest.skip("package tbb is not installed")
        paths = [folder, os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
    run(scenario, **environment)


def test_inside_torch() -> None:
    pytest.importorskip("torch", reason="package torch is not installed")
    run("inside_torch")


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_the_environment_sets_the_threads(threads: str) -> None:
    run("many_threads", FASTCONV_NUM_THREADS=threads)
