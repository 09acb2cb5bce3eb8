"""Settings that must be in force before fastconv is imported, the seeded generator, the matrix.

Tests marked ``matrix`` run every kernel on every problem. A run takes a part of them, drawn afresh
each time; the header says how to repeat the draw, and ``--matrix 100`` takes all.
"""

from __future__ import annotations

import os
import secrets
import zlib
from typing import Any

import numpy as np
import pytest

# Workspaces and fresh outputs start as NaN, so a kernel that reads what it has not written shows.
os.environ.setdefault("FASTCONV_POISON_WORKSPACE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rng-seed", type=int, help="seed of the `rng` fixture, to repeat a failure")
    parser.addoption(
        "--matrix",
        type=int,
        default=4,
        metavar="PERCENT",
        help="how much of the generated matrix to run (default: %(default)s)",
    )
    parser.addoption("--matrix-seed", type=int, help="draws that part, to repeat a run")


def pytest_configure(config: pytest.Config) -> None:
    draw = getattr(config, "workerinput", {"matrix_seed": secrets.randbits(32)})["matrix_seed"]
    if config.option.matrix_seed is None:
        config.option.matrix_seed = draw


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let every worker of pytest-xdist draw the same part."""
    node.workerinput["matrix_seed"] = node.config.option.matrix_seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"matrix: --matrix {config.option.matrix} --matrix-seed {config.option.matrix_seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any("::" in argument for argument in config.args):
        return  # tests asked for by name

    def drawn(item: pytest.Item) -> bool:
        number = zlib.crc32(f"{config.option.matrix_seed} {item.nodeid}".encode())
        return item.get_closest_marker("matrix") is None or number % 100 < config.option.matrix

    left_out = [item for item in items if not drawn(item)]
    if left_out:
        items[:] = [item for item in items if drawn(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator with a fresh seed; pytest shows the seed with a failing test."""
    seed = request.config.getoption("--rng-seed")
    if seed is None:
        seed = secrets.randbits(32)
    print(f"repeat with: pytest '{request.node.nodeid}' --rng-seed={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def no_tuned_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no choice that was once measured on this machine decide which kernel a test runs."""
    from fastconv import tuning

    monkeypatch.setattr(tuning, "_memory", tuning.Memory(None))


@pytest.fixture(autouse=True)
def no_measured_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let costs be those that are shipped, whatever was once measured of this machine."""
    from fastconv.kernels.cpu.machine import in_force, seconds

    monkeypatch.setattr(in_force, "read", lambda device: None)
    monkeypatch.setattr(seconds, "_found", {})
