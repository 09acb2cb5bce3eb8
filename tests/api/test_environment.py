"""Environment variables: what each value means, and how many threads a process gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv
from fastconv.contract import processors, settings
from fastconv.contract.errors import FastconvError

pytestmark = pytest.mark.program


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*settings.VARIABLES, *processors._VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", ["", "  ", "\t"])
def test_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    usual = settings._read_environment()
    for name in (*settings.VARIABLES, *processors._VARIABLES):
        monkeypatch.setenv(name, value)
    assert settings._read_environment() == usual
    assert usual.cache_dir is usual.kernel is None and usual.cache and usual.precision == "fast"


def test_values_are_read_without_their_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "FASTCONV_CACHE_DIR": " /some where ",
        "FASTCONV_CACHE": " 0",
        "FASTCONV_NUM_THREADS": "2 ",
        "FASTCONV_KERNEL": " cpu.direct ",
        "FASTCONV_PRECISION": "exact ",
        "FASTCONV_TUNE": "1 ",
        "FASTCONV_LOG": " 1",
        "FASTCONV_POISON_WORKSPACE": "1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    expected = settings.Config("/some where", False, 2, "cpu.direct", "exact", True, True, True)
    assert settings._read_environment() == expected
    assert set(given) == set(settings.VARIABLES)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *(("FASTCONV_NUM_THREADS", value, "a whole number of at least 1")
          for value in ("0", "00", "-1", "1.5", "many", "\u0661", "\u00b2", "1_0", "+2", "0x2")),
        *((f"FASTCONV_{name}", value, "0 or 1")
          for name in ("CACHE", "TUNE", "LOG", "POISON_WORKSPACE")
          for value in ("2", "yes", "\u0661")),
        ("FASTCONV_PRECISION", "Fast", "fast or exact"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, wanted: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(FastconvError) as error:
        settings._read_environment()
    assert str(error.value) == f"{name}: got {value!r}, want {wanted}"


@pytest.mark.parametrize("value", ["257", "1000000000", "9" * 5000])
def test_a_large_number_of_threads_counts_as_the_most(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FASTCONV_NUM_THREADS", value)
    assert settings._read_environment().num_threads == processors.MOST_THREADS
    monkeypatch.setattr(settings.config, "num_threads", 1)
    fastconv.set_num_threads(int(value[:4000]))
    assert fastconv.get_num_threads() == processors.MOST_THREADS


def test_a_job_has_no_more_workers_than_the_pool_has_words_for() -> None:
    from fastconv.kernels.cpu.runtime import pool

    assert pool.make_job(0, 0, 10**6, 10**6)[3] == processors.MOST_THREADS


@pytest.mark.parametrize(
    ("numba", "openmp", "expected"),
    [
        (None, None, 64),
        ("1", None, 1),
        (None, "1", 1),
        ("8", "3", 3),
        ("3", "8", 3),
        (None, "4,2", 4),
        (None, " 4 , 2 ", 4),
        ("500", "9" * 5000, 64),
        ("0", "-1", 64),
        ("many", ",2", 64),
    ],
)
def test_the_smallest_of_what_others_ask_for(
    monkeypatch: pytest.MonkeyPatch, numba: str | None, openmp: str | None, expected: int
) -> None:
    monkeypatch.setattr(processors, "_processors", lambda: 64)
    monkeypatch.setattr(processors, "quota", lambda root: None)
    for name, value in zip(processors._VARIABLES, (numba, openmp), strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert settings._read_environment().num_threads == expected
    monkeypatch.setattr(processors, "quota", lambda root: 2)
    assert settings._read_environment().num_threads == min(expected, 2)
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "7")
    assert settings._read_environment().num_threads == 7


def test_python_s_own_count_is_taken_where_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert processors._processors() == 3
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert processors._processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors._processors() == 1


V1, V2 = "4:cpu,cpuacct:{}\n3:cpuset:/x\n", "0::{}\n"
GROUPS: dict[str, tuple[dict[str, str], int | None]] = {
    "nothing": ({}, None),
    "no limit": ({"proc/self/cgroup": V2.format("/a"), "sys/fs/cgroup/a/cpu.max": "max 100000\n"},
                 None),
    "a container's own root": (
        {"proc/self/cgroup": V2.format("/"), "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "half a processor": (
        {"proc/self/cgroup": V2.format("/"), "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "rounded up": (
        {"proc/self/cgroup": V2.format("/"), "sys/fs/cgroup/cpu.max": "210000 100000\n"}, 3),
    "the smallest on the way": (
        {"proc/self/cgroup": V2.format("/a/b/c"), "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
         "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
         "sys/fs/cgroup/a/b/c/cpu.max": "400000 100000\n"}, 3),
    "the host's path in a container": (
        {"proc/self/cgroup": V2.format("/docker/0123"), "sys/fs/cgroup/cpu.max": "100000 50000\n"},
        2),
    "another group's limit": (
        {"proc/self/cgroup": V2.format("/a"), "sys/fs/cgroup/b/cpu.max": "100000 100000\n"}, None),
    "outside of the namespace": (
        {"proc/self/cgroup": V2.format("/../b"), "sys/fs/cgroup/b/cpu.max": "100000 100000\n",
         "sys/fs/b/cpu.max": "100000 100000\n"}, None),
    "a path with a colon": (
        {"proc/self/cgroup": V2.format("/a:b"), "sys/fs/cgroup/a:b/cpu.max": "1 1\n"}, 1),
    "beside version 1": (
        {"proc/self/cgroup": V2.format("/a"), "sys/fs/cgroup/unified/a/cpu.max": "5 1\n"}, 5),
    "version 1": (
        {"proc/self/cgroup": V1.format("/a"),
         "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
         "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 2),
    "version 1 in a container": (
        {"proc/self/cgroup": V1.format("/docker/0123"),
         "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
         "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
    "version 1, no limit": (
        {"proc/self/cgroup": V1.format("/"), "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
         "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    "nonsense": (
        {"proc/self/cgroup": "\xff:::\n0\n" + V2.format("/a"), "sys/fs/cgroup/cpu.max": "soon\n",
         "sys/fs/cgroup/a/cpu.max": "1 0\n"}, None),
    "one word": (
        {"proc/self/cgroup": V2.format("/"), "sys/fs/cgroup/cpu.max": "200000\n"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_of_control_groups(tmp_path: Path, name: str) -> None:
    tree, expected = GROUPS[name]
    for path, content in tree.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content.encode("latin-1"))
    assert processors.quota(tmp_path) == expected


def test_a_worker_of_a_batch_system_gets_its_share() -> None:
    program = "import fastconv; print(fastconv.get_num_threads())"
    for name in processors._VARIABLES:
        child = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, name: "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert child.stdout.strip() == "1", name
