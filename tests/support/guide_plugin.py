"""A kernel of the guide for a whole run of pytest: ``pytest -p guide_plugin --guide cpu``."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guide", choices=("cpu", "cuda"), help="the device of the guide's kernel")


def pytest_configure(config: pytest.Config) -> None:
    """Register the kernel before a test is generated from the registry, until the run is over."""
    import guide  # fastconv is imported when tests/conftest.py has set what must be set before

    stack = contextlib.ExitStack()
    config.add_cleanup(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    stack.enter_context(guide.installed(config.option.guide, folder))
