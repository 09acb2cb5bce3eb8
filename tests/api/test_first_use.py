"""The first call of a process, beside forks and from several threads.

Each scenario of support/first_use_child.py runs in an interpreter of its own, with nothing compiled
yet where that makes the first call long.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from helpers import run_child

pytestmark = pytest.mark.program

FORKS = ("fork_amid_the_first_call", "fork_amid_the_first_sparse_call",
         "fork_when_logging_is_loaded", "fork_in_a_thread", "processes",
         "interrupted_forks")  # fmt: skip
LOCK = ("what_is_loaded_is_guarded", "no_body_of_a_module_takes_the_lock")


def run(scenario: str, **environment: str) -> None:
    try:
        child = run_child("first_use_child.py", scenario, timeout=400, **environment)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{scenario} hangs: {error.stderr!r}")
    assert child.returncode == 0, f"ended with {child.returncode}\n{child.stdout}{child.stderr}"
    assert f"passed {scenario}" in child.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
@pytest.mark.parametrize("scenario", FORKS)
def test_forks(scenario: str) -> None:
    run(scenario)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_forks_while_kernels_are_compiled(tmp_path: Path) -> None:
    run("fork_amid_the_first_call", FASTCONV_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
@pytest.mark.parametrize("scenario", ["interrupted_first_calls", "calls_amid_the_first_call"])
def test_signals(scenario: str, tmp_path: Path) -> None:
    run(scenario, FASTCONV_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize("scenario", LOCK)
def test_lock(scenario: str) -> None:
    run(scenario)
