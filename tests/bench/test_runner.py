"""The benchmark's processes: peers held against the truth, and what gets no figure."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastconv.bench import command, peer, peers, registry, report, runner, truth, worker
from fastconv.bench.cases import parse_case
from fastconv.bench.runner import Options


class Planted(peer.Peer):
    """A peer that returns the truth plus an error."""

    name = "planted"
    modules = ()
    distribution = "numpy"
    offset = 0.0

    def prepare(self, problem: Any, x: np.ndarray, w: np.ndarray) -> peer.Call:
        if problem.ndim == 3:
            raise peer.Refusal("planted: no 3-D")
        if problem.ndim == 1:
            raise RuntimeError("planted: broken\nsecond line")
        return lambda: truth.expected(problem, x, w) + self.offset


def ask_planted(line: str, offset: float, folder: Path) -> dict[str, Any]:
    peer = Planted(1)
    peer.offset = offset
    process, path = worker.Worker(peer), str(folder / "truth.npy")
    process.truth(line, path)
    command = {"do": "prepare", "line": line, "path": path}
    return worker.answer(process, command)


def test_worker_refuses_a_wrong_result(tmp_path: Path) -> None:
    assert ask_planted("ic2ih5oc2kh3", 0.0, tmp_path)["error"] == 0.0
    reply = ask_planted("ic2ih5oc2kh3", 1e-2, tmp_path)
    assert reply["wrong"]
    assert reply["reason"].startswith("wrong result: error")


def test_worker_passes_reasons_on(tmp_path: Path) -> None:
    assert ask_planted("ic2id5oc2kd3", 0.0, tmp_path) == {"reason": "planted: no 3-D"}
    reply = ask_planted("ic2iw5oc2kw3", 0.0, tmp_path)
    assert reply["reason"] == "RuntimeError: planted: broken"


def test_measure_takes_enough_samples() -> None:
    calls: list[int] = []
    times = worker.measure(lambda: calls.append(1) or 1e-6, 1e-4)
    assert 3 <= len(times) < len(calls)
    assert min(times) >= 0


LINES = {
    "plain": 'ic8ih10oc8oh10kh3ph1n"plain"',
    "uneven": 'ic3ih8oc4oh4kh3sh2ph0n"uneven"',
    "filter": 'g3ic3ih20iw24oc3kh5ph2n"filter"',
    "filter64": '--dt=f64 g2ic2ih40oc2kh15ph7n"filter64"',
    "nhwc": '--tag=axb ic8ih10oc8kh3ph1n"nhwc"',
    "half": '--dt=f16 ic8ih10oc8kh3ph1n"half"',
    "bfloat": '--dt=bf16 ic8ih10oc8kh3ph1n"bfloat"',
    "1d": 'g8ic8iw100oc8kw5pw2n"1d"',
    "3d": 'g2ic4id6ih7iw8oc4kd3kh2kw1sd1sh2sw1pd1ph0pw2dd1dh0dw0n"3d"',
    "batch": 'mb2ic4ih9oc4kh3n"batch"',
    "bytes": '--dt=u8:f32:u8 ic1ih20iw24oc1kh5ph2n"bytes"',
    "colours": '--dt=u8:f32:s16 --tag=axb g3ic3ih20iw24oc3kh3ph1n"colours"',
    "narrowed": '--dt=s16:f32:u8 ic3ih20iw24oc2kh3n"narrowed"',
}
FLOATS = set(LINES) - {"bytes", "colours", "narrowed"}
#: What each library does; the rest it must refuse with a reason of its own.
COVERED = {
    "torch": FLOATS,
    "torch_channels_last": FLOATS - {"1d"},
    "onnxruntime": FLOATS - {"filter64", "bfloat"},
    "openvino": FLOATS - {"filter64"},
    "ncnn": FLOATS - {"filter64", "half", "bfloat", "batch"},
    "scipy": {"filter", "filter64", "1d"},
    "opencv": {"filter", "filter64", "bytes", "colours"},
    "fastconv": set(LINES),
    "fastconv_functional": set(LINES),
    "fastconv_best": set(LINES),
}
#: What it does on some CPUs only.
BY_CPU = {"openvino": {"bfloat"}}
OWN = ("fastconv", "fastconv_functional", "fastconv_best")


@pytest.mark.parametrize("name", [*OWN, *registry.installed_peers()])
def test_peer_is_right_or_says_why_not(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "truth.npy")
    truths = worker.Worker(None)
    with (tmp_path / "log").open("w+b") as log:
        process = runner.WorkerProcess(name, 2, log)
        try:
            for label, line in LINES.items():
                truths.truth(line, path)
                reply = process.ask("prepare", 120, line=line, path=path)
                refused = label in BY_CPU.get(name, ()) and "reason" in reply
                if refused or label not in COVERED[name]:
                    assert "Error" not in reply["reason"], (label, reply)
                    assert not reply.get("wrong"), (label, reply)
                    continue
                assert "reason" not in reply, (label, reply)
                assert process.ask("time", 60, budget=1e-3)["times"]
        finally:
            process.close()


def test_openvino_without_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    problem = parse_case(LINES["bfloat"]).problem
    with pytest.raises(peer.Refusal, match="bfloat16 in another type on this CPU"):
        peers.OpenVino(1).prepare(problem, *truth.arrays(problem))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads process states in /proc")
def test_idle_worker_is_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b") as log:
        process = runner.WorkerProcess(worker.REFERENCE, 1, log)
        try:
            path = str(tmp_path / "truth.npy")
            for _ in range(2):
                state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
                assert state == "T"
                assert process.ask("truth", 60, line="ic2ih5oc2kh3", path=path) == {}
        finally:
            process.close()


CV2 = """
import os, time
import numpy as np
__version__ = "planted"
CV_32F, CV_64F, BORDER_CONSTANT = 5, 6, 0
def setNumThreads(n): pass
def filter2D(src, depth, kernel, dst, borderType):
    if src.shape == (5, 5): os._exit(3)
    if src.shape == (6, 6): time.sleep(600)
    dst[...] = 1.0
