"""Folders and files that only this user can have changed: what lies in them is run as code.

A folder is looked at once, before its first use. A file is looked at through the descriptor that it
is then read from: whoever could exchange a folder above it can put another user's file there, or a
link, and both are refused. Access control lists are not looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from pathlib import Path

__all__ = ["NotPrivate", "damage", "make_folder", "read", "why_not", "write"]

# Where links are not followed; a pipe that nobody writes to opens at once instead of waiting. What
# a system does not know is 0.
_READ = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))


class NotPrivate(OSError):
    """Something that another user may have written, or that is no folder or file at all."""


def why_not(path: Path, status: os.stat_result, folder: bool) -> str | None:
    """Return why a folder or file may not hold code, None where it may.

    Parameters
    ----------
    path : Path
        Its name, for the sentence.
    status : os.stat_result
        What it is; of the link, where it is one.
    folder : bool
        Whether it should be a folder, or else a file.
    """
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return f"{path} is a symbolic link"
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(mode):
        return f"{path} is not a {'folder' if folder else 'regular file'}"
    if not hasattr(os, "geteuid"):  # Windows: a profile's folders are private by inheritance
        return None
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        mend = f"chmod go-w {shlex.quote(str(path))}"
        return f"others may write to {path} (mode {stat.S_IMODE(mode):o}; mend with `{mend}`)"
    return None


def make_folder(path: Path) -> None:
    """Make a private folder, with those above it, where there is none.

    Raises
    ------
    NotPrivate
        Where something of that name is there that others may have changed.
    OSError
        Where it cannot be made or written to.
    """
    with contextlib.suppress(FileExistsError):  # a file, or a link that leads nowhere
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := why_not(path, path.lstat(), folder=True):
        raise NotPrivate(reason)
    trial = path / f"{os.urandom(16).hex()}.tmp"
    os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    trial.unlink()


def _open_to_read(name: str, flags: int) -> int:
    try:
        return os.open(name, flags | _READ)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPrivate(f"{name} is a symbolic link") from None
        raise


def read(path: Path, most: int) -> bytes:
    """Return a private file's content.

    Parameters
    ----------
    path : Path
        The file.
    most : int
        Bytes that it may have.

    Raises
    ------
    NotPrivate
        Where others may have changed it, or it is larger.
    OSError
        Where it cannot be read.
    """
    with open(path, "rb", buffering=0, opener=_open_to_read) as file:
        status = os.fstat(file.fileno())
        if reason := why_not(path, status, folder=False):
            raise NotPrivate(reason)
        if status.st_size > most:
            raise NotPrivate(f"{path} has {status.st_size} bytes, more than {most}")
        return file.read()


def damage(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that could not be read, for a sentence; it is named once.

    Examples
    --------
    >>> damage(Path("tuned.json"), ValueError("it is empty"))
    'tuned.json: it is empty'
    """
    told = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        told = error.strerror
    return (told if str(path) in told else f"{path}: {told}")[:500]


def write(path: Path, content: bytes) -> None:
    """Write a private file as a whole: another process finds the old one or the new one.

    Raises
    ------
    OSError
        Where it cannot be written; nothing is left then.
    """
    temporary = path.with_suffix(f".{os.urandom(16).hex()}.tmp")
    try:
        with open(
            temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode=0o600)
        ) as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:  # an interrupt too
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
