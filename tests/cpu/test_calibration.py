"""Loops that measure the machine: each does its one thing, as often as it says, and no more."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastconv.cli import main
from fastconv.contract.cpu import cpu_info
from fastconv.kernels.cpu.calibration import measure as calibration
from fastconv.kernels.cpu.calibration.loops import LOOPS
from fastconv.kernels.cpu.machine import measured
from fastconv.kernels.cpu.runtime import jit, pool

DEVICE = cpu_info()
X86 = DEVICE.isa in ("avx512", "avx2", "sse2")
VECTOR = {"avx512": "zmm", "avx2": "ymm", "sse2": "xmm"}.get(DEVICE.isa, "")
#: Instructions of one round, by what they look like on x86.
PATTERNS = {
    "addition": r"(inc|add|lea)\w*\s",
    "multiply_add": rf"v?(fmadd|mulps)\w*\s.*{VECTOR}",
    "latency": rf"v?(fmadd|mulps)\w*\s.*{VECTOR}",
    "load": rf"v?mov[au]ps\s+-?\w*\(.*{VECTOR}",
    "store": rf"v?mov[au]ps\s+%{VECTOR}\d+, -?\w*\(",
    "read": rf"v?mov[au]ps\s+-?\w*\(.*{VECTOR}",
    "write": rf"v?mov[au]ps\s+%{VECTOR}\d+, -?\w*\(",
    "write_past": rf"v?movntps\s+%{VECTOR}\d+, -?\w*\(",
}


def inner_loop(name: str) -> list[str]:
    """The instructions of a loop's body, the longest block that ends by a jump to its start."""
    with jit.recorded_variants() as variants:
        calibration._make_task(name, DEVICE)
    (variant,) = variants.values()
    blocks: list[list[str]] = []
    label, block = "", []
    for line in variant.assembly.splitlines():
        text = line.split("#")[0].strip()
        if re.match(r"\.?\w+:", text):
            label, block = text.rstrip(":"), []
        elif text and not text.startswith("."):
            block.append(text)
            if re.match(rf"j\w+\s+{re.escape(label)}$", text):
                blocks.append(block)
    return max(blocks, key=len)


@pytest.mark.skipif(not X86, reason="the patterns are of x86")
@pytest.mark.parametrize("name", PATTERNS)
def test_a_round_does_its_thing_as_often_as_it_says(name: str) -> None:
    body = inner_loop(name)
    made = sum(bool(re.match(PATTERNS[name], line)) for line in body)
    told = LOOPS[name](DEVICE.lanes(4), DEVICE.registers).amount(DEVICE.lanes(4), DEVICE.registers)
    if name in ("read", "write", "write_past"):
        told //= DEVICE.vector_bytes
    # The compiler may unroll a round; the counter may be an addition.
    extra = 2 if name == "addition" else 0
    assert made >= told and made % told <= extra, Counter(line.split()[0] for line in body)
    assert not any("rsp" in line for line in body), "a round touches the stack"


@pytest.mark.parametrize("name", ["write", "write_past"])
def test_walks_write_all_of_their_memory_and_none_beside_it(name: str) -> None:
    function = calibration._make_task(name, DEVICE)
    step = LOOPS[name](DEVICE.lanes(4), DEVICE.registers).amount(DEVICE.lanes(4), DEVICE.registers)
    memory = np.arange(8 * step // 4 + 64, dtype=np.float32) + 1
    memory = memory[-memory.ctypes.data % 64 // 4 :]
    first = memory[: DEVICE.lanes(4)].copy()
    before = memory[8 * step // 4 :].copy()
    table = np.array([4, 2, 4 * step], np.int64)  # two parts of four rounds each
    job = pool.make_job(function, table.ctypes.data, 2, 2)
    pool.run(job.ctypes.data, 2, (None, None, None, None, memory, None))
    written = memory[: 8 * step // 4].reshape(-1, DEVICE.lanes(4))
    half = len(written) // 2
    np.testing.assert_array_equal(written[:half], np.broadcast_to(first, written[:half].shape))
    assert (written[half:] == written[half]).all()
    np.testing.assert_array_equal(memory[8 * step // 4 :], before)


@pytest.mark.parametrize("threads", [1, 2, 8, 56, 256])
@pytest.mark.parametrize("l3", [0, 32 << 20, 105 << 20, 320 << 20])
def test_walks_in_memory_outgrow_l3_and_many_threads_share_it(l3: int, threads: int) -> None:
    device = replace(DEVICE, l3=l3, threads=threads)
    in_l3, alone, shared = calibration._walks(device)
    assert alone >= 2 * l3 and alone >= 48 << 20
    assert alone >= shared and shared * threads <= 2 << 30
    assert shared * threads >= 2 * l3 and shared > 2 * device.l2
    assert shared % 4096 == 0 and in_l3 > device.l2


def planted(monkeypatch: pytest.MonkeyPatch, clocks: list[float], helped: float) -> None:
    """Let the clock look as told, one look after the other, and two threads move `helped` times."""
    looks = iter(clocks)
    rates = {"multiply_add": 8e9, "latency": 1e9}

    def rate(self: calibration._Bench, name: str) -> float:
        return next(looks, clocks[-1]) if name == "addition" else rates.get(name, 4e9)

    def stream(self: calibration._Bench, name: str, size: int, threads: int) -> float:
        return 30e9 * (1 if threads == 1 else helped)

    monkeypatch.setattr(calibration, "_walks", lambda device: (4096, 4096, 4096))
    monkeypatch.setattr(calibration._Bench, "rate", rate)
    monkeypatch.setattr(calibration._Bench, "stream", stream)


def test_a_clock_that_looks_low_at_first_makes_no_core_look_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(monkeypatch, [4e9, 0.5e9, 1e9, 4e9], 1.5)
    found = calibration.measure(replace(DEVICE, threads=2))
    assert (found.clock, found.multiply_adds, found.latency) == (4e9, 2.0, 4.0)
    assert found.l2 == 7.5


@pytest.mark.parametrize(("helped", "shown"), [(1.5, 45e9), (0.6, 30e9)])
def test_threads_together_move_no_less_than_one(
    monkeypatch: pytest.MonkeyPatch, helped: float, shown: float
) -> None:
    planted(monkeypatch, [4e9], helped)
    found = calibration.measure(replace(DEVICE, threads=2))
    assert found.memory_all == found.written_all == found.past_all == found.l3_all == shown
    assert found.memory == found.written == 30e9


def test_the_command_prints_every_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # One short run each is not what this machine's costs should be from.
    monkeypatch.setattr(measured, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(calibration, "_MEMORY", 1 << 20)
    monkeypatch.setattr(calibration, "_RUNS", 1)
    assert main(["calibrate"]) == 0
    shown = capsys.readouterr().out
    for word in ("GHz", "multiply-adds", "gather", "L2", "memory", "ns", "helpers", DEVICE.isa):
        assert word in shown
    assert "nan" not in shown and "inf" not in shown
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]
