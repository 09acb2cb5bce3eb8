"""Which machine's figures costs are made from: measured, shipped, or nearest."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.cli import main
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem_line import parse_line
from fastconv.contract.settings import config
from fastconv.contract.spec import DeviceInfo
from fastconv.kernels.cpu.calibration import measure as calibration
from fastconv.kernels.cpu.machine import in_force, measured, scaling, seconds
from fastconv.kernels.cpu.machine.fields import Fields
from fastconv.kernels.cpu.machine.figures import Figures, better
from fastconv.kernels.cpu.machine.shipped import SHIPPED, ZEN4_FIGURES, nearest
from fastconv.kernels.cpu.machine.zen4 import ZEN4


def machine(model: str, isa: str = "avx512") -> DeviceInfo:
    width = {"avx512": 64, "avx2": 32, "sse2": 16, "neon": 16}[isa]
    return replace(ZEN4.device, model=model, isa=isa, vector_bytes=width)


@pytest.mark.parametrize(
    ("model", "isa", "name", "is_it"),
    [
        ("AuthenticAMD 25.17.1", "avx512", "Zen 4", True),
        ("AuthenticAMD 25.17.1", "avx2", "Zen 4", True),
        ("AuthenticAMD 25.1.1", "avx2", "Zen 3", True),
        ("AuthenticAMD 25.33.2", "avx2", "Zen 3", True),
        ("AuthenticAMD 23.49.0", "avx2", "Zen 3", False),  # Zen 2
        ("AuthenticAMD 26.2.1", "avx512", "Zen 5", True),
        ("AuthenticAMD 26.36.0", "avx512", "Zen 5", False),  # datapaths half as wide
        ("AuthenticAMD 27.1.0", "avx512", "Zen 5", False),
        ("GenuineIntel 6.63.2", "avx2", "Haswell", True),
        ("GenuineIntel 6.151.2", "avx2", "Haswell", False),
        ("GenuineIntel 6.85.7", "avx512", "Skylake-X", True),
        ("GenuineIntel 6.106.6", "avx512", "Ice Lake", True),
        ("GenuineIntel 6.167.1", "avx512", "Ice Lake", False),
        ("GenuineIntel 6.143.8", "avx512", "Sapphire Rapids", True),
        ("GenuineIntel 6.173.1", "avx512", "Sapphire Rapids", False),
        ("arm", "neon", "Apple M", True),
        ("0x61 0x23.0x1.0x1", "neon", "Apple M", True),
        ("0x41 0xd0c.0x3.0x1", "neon", "Neoverse N1", True),
        ("0x41 0xd40.0x1.0x1", "neon", "Neoverse V1", True),
        ("0x48 0xd01.0x1.0x0", "neon", "Neoverse N1", False),
        ("x86_64", "sse2", "Zen 4", False),
    ],
)
def test_nearest(model: str, isa: str, name: str, is_it: bool) -> None:
    made, found = nearest(machine(model, isa))
    assert (made.name, found) == (name, is_it)
    source = seconds.profile_source(machine(model, isa))
    assert source.startswith(f"shipped for {name}")
    assert ("calibrate" in source) is not is_it


def test_patterns_leave_no_machine_to_two() -> None:
    """A model is of one machine; nothing but its own pattern says that it is it."""
    models = ["AuthenticAMD 25.17.1", "AuthenticAMD 25.1.1", "AuthenticAMD 26.2.1",
              "GenuineIntel 6.63.2", "GenuineIntel 6.85.7", "GenuineIntel 6.106.6",
              "GenuineIntel 6.143.8", "arm", "0x41 0xd40.0x1.0x1",
              "0x41 0xd0c.0x3.0x1"]  # fmt: skip
    matches = [[bool(re.match(made.models, model)) for made in SHIPPED] for model in models]
    assert matches == [[i == j for j in range(len(SHIPPED))] for i in range(len(models))]


def leaves(part: Any, *path: str) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, value in vars(part).items():
        below = leaves(value, *path, name) if isinstance(value, Fields) else {(*path, name): value}
        found.update(below)
    return found


@pytest.mark.parametrize("width", ZEN4_FIGURES)
def test_a_machine_scaled_by_its_own_figures_is_itself(width: int) -> None:
    figures = ZEN4_FIGURES[width]
    again = leaves(scaling.scale(ZEN4, figures, figures))
    core = {name for name, figure in scaling.FOLLOWS[type(ZEN4.core)].items() if "=" in figure}
    for path, value in leaves(ZEN4).items():
        if path[0] == "core" and path[1] in core and width != 64:
            assert again[path] == getattr(figures, path[1])
        else:
            assert again[path] == value, path


def test_every_field_that_follows_a_figure_is_one_and_moves_with_it() -> None:
    figures = ZEN4_FIGURES[64]
    known = {type(part): part for part in (ZEN4, *vars(ZEN4).values()) if isinstance(part, Fields)}
    for kind, follows in scaling.FOLLOWS.items():
        assert set(follows) <= set(vars(known[kind])), kind
        for name, figure in follows.items():
            what = figure.lstrip("=-")
            doubled = Figures(**{**vars(figures), what: 2 * getattr(figures, what)})
            made = scaling._scaled(known[kind], figures, doubled)
            expected = getattr(known[kind], name) * (0.5 if figure.startswith("-") else 2)
            assert getattr(made, name) == pytest.approx(expected), (kind, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for kernels in which figures may be kept, and are looked for."""
    monkeypatch.setattr(measured, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(in_force, "read", measured.read)
    return tmp_path


def varied(factor: float) -> Figures:
    figures = ZEN4_FIGURES[64]
    return Figures(**{**vars(figures), "clock": factor * figures.clock})


def test_what_was_measured_is_in_force_in_the_next_process(folder: Path) -> None:
    device = ZEN4.device
    _, path = measured.keep(device, varied(2.0))
    assert path is not None and path.parent == folder
    assert path.stat().st_mode & 0o077 == 0
    assert seconds.profile(device).core.peak == 2 * ZEN4.core.peak
    assert seconds.profile_source(device) == "measured on this machine"
    problem = parse_line("ic64ih56oc64kh3ph1")[0]
    other = replace(device, l2=device.l2 // 2)
    assert seconds.profile_source(other).startswith("shipped"), "of another machine"
    (spec,) = (spec for spec in dispatch.kernels() if spec.name == "cpu.winograd_f4")
    assert spec.cost(problem, device) < spec.cost(problem, replace(device, l2=2**20 + 1))


def test_figures_of_the_nearest_number_of_threads_count(folder: Path) -> None:
    for threads, factor in ((1, 1.0), (8, 3.0)):
        measured.keep(replace(ZEN4.device, threads=threads), varied(factor))
    for threads, factor in ((1, 1.0), (2, 1.0), (7, 3.0), (64, 3.0)):
        found = measured.read(replace(ZEN4.device, threads=threads))
        assert found is not None and found.clock == factor * ZEN4_FIGURES[64].clock


def test_a_busy_moment_spoils_no_figure(folder: Path) -> None:
    """Of each figure the best is kept: the highest rate, the lowest time."""
    quiet = ZEN4_FIGURES[64]
    busy = Figures(**{**vars(quiet), "memory_all": quiet.memory_all / 2, "latency": 9.0})
    for first, second in ((quiet, busy), (busy, quiet)):
        measured.keep(ZEN4.device, first)
        kept, path = measured.keep(ZEN4.device, second)
        found = measured.read(ZEN4.device)
        assert found is not None and vars(kept) == vars(found) == vars(quiet)
        assert path is not None
        path.unlink()


@pytest.mark.parametrize("figure", vars(ZEN4_FIGURES[64]))
def test_a_clock_that_was_measured_too_low_makes_nothing_else_look_better(figure: str) -> None:
    """What is told in cycles is a quotient with it."""
    right = ZEN4_FIGURES[64]
    by_cycle = ("multiply_adds", "loads", "stores", "far_loads", "l2", "l3")
    changes = {"clock": right.clock / 8, **{name: 8 * getattr(right, name) for name in by_cycle}}
    for name in ("latency", "gather", "transposition"):
        changes[name] = getattr(right, name) / 8
    low = Figures(**{**vars(right), **changes})
    for first, second in ((right, low), (low, right)):
        kept = better(first, second)
        assert getattr(kept, figure) == pytest.approx(getattr(right, figure), rel=1e-12)
    assert vars(better(low, low)) == vars(low)


#: What is right of one number of threads.
RECORD = json.dumps(vars(ZEN4_FIGURES[64])).encode()


@pytest.mark.parametrize("content", [
    b"", b"[]", b"{", b'{"2": {}}', b'{"two": {}}', b'{"2": {"clock": 1}}', b"\xff",
    b'{"2": null}', b"null", b"3", b'{"2": [1]}',
    *(b'{"%s": %s}' % (key, RECORD) for key in (b"0", b"-5", b"1.5", b"two")),
    b'{"2": %s}' % RECORD.replace(b"{", b'{"self": 1, '),
])  # fmt: skip
def test_a_damaged_file_is_a_warning_and_is_measured_again(folder: Path, content: bytes) -> None:
    _, path = measured.keep(ZEN4.device, varied(1.0))
    assert path is not None
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="figures are lost") as told:
        assert measured.read(ZEN4.device) is None
    (warning,) = told
    text = str(warning.message)
    assert text.count(str(path)) == 1 and "calibrate" in text and "object" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured.read(ZEN4.device) is None, "it was told"
        assert measured.keep(ZEN4.device, varied(2.0))[1] == path
        assert measured.read(ZEN4.device) is not None


@pytest.mark.parametrize("what", ["open to others", "a folder", "a link"])
def test_a_file_that_is_not_the_users_own_is_named_once(folder: Path, what: str) -> None:
    _, path = measured.keep(ZEN4.device, varied(1.0))
    assert path is not None
    if what == "open to others":
        path.chmod(0o666)
    else:
        path.rename(folder / "other")
        path.mkdir() if what == "a folder" else path.symlink_to(folder / "other")
    with pytest.warns(UserWarning, match="figures are lost") as told:
        assert measured.read(ZEN4.device) is None
    text = str(told[0].message)
    # What mends a file that others may write to names it again.
    assert text.count(str(path)) == (2 if what == "open to others" else 1)


def test_a_warning_that_is_an_error_ends_one_call_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = cpu_info()
    _, path = measured.keep(device, ZEN4_FIGURES[device.vector_bytes])
    assert path is not None
    path.write_text("damaged")
    monkeypatch.setattr(dispatch, "_chosen", {})
    x, w = np.ones((1, 2, 9, 9), np.float32), np.ones((2, 2, 3, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="figures are lost"):
            fastconv.conv2d(x, w)
        for threads in (1, 2, 3):
            monkeypatch.setattr(config, "num_threads", threads)
            assert fastconv.conv2d(x, w)[0, 0, 0, 0] == 18


@pytest.mark.parametrize("value", ["0", "-1", "NaN", "Infinity", "1e999", "5e-324", '"fast"'])
def test_a_figure_that_can_not_be_is_not_believed(folder: Path, value: str) -> None:
    _, path = measured.keep(ZEN4.device, varied(1.0))
    assert path is not None
    text = path.read_text()
    path.write_text(text.replace(f'"clock": {ZEN4_FIGURES[64].clock}', f'"clock": {value}'))
    assert path.read_text() != text
    with pytest.warns(UserWarning, match="figures are lost"):
        assert measured.read(ZEN4.device) is None


def test_a_folder_that_can_not_be_written_to_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "cache_dir", lambda: folder / "missing")
    with pytest.warns(UserWarning, match="could not keep the machine's figures"):
        assert measured.keep(ZEN4.device, varied(1.0))[1] is None


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "cache_dir", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured.keep(ZEN4.device, varied(1.0))[1] is None
        assert measured.read(ZEN4.device) is None


def test_the_command_keeps_what_it_measures_and_explain_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "_MEMORY", 1 << 20)
    monkeypatch.setattr(calibration, "_RUNS", 1)
    assert "costs shipped for" in str(fastconv.explain("ic64ih56oc64kh3ph1"))
    assert main(["calibrate"]) == 0
    shown = capsys.readouterr().out
    found = measured.read(cpu_info())
    assert found is not None and f"{found.clock / 1e9:.2f} GHz" in shown
    assert str(next(folder.iterdir())) in shown
    monkeypatch.setattr(seconds, "_found", {})  # as in the next process
    told = fastconv.explain("ic64ih56oc64kh3ph1")
    assert told.costs == "measured on this machine"
    assert "costs measured on this machine" in str(told)
