"""Where compiled kernels are kept on disk.

The folder is named after a hash over the versions of what decides their code beside their sources,
which are in each file's own name (see `fastconv.contract.sources`): an upgrade or an edit never
runs stale code. A home that cannot be written to falls back to a private folder below the system's
temporary one. Where a folder cannot be used since others may have written code into it, or where
there is none at all, a warning says so once: without a cache every process compiles for seconds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .private_files import NotPrivate, make_folder
from .settings import config

__all__ = ["Cleared", "Place", "cache_dir", "clear", "place", "version_key"]

_REMEDY = "set FASTCONV_CACHE_DIR to a folder of yours, or FASTCONV_CACHE=0 to do without"

_TEMPORARY = {"/tmp", "/var/tmp", "/usr/tmp"}

_FOLDER = re.compile(r"kernels-[0-9a-f]{16}")
#: What fastconv writes there: compiled variants, tuned choices, measured machines, and any of them
#: half written.
_FILE = re.compile(
    r"([\w.]+-[0-9a-f]{24}|(tuned|machine)-[0-9a-f]{8})\.([0-9a-f]{32}\.tmp|bin|json)|[0-9a-f]{32}\.tmp"
)


class Place(NamedTuple):
    """Where kernels are kept.

    Parameters
    ----------
    folder : Path or None
        This version's folder; None where nothing is kept.
    doubts : tuple of str
        Why folders that come before it are not used.
    warning : str or None
        What the user should hear of that.
    """

    folder: Path | None
    doubts: tuple[str, ...] = ()
    warning: str | None = None


class Cleared(NamedTuple):
    """What `clear` did with one folder: files removed, and whether others are left in it."""

    folder: Path
    files: int
    left: bool


def _key_facts() -> dict[str, object]:
    """Return what decides compiled code beside sources and the instruction set.

    Machine code reads the fields of Python's and NumPy's objects at offsets that are compiled in.
    """
    return {
        **{
            name: importlib.import_module(name).__version__
            for name in ("numba", "llvmlite", "numpy")
        },
        "python": (sys.implementation.cache_tag, getattr(sys, "abiflags", "")),
        "objects": (object.__basicsize__, tuple.__basicsize__, sys.maxsize, sys.byteorder),
        "machine": platform.machine(),
    }


@functools.cache
def version_key() -> str:
    """Return a hash over versions: the name of the cache folder."""
    return hashlib.sha256(repr(_key_facts()).encode()).hexdigest()[:16]


def _users_folder() -> Path:
    """Return the user's cache folder; a home that is not there is not made."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("fastconv", appauthor=False))
    if not folder.is_absolute():
        raise FileNotFoundError(f"no home folder is known, and {folder} is not an absolute path")
    home = Path(os.path.expanduser("~"))
    if folder.is_relative_to(home) and not home.is_dir():
        raise FileNotFoundError(f"there is no home folder {home}")
    return folder.resolve()


def _temporary_folder() -> Path:
    """Return this user's folder below the one that all users write to."""
    folder = tempfile.gettempdir()
    named = {os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")}
    if folder not in named | _TEMPORARY and folder == os.getcwd():  # Python's last resort
        raise FileNotFoundError("no folder for temporary files can be written to")
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return Path(folder) / f"fastconv-{user}"


def _roots() -> list[Callable[[], Path]]:
    """Return the folders to try, in order. Links are followed in what the user has named only."""
    named = config.cache_dir
    if named is not None:
        return [lambda: Path(named).expanduser().resolve()]
    return [_users_folder, _temporary_folder]


def _find() -> Place:
    """Make the folder, in the first root that may hold code."""
    if not config.cache:
        return Place(None)
    doubts, unsafe = [], False
    for root in _roots():
        try:
            folder = root() / f"kernels-{version_key()}"
            make_folder(folder.parent)
            make_folder(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home is known
            doubts.append(str(error))
            unsafe = unsafe or isinstance(error, NotPrivate)
            continue
        told = f"kernels are kept in {folder}: {'; '.join(doubts)}" if unsafe else None
        return Place(folder, tuple(doubts), told)
    reasons = "; ".join(doubts)
    return Place(
        None, tuple(doubts), f"each process compiles its kernels anew: {reasons}; {_REMEDY}"
    )


_place: Place | None = None
_warned = False


def place(warn: bool = True) -> Place:
    """Return where kernels are kept; folders are looked at, and made, when this is first asked.

    Parameters
    ----------
    warn : bool
        Whether to warn, once a process, of what the user should hear; False where the caller tells.
    """
    global _place, _warned
    if _place is None:
        _place = _find()
    if _place.warning is not None and not _warned:
        _warned = True  # before the warning, which may be an error
        if warn:
            warnings.warn(f"fastconv: {_place.warning}", stacklevel=2)
    return _place


def cache_dir() -> Path | None:
    """Return this version's cache folder, made if need be; None when the cache is off."""
    return place().folder


def clear() -> list[Cleared]:
    """Remove every version's compiled kernels and tuned choices, and nothing else.

    Returns
    -------
    list of Cleared
        One entry for each folder that held anything.
    """
    global _place
    current = place(warn=False).folder
    if current is None:
        return []
    _place = None
    with os.scandir(current.parent) as entries:
        folders = [
            Path(entry.path)
            for entry in entries
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    cleared = [_clear(folder) for folder in sorted(folders)]
    return [folder for folder in cleared if folder.files or folder.left]


def _clear(folder: Path) -> Cleared:
    """Remove fastconv's files in a folder, and the folder if it is empty then."""
    removed = 0
    with os.scandir(folder) as entries:
        files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    for path in map(Path, files):
        if _FILE.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
    try:
        folder.rmdir()
    except OSError:
        return Cleared(folder, removed, left=True)
    return Cleared(folder, removed, left=False)
