"""Settings that must be in force before fastconv is imported, and the seeded generator."""

from __future__ import annotations

import os
import secrets

import numpy as np
import pytest

# Workspaces and fresh outputs start as NaN, so a kernel that reads what it has not written shows.
os.environ.setdefault("FASTCONV_POISON_WORKSPACE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rng-seed", type=int, help="seed of the `rng` fixture, to repeat a failure")


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
