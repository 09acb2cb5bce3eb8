"""The example kernels of kernels/README.md, put into the package as its guide says.

Code of the guide begins with a comment that names its file. A new file goes into a temporary folder
that stands behind the package's own; a file that is there already gets the code as an addition.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastconv import dispatch

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
GUIDE = KERNELS / "README.md"
_BLOCK = re.compile(r"^```python\n# kernels/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(device: str) -> dict[str, str]:
    """The guide's code for a device: file below kernels/ and text, in the order of the steps."""
    found = dict(_BLOCK.findall(GUIDE.read_text(encoding="utf-8")))
    return {path: text for path, text in found.items() if path.startswith(f"{device}/")}


@contextlib.contextmanager
def installed(device: str, folder: Path) -> Iterator[dict[str, ModuleType]]:
    """Write and register the guide's kernel; the modules, new and added to, by file."""
    package = import_module(f"fastconv.kernels.{device}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(folder / device)])
        patch.setattr(dispatch, "_chosen", {})  # no later test is given a kernel that is gone
        try:
            yield _install(device, folder, patch)
        finally:
            _forget(package)


def run_tests(config: pytest.Config, device: str, *modules: str) -> str:
    """Run the generated tests of modules on the guide's kernel; what pytest printed.

    It is a process that has had the kernel from the start, since tests are generated at import. As
    much of the matrix is run as the run that asks runs itself.
    """
    matrix = (f"--matrix={config.option.matrix}", f"--matrix-seed={config.option.matrix_seed}")
    other = {"cpu": "cuda", "cuda": "cpu"}[device]
    support = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, (support, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-v", "-p", "guide_plugin", "--guide", device, *matrix,
            "-p", "no:cacheprovider", *modules, "tests/api/test_generated_groups.py",
            "-k", f"naive or (generated_groups and not {other})",
        ],
        cwd=KERNELS.parent,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _install(device: str, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    added = {}
    for path, text in blocks(device).items():
        if (KERNELS / path).exists():
            added[path] = text
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    for path, text in added.items():
        _add(_module(path), text, patch)
    return {path: _module(path) for path in blocks(device)}


def _module(path: str) -> ModuleType:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return import_module(f"fastconv.kernels.{name}")


def _add(module: ModuleType, text: str, patch: pytest.MonkeyPatch) -> None:
    """Run code as if it stood at the end of a module, until the test is over."""
    tables = {name: value for name, value in vars(module).items() if isinstance(value, dict)}
    before = {name: set(value) for name, value in tables.items()}
    namespace: dict[str, Any] = dict(vars(module))
    exec(compile(text, str(module.__file__), "exec"), namespace)
    for name, table in tables.items():
        for key in set(table) - before[name]:
            patch.setitem(table, key, table.pop(key))
    for name, value in namespace.items():
        if name != "__builtins__" and vars(module).get(name, namespace) is not value:
            patch.setattr(module, name, value, raising=False)


def _forget(package: ModuleType) -> None:
    """Drop the modules of the guide's kernel, whose files are gone after the test."""
    name = f"{package.__name__}.naive"
    for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[module]
    vars(package).pop("naive", None)