"""


def test_run_gives_no_figure_to_wrong_hung_or_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(CV2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    cases = [parse_case(f'ic1ih{n}oc1kh3ph1n"{n}"') for n in (5, 6, 7)]
    options = Options(threads=1, budget=1e-3, rounds=1, limit=5.0)
    result = runner.run(cases, ["fastconv", "opencv"], options)
    reasons = [measured["opencv"].reason or "" for _, measured in result.rows]
    assert "ended with code 3" in reasons[0]
    assert "took more than 5 s" in reasons[1]
    assert "wrong result" in reasons[2]
    made = report.build("planted", result)
    for row in made["rows"]:
        assert set(row["times_ms"]) == {"fastconv"}
        assert row["best_peer"] is None
        assert row["speedup"] is None
    assert made["geomean_speedup"] is None
    assert made["rows"][2]["wrong"] == ["opencv"]


def test_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "torch" not in registry.installed_peers():
        pytest.skip("torch is not installed")
    suite, file = tmp_path / "tiny.txt", tmp_path / "tiny.json"
    suite.write_text('ic8ih12oc16oh12kh3ph1n"a*2"\ng4ic4iw64oc4kw3pw1n"b"\n')
    words = (str(suite), "--peers", "torch", "--threads", "1", "--best", "--quick")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([*words, "--json", str(file)])) == 0
    made = json.loads(file.read_text())
    assert [row["name"] for row in made["rows"]] == ["a", "b"]
    for row in made["rows"]:
        assert set(row["times_ms"]) == {*OWN, "torch"}
        assert row["best_peer"] == "torch"
        assert row["kernel"].startswith("cpu.") and row["best_kernel"].startswith("cpu.")
        assert row["regret"] > 0
    assert set(made["machine"]["versions"]) == {*OWN, "torch"}
    assert made["min_speedup"] <= made["geomean_speedup"]
    assert "geometric mean" in capsys.readouterr().out
