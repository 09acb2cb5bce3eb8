"""What a user gets from a wheel and from ``pip install -e``, seen from outside the checkout.

Each way is installed into an environment of its own, without a network: the build is not isolated
and the dependencies are those of the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"fastconv": "fastconv", "kernels": "fastconv/kernels", "bench": "fastconv/bench"}
PROBLEMS = sorted(path.name for path in (ROOT / "bench" / "problems").glob("*.txt"))
LAZY = ["numba", "numba_cuda", "llvmlite", "torch", "cupy", "scipy"]

# Python started by the tests finds only what is installed in the environment that they name.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    "PYTHONNOUSERSITE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}

LOOK_AROUND = """
import importlib, importlib.metadata, importlib.resources, json, sys
import fastconv
lazy = sorted(set(sys.modules).intersection({lazy!r}))
names = ["fastconv", "fastconv.kernels", "fastconv.kernels.cpu", "fastconv.kernels.cuda",
         "fastconv.bench"]
problems = importlib.resources.files("fastconv.bench") / "problems"
print(json.dumps({{
    "loaded_by_import": lazy,
    "files": [importlib.import_module(name).__file__ for name in names],
    "problems": sorted(path.name for path in problems.iterdir() if path.name.endswith(".txt")),
    "typed": (importlib.resources.files("fastconv") / "py.typed").is_file(),
    "versions": [fastconv.__version__, importlib.metadata.version("fastconv")],
}}))
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """One way of installing, and where its files should come from."""

    prefix: Path
    home: Path

    def script(self, name: str) -> Path:
        scripts = sysconfig.get_path("scripts", "venv", vars={"base": str(self.prefix)})
        return Path(shutil.which(name, path=scripts) or Path(scripts) / name)

    @property
    def python(self) -> Path:
        return self.script("python")


def new_environment(prefix: Path) -> Installed:
    """Make an environment that also sees the packages of the running one."""
    succeed(sys.executable, "-m", "venv", "--without-pip", prefix, cwd=prefix.parent)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(prefix)}))
    # A .pth inside a folder that a .pth names is not read, so an editable fastconv of the running
    # environment stays out of sight.
    (site / "running.pth").write_text("\n".join({*map(sysconfig.get_path, ("purelib", "platlib"))}))
    return Installed(prefix, site)


def install(into: Installed, *what: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", into.python, "install")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    succeed(*pip, *offline, *what, cwd=into.prefix)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is built from: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    succeed(*build, source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    environment = new_environment(tmp_path_factory.mktemp(request.param) / "venv")
    if request.param == "wheel":
        install(environment, request.getfixturevalue("wheel"))
        return environment
    source = request.getfixturevalue("source")
    install(environment, "--editable", source)
    return Installed(environment.prefix, source)


def test_wheel_holds_every_source_file(wheel: Path, source: Path) -> None:
    """A subpackage that pyproject.toml does not list would be missing here."""
    wanted = {
        f"{package}/{path.relative_to(source / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.suffix in (".py", ".txt", ".typed")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wanted - names == set()
    metadata = wheel.name.rsplit("-", 3)[0] + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"fastconv", metadata}
    assert f"{metadata}/licenses/LICENSE" in names


def test_imports_from_elsewhere(installed: Installed, tmp_path: Path) -> None:
    code = LOOK_AROUND.format(lazy=LAZY)
    seen = json.loads(succeed(installed.python, "-c", code, cwd=tmp_path))
    assert seen["loaded_by_import"] == []
    for file in seen["files"]:
        assert Path(file).resolve().is_relative_to(installed.home.resolve())
    assert PROBLEMS
    assert seen["problems"] == PROBLEMS
    assert seen["typed"]
    assert len(set(seen["versions"])) == 1


@pytest.mark.parametrize("command", ["script", "module"])
def test_command_line(installed: Installed, tmp_path: Path, command: str) -> None:
    program = [installed.script("fastconv")]
    if command == "module":
        program = [installed.python, "-m", "fastconv"]
    text = succeed(*program, "--help", cwd=tmp_path)
    for word in ("info", "explain", "bench", "demo", "warmup", "cache"):
        assert word in text


def test_no_top_level_kernels(installed: Installed, source: Path, tmp_path: Path) -> None:
    """Neither the installed package nor the checkout's folder answers to ``import kernels``."""
    outside = run(installed.python, "-c", "import kernels", cwd=tmp_path)
    assert "ModuleNotFoundError: No module named 'kernels'" in outside.stderr
    inside = run(installed.python, "-c", "import kernels", cwd=source)
    assert "ImportError" in inside.stderr
    assert "fastconv.kernels" in inside.stderr.splitlines()[-1]


@pytest.mark.parametrize("installed", ["editable"], indirect=True)
def test_imports_from_the_root(installed: Installed, source: Path) -> None:
    """There `fastconv` is found in the working directory, which holds no fastconv/kernels."""
    code = "import fastconv.kernels.cpu, fastconv.bench; print('found')"
    assert succeed(installed.python, "-c", code, cwd=source) == "found\n"
