"""Where compiled kernels are kept on disk.

The folder is named after the versions of fastconv, Numba and llvmlite and a hash over all kernel
sources, so an upgrade or an edit never runs stale code (Numba itself only looks at the file of
the compiled function). A home that can not be written to falls back to a private folder below
the system's temporary one.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from . import kernels
from .config import config

__all__ = ["cache_dir", "clear", "root_dir", "source_key"]


@functools.cache
def source_key() -> str:
    """Return a hash over versions and every kernel source: the name of the cache folder."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(f"{package} {metadata.version(package)}\n".encode())
    for path in sorted(Path(kernels.__path__[0]).rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def root_dir() -> Path | None:
    """Return the folder that holds every version's cache, or None where there can be none."""
    if not config.cache:
        return None
    if config.cache_dir is not None:
        candidates = [Path(config.cache_dir).expanduser()]
    else:
        import platformdirs

        user = os.getuid() if hasattr(os, "getuid") else "user"
        candidates = [
            Path(platformdirs.user_cache_dir("fastconv", appauthor=False)),
            Path(tempfile.gettempdir()) / f"fastconv-{user}",
        ]
    return next((folder for folder in candidates if _usable(folder)), None)


def _usable(folder: Path) -> bool:
    """Whether `folder` can be written by this user and by nobody else (it holds code)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        status = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


@functools.cache
def cache_dir() -> Path | None:
    """Return this version's cache folder, made if need be; None when the cache is off."""
    root = root_dir()
    if root is None:
        return None
    folder = root / f"kernels-{source_key()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def clear() -> int:
    """Remove every version's compiled kernels.

    Returns
    -------
    int
        Number of files removed.
    """
    root = root_dir()
    if root is None:
        return 0
    removed = 0
    for folder in root.glob("kernels-*"):
        removed += sum(1 for entry in folder.iterdir() if entry.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    cache_dir.cache_clear()
    return removed
