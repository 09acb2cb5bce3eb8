"""Compiled kernels on disk: found again, shared by processes, and never a reason to fail."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numba.core import types
from numba.core.registry import cpu_target

from fastconv.contract import cache, private_files, sources
from fastconv.kernels.cpu.rulebook import stage
from fastconv.kernels.cpu.runtime import jit

PROGRAM = """
import sys
import numpy as np
import fastconv
from fastconv.kernels.cpu.runtime import jit

for dtype in sys.argv[1:]:
    x = (np.arange(2 * 3 * 9 * 21) % 7).reshape(2, 3, 9, 21).astype(dtype)
    weight = np.ones((4, 3, 1, 1), dtype)
    y = fastconv.conv2d(x, weight)
    assert np.array_equal(y, np.repeat(x.sum(1, keepdims=True), 4, 1)), dtype
print(jit.statistics.compiled, jit.statistics.loaded)
"""


def start(folder: Path | str, *dtypes: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *dtypes],
        env={
            **os.environ,
            "FASTCONV_CACHE_DIR": str(folder),
            "FASTCONV_KERNEL": "cpu.direct",  # the quickest to compile
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(child: subprocess.Popen[str]) -> tuple[int, int, str]:
    """Variants that the process compiled and loaded, and what it wrote to stderr."""
    try:
        out, errors = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 0, errors
    compiled, loaded = out.split()
    return int(compiled), int(loaded), errors


def result(child: subprocess.Popen[str]) -> tuple[int, int]:
    """Variants that the process compiled and loaded."""
    return told(child)[:2]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A cache with every variant that float32 needs, and their number."""
    folder = tmp_path_factory.mktemp("cache")
    compiled, loaded = result(start(folder, "float32"))
    assert compiled > 0 and loaded == 0
    return folder, compiled


def test_the_next_process_compiles_nothing(filled: tuple[Path, int]) -> None:
    folder, variants = filled
    kept = files(folder)
    assert len(kept) == variants
    assert result(start(folder, "float32")) == (0, variants)
    assert files(folder) == kept


def test_variants_compiled_apart_work_together(tmp_path: Path) -> None:
    """Each variant was the first of its process, which is where its symbols get their names."""
    kernel = {"FASTCONV_KERNEL": "cpu.im2col_gemm"}
    for dtype in ("float32", "float64"):
        result(start(tmp_path, dtype, **kernel))
    for order in (("float32", "float64"), ("float64", "float32")):
        compiled, loaded = result(start(tmp_path, *order, **kernel))
        assert compiled == 0 and loaded > 0


def test_processes_that_compile_at_once_keep_one_file_a_variant(tmp_path: Path) -> None:
    children = [start(tmp_path, "float32") for _ in range(2)]
    for child in children:
        compiled, loaded = result(child)
    assert len(files(tmp_path)) == compiled + loaded
    assert result(start(tmp_path, "float32")) == (0, compiled + loaded)


