"""The folder of compiled kernels: which one is taken, what is said of it, what clearing removes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastconv import cli, tuning
from fastconv.contract import cache
from fastconv.contract.settings import config
from fastconv.information import cache_facts

pytestmark = pytest.mark.program


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A root that the environment names, in a process that has not asked for it yet."""
    folder = tmp_path / "root"
    monkeypatch.setattr(cache, "_place", None)
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", str(folder))
    return folder


def inner(root: Path) -> Path:
    return root / f"kernels-{cache.version_key()}"


def heard() -> list[str]:
    """Ask for the folder twice and return the warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        cache.cache_dir()
        cache.cache_dir()
    return [str(each.message) for each in found]


def _open_to_all(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o777)


def _open_to_the_group(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o775)


def _file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("")


def _link(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    target = path.parent.parent / "target"
    target.mkdir(mode=0o700)
    path.symlink_to(target)


def _dangle(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(path.parent / "nowhere")


PLANTS = {
    _open_to_all: "others may write to {} (mode 777; mend with `chmod go-w {}`)",
    _open_to_the_group: "others may write to {} (mode 775; mend with `chmod go-w {}`)",
    _file: "{} is not a folder",
    _link: "{} is a symbolic link",
    _dangle: "{} is a symbolic link",
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("which", ["root", "folder"])
def test_a_folder_that_may_not_hold_code_is_not_used(
    root: Path, plant: Callable[[Path], None], which: str
) -> None:
    path = root if which == "root" else inner(root)
    plant(path)
    if which == "folder":
        root.chmod(0o700)
    elif plant in (_link, _dangle):  # what a user named leads where it leads
        path.rename(path.parent / "named")
        assert heard() == []
        return
    (message,) = heard()
    assert PLANTS[plant].format(path, path) in message  # type: ignore[index]
    assert "each process compiles its kernels anew" in message and "FASTCONV_CACHE_DIR" in message
    assert cache.cache_dir() is None
    assert cache.clear() == []


@pytest.mark.parametrize("which", ["root", "folder"])
def test_another_user_s_folder_is_not_used(
    root: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = inner(root)
    folder.mkdir(parents=True)
    status, me = Path.lstat, os.geteuid()

    class Foreign:
        st_mode, st_uid = folder.stat().st_mode & ~0o022, me + 1

    theirs = root if which == "root" else folder
    root.chmod(0o700)
    folder.chmod(0o700)
    monkeypatch.setattr(Path, "lstat", lambda path: Foreign if path == theirs else status(path))
    (message,) = heard()
    assert f"{theirs} belongs to user {me + 1}, not to user {me}" in message
    assert cache.cache_dir() is None


def test_a_disk_that_can_not_be_written_to_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> int:
        raise OSError(30, "Read-only file system", str(path))

    root.mkdir(mode=0o700)
    monkeypatch.setattr(os, "open", refuse)
    (message,) = heard()
    assert "Read-only file system" in message and "compiles its kernels anew" in message


def test_a_warning_that_is_an_error_is_raised_once(root: Path) -> None:
    _open_to_all(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="chmod go-w"):
            cache.cache_dir()
        assert cache.cache_dir() is None


def test_a_private_folder_is_made_and_nothing_said(root: Path) -> None:
    assert heard() == [] and cache.cache_dir() == inner(root)
    assert [path.stat().st_mode & 0o777 for path in (root, inner(root))] == [0o700, 0o700]
    assert not list(inner(root).iterdir())


def test_an_unsafe_home_falls_back_and_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be written to falls back in silence: a container often has none."""
    monkeypatch.setattr(config, "cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _open_to_all(tmp_path / "home" / "fastconv")
    (message,) = heard()
    fallback = inner(tmp_path / f"fastconv-{os.geteuid()}")
    assert f"kernels are kept in {fallback}: others may write" in message
    assert cache.cache_dir() == fallback
    (tmp_path / "home" / "fastconv").rmdir()
    (tmp_path / "home").rmdir()
    (tmp_path / "home").write_text("")
    monkeypatch.setattr(cache, "_place", None)
    monkeypatch.setattr(cache, "_warned", False)
    assert heard() == [] and cache.cache_dir() == fallback


NO_HOME = """
import pwd, sys, tempfile

def gone(user):
    raise KeyError(user)

pwd.getpwuid = gone
if sys.argv[1:] == ["no temporary folder"]:
    def gettempdir():
        raise FileNotFoundError("no usable temporary directory")
    tempfile.gettempdir = gettempdir
import numpy as np
import fastconv
from fastconv.contract import cache

assert fastconv.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 1, 1))).sum() == 16
print(cache.cache_dir())
"""

HOMES: list[dict[str, str]] = [
    {},
    {"HOME": ""},
    {"HOME": "home"},
    {"HOME": "/nonexistent/home"},
    {"XDG_CACHE_HOME": ""},
    {"XDG_CACHE_HOME": "relative"},
    {"FASTCONV_CACHE_DIR": "  "},
]


def without_home(folder: Path, *words: str, **settings: str) -> tuple[str, str]:
    """Return what a process prints that has no passwd entry, and what it writes to stderr."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOME", "XDG_CACHE_HOME", "FASTCONV_CACHE_DIR", "TEMP", "TMP")
    }
    child = subprocess.run(
        [sys.executable, "-c", NO_HOME, *words],
        env=kept | {"TMPDIR": str(folder), "FASTCONV_CACHE": "1"} | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip(), child.stderr


def test_without_a_home_kernels_lie_below_the_temporary_folder(tmp_path: Path) -> None:
    """All one after the other, since the first one compiles what the others find."""
    expected = inner(tmp_path / f"fastconv-{os.geteuid()}")
    for settings in HOMES:
        printed, errors = without_home(tmp_path, **settings)
        assert (printed, errors) == (str(expected), ""), settings
        assert [path.name for path in tmp_path.iterdir()] == [expected.parent.name], settings
    assert not Path("/nonexistent").exists()


def test_without_any_folder_a_call_works_and_warns_once(tmp_path: Path) -> None:
    printed, errors = without_home(tmp_path, "no temporary folder")
    assert printed == "None" and errors.count("Warning") == 1
    assert "no usable temporary directory" in errors and not list(tmp_path.iterdir())


def test_python_s_last_resort_for_temporary_files_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="temporary"):
        cache._temporary_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert cache._temporary_folder().parent == tmp_path


def test_clearing_removes_what_fastconv_wrote_and_nothing_else(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, number = f"pool_run-{'ab' * 12}", "0123456789abcdef"
    ours = [f"{kernel}.bin", f"{kernel}.{'cd' * 16}.tmp", "tuned-01234567.json"]
    mine = ["kernels-backup/" + ours[0], f"kernels-{number}0/{ours[0]}", "kernels/x.bin", "x.json"]
    mixed = [f"kernels-{number}/notes.bin", f"kernels-{number}/deep/{ours[0]}"]
    for name in (*mine, *mixed, *(f"kernels-{number}/{name}" for name in ours)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    away = tmp_path / "away"
    away.mkdir()
    (away / ours[0]).write_text("")
    (root / f"kernels-{number[::-1]}").symlink_to(away)
    (root / f"kernels-{number}" / f"strip-{'ef' * 12}.bin").symlink_to(away / ours[0])
    root.chmod(0o700)
    (cache.cache_dir() / ours[0]).write_text("")  # type: ignore[operator]
    monkeypatch.setattr(tuning, "_memory", tuning.Memory(None))
    assert cli.main(["cache", "--clear"]) == 0
    printed = capsys.readouterr().out
    assert f"removed 1 files from {inner(root)}\n" in printed
    assert f"removed 3 files from {root}/kernels-{number}; what fastconv did not write" in printed
    for name in (*mine, *mixed):
        assert (root / name).exists(), name
    assert (away / ours[0]).exists() and (root / f"kernels-{number}").is_dir()
    assert not [path for path in (root / f"kernels-{number}").iterdir() if path.name in ours]
    assert not list(inner(root).iterdir())


def test_what_is_no_file_is_not_counted(root: Path) -> None:
    place = cache.place()
    (inner(root) / "gone").symlink_to("nowhere")
    (inner(root) / "folder").mkdir()
    assert cache_facts(place)["entries"] == "0"