def test_a_damaged_file_is_compiled_again(filled: tuple[Path, int], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(filled[0], folder)
    folder.chmod(0o700)
    for number, path in enumerate(files(folder)):
        whole = path.read_bytes()
        path.write_bytes((b"", whole[: len(whole) // 2], os.urandom(len(whole)))[number % 3])
    assert result(start(folder, "float32")) == (filled[1], 0)
    assert result(start(folder, "float32")) == (0, filled[1])


def test_no_writable_folder_costs_time_and_one_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("")
    compiled, loaded, errors = told(start(blocked / "cache", "float32"))
    assert compiled > 0 and loaded == 0
    assert errors.count("compiles its kernels anew") == 1 and str(blocked) in errors
    assert files(tmp_path) == [blocked]


def test_switched_off_writes_nothing(tmp_path: Path) -> None:
    compiled, loaded = result(start(tmp_path, "float32", FASTCONV_CACHE="0"))
    assert compiled > 0 and loaded == 0
    assert files(tmp_path) == []


def copy_of(filled: tuple[Path, int], folder: Path) -> Path:
    """Return a copy of a filled cache that is this user's alone."""
    shutil.copytree(filled[0], folder)
    folder.chmod(0o700)
    return folder


def test_files_that_changed_places_are_compiled_again(
    filled: tuple[Path, int], tmp_path: Path
) -> None:
    folder = copy_of(filled, tmp_path / "cache")
    paths = files(folder)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    compiled, loaded, errors = told(start(folder, "float32"))
    assert (compiled, loaded) == (filled[1], 0)
    assert errors.count("another kernel's") == filled[1]
    assert result(start(folder, "float32")) == (0, filled[1])


def test_a_pipe_does_not_hold_the_call(filled: tuple[Path, int], tmp_path: Path) -> None:
    folder = copy_of(filled, tmp_path / "cache")
    first, *_ = files(folder)
    first.unlink()
    os.mkfifo(first)
    compiled, loaded, errors = told(start(folder, "float32"))
    assert (compiled, loaded) == (1, filled[1] - 1) and "not a regular file" in errors
    assert result(start(folder, "float32")) == (0, filled[1])


def test_what_others_may_have_written_is_not_run(filled: tuple[Path, int], tmp_path: Path) -> None:
    """Nothing of a folder, and of files those alone that others may write to."""
    folder = copy_of(filled, tmp_path / "cache")
    (inner,) = folder.iterdir()
    inner.chmod(0o777)
    compiled, loaded, errors = told(start(folder, "float32"))
    assert (compiled, loaded) == (filled[1], 0)
    assert errors.count("Warning") == 1 and f"chmod go-w {inner}" in errors
    inner.chmod(0o700)
    first, *_ = files(folder)
    first.chmod(0o666)
    assert result(start(folder, "float32")) == (1, filled[1] - 1)
    assert result(start(folder, "float32")) == (0, filled[1])
    moved = inner.rename(tmp_path / "moved")
    inner.symlink_to(moved)
    compiled, loaded, errors = told(start(folder, "float32"))
    assert (compiled, loaded) == (filled[1], 0) and "is a symbolic link" in errors


class Shelf:
    """One small variant in a cache of its own, compiled or loaded as often as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self) -> int:
        """Return what the variant makes of 20, as the first call of a process would."""

        def add(x: int) -> int:
            return x + 22

        signature = types.intp(types.intp)
        return int(jit.compile_function(add, signature, ("cache_test_add",))(20))

    @staticmethod
    def cache() -> jit.KernelCache:
        """Return the file's cache."""
        return jit.KernelCache(("cache_test_add",), __name__, "Shelf.result.<locals>.add")

    @property
    def path(self) -> Path:
        (path,) = self.folder.iterdir()
        return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    folder = tmp_path / "shelf"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(cache, "_place", cache.Place(folder))
    monkeypatch.setattr(jit, "statistics", jit.Statistics())
    made = Shelf(folder)
    assert made.result() == 42 and jit.statistics.kept == 1
    assert made.result() == 42 and jit.statistics.loaded == 1
    assert made.path.stat().st_mode & 0o777 == 0o600
    return made


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _grow(path: Path) -> None:
    os.truncate(path, 1 << 40)  # with a hole: it takes no room


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / "elsewhere"))


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (_shorten, "damaged"),
        (_grow, "more than"),
        (lambda path: path.chmod(0o620), "others may write"),
        (_link, "symbolic link"),
        (_dangle, "symbolic link"),
    ],
)
@pytest.mark.parametrize("action", ["always", "error"])
def test_a_file_that_is_of_no_use_is_replaced(
    shelf: Shelf, damage: Callable[[Path], Any], told: str, action: Any
) -> None:
    """Even where warnings are errors: the next call then compiles."""
    damage(shelf.path)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter(action)
        if action == "error":
            with pytest.raises(UserWarning, match=told):
                shelf.result()
        assert shelf.result() == 42
    assert len(heard) == (action == "always") and all(told in str(each.message) for each in heard)
    assert shelf.result() == 42
    assert (jit.statistics.compiled, jit.statistics.loaded) == (2, 2)


def test_a_folder_in_place_of_a_file_costs_time_only(shelf: Shelf) -> None:
    path = shelf.path
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="fastconv") as heard:
        assert shelf.result() == 42
    first, second = (str(each.message) for each in heard)
    assert "compiling cache_test_add again" in first and "could not keep" in second
    path.rmdir()
    assert shelf.result() == shelf.result() == 42


def test_a_folder_that_was_removed_meanwhile_costs_time_only(shelf: Shelf) -> None:
    shutil.rmtree(shelf.folder)
    with pytest.warns(UserWarning, match="could not keep cache_test_add"):
        assert shelf.result() == 42
    assert not shelf.folder.exists()


def test_a_sound_file_that_can_not_be_read_now_stays(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, most: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(private_files, "read", refuse)
        patch.setattr(private_files, "write", refuse)
        with pytest.warns(UserWarning, match="Permission denied"):
            assert shelf.result() == 42
    assert shelf.result() == 42
    assert (jit.statistics.compiled, jit.statistics.loaded) == (2, 2)


@pytest.mark.parametrize(
    "payload",
    [b"no pickle", pickle.dumps(42), pickle.dumps((1, 2, 3)), pickle.dumps((None,) * 9),
     pickle.dumps(("name", "object", b"no object file", ()) + (None,) * 5), b"(" * 10_000],
)  # fmt: skip
def test_a_sealed_file_that_is_no_kernel_is_compiled_again(shelf: Shelf, payload: bytes) -> None:
    seal = Shelf.cache()._seal(payload)
    shelf.path.write_bytes(seal + payload)
    shelf.path.chmod(0o600)
    with pytest.warns(UserWarning, match="cannot be loaded"):
        assert shelf.result() == 42
    assert shelf.result() == 42 and jit.statistics.loaded == 2


def test_a_variant_that_was_loaded_in_part_is_compiled_under_the_same_name(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild = jit.CompileResult._rebuild

    def fail_late(*args: Any) -> None:
        rebuild(*args)
        raise AttributeError("late")

    with monkeypatch.context() as patch:
        patch.setattr(jit.CompileResult, "_rebuild", fail_late)
        with pytest.warns(UserWarning, match="late"):
            assert shelf.result() == 42
    assert shelf.result() == 42


def test_another_user_s_files_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = shelf.path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(private_files.NotPrivate, match=f"belongs to user {owner}"):
        private_files.read(shelf.path, 1 << 20)
    with pytest.raises(private_files.NotPrivate, match=f"belongs to user {owner}"):
        private_files.make_folder(shelf.folder)


def test_numba_s_settings_and_the_cpu_decide_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Shelf.cache()._identity
    for name in jit._OPTIONS:
        with monkeypatch.context() as patch:
            patch.setattr(jit.config, name, "other")
            assert (
                jit.KernelCache(
                    ("cache_test_add",), __name__, "Shelf.result.<locals>.add"
                )._identity
                != usual
            ), name
    codegen = cpu_target.target_context.codegen()
    monkeypatch.setattr(codegen, "magic_tuple", lambda: ("other",), raising=False)
    assert Shelf.cache()._identity != usual


def test_the_folder_s_name_holds_what_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache.version_key.__wrapped__
    usual = key()
    assert key() == usual
    other = SimpleNamespace(cache_tag="cpython-399")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "implementation", other)
        assert key() != usual
    for name, value in (("byteorder", "middle"), ("maxsize", 2**31 - 1), ("abiflags", "t")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, value)
            assert key() != usual, name
    facts = cache._key_facts()
    assert {"numpy", "numba", "llvmlite"} <= set(facts)
    for name in facts:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_key_facts", lambda name=name: facts | {name: "other"})
            assert key() != usual, name


def test_one_key_names_one_function() -> None:
    def make(first: bool) -> Callable[[int], int]:
        def one(x: int) -> int:
            return x

        def other(x: int) -> int:
            return -x

        return one if first else other

    signature = types.intp(types.intp)
    made = jit.compile_callback(make(True), signature, ("cache_test_names",))
    assert jit.compile_callback(make(True), signature, ("cache_test_names",)) is made
    with pytest.raises(ValueError, match=r"cache_test_names.*one.*already, not .*other"):
        jit.compile_callback(make(False), signature, ("cache_test_names",))


@pytest.mark.parametrize("module", ["rulebook.tables", "sparse.gemm_schedule"])
def test_a_stage_is_kept_by_the_module_of_its_body(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies of two modules that have one name are never taken for each other."""
    kept: list[jit.KernelCache] = []

    def compile_kernel(task: Callable[..., None], *key: Any) -> Any:
        kept.append(jit.KernelCache(key, task.__module__, task.__qualname__))
        raise NotImplementedError

    def count(g: Any, task: int) -> None: ...

    count.__module__ = f"fastconv.kernels.cpu.{module}"
    monkeypatch.setattr(stage, "compile_kernel", compile_kernel)
    made = stage.IntegerStage(count, "rows")
    assert made.key == (f"{module.replace('.', '_')}_count",)
    with pytest.raises(NotImplementedError):
        made.run(1, rows=1)
    assert sources.identity(count.__module__).encode() in kept[0]._identity
