"""The benchmark's networks, and its rows that are whole networks."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnx_models
from fastconv.bench import (
    command,
    memory,
    network_own,
    network_truth,
    registry,
    report,
    runner,
    worker,
)
from fastconv.bench.cases import load, parse_case
from fastconv.bench.network import NetworkRun
from fastconv.bench.network_worker import NetworkWorker
from fastconv.bench.networks import INPUTS, build
from fastconv.bench.networks.light import light, light_logits
from fastconv.bench.peer import Peer, Refusal
from fastconv.cli import main
from fastconv.onnx import InferenceSession

torch = pytest.importorskip("torch")

#: Published parameters of each network, and the shape of its output for two images.
PUBLISHED = {
    "convnext_tiny": (28_589_128, (2, 1000)),
    "inception_v3": (23_834_568, (2, 1000)),
    "mobilenet_v1": (4_231_976, (2, 1000)),
    "mobilenet_v2": (3_504_872, (2, 1000)),
    "resnet50": (25_557_032, (2, 1000)),
    "unet": (7_763_041, (2, 1, 256, 256)),
    "vgg19": (143_667_240, (2, 1000)),
    "xception": (22_855_952, (2, 1000)),
    "yolov5s": (7_235_389, (2, 25_200, 85)),
}
SMALL = {"onnx": 'network light_squeezenet mb1 n"a"', "torch": 'network mobilenet_v1 mb1 n"b"'}


def test_every_network_of_pytorch_is_here() -> None:
    assert set(PUBLISHED) == {name for name in INPUTS if not name.startswith("light_")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_is_the_published_one_and_is_traced(name: str) -> None:
    with torch.device("meta"):  # shapes alone, nothing computed
        network = import_module(f"fastconv.bench.networks.{name}").build().eval()
        traced = torch.fx.symbolic_trace(network)
        x = torch.empty(2, *INPUTS[name])
        assert tuple(traced(x).shape) == tuple(network(x).shape) == PUBLISHED[name][1]
    assert sum(each.numel() for each in network.parameters()) == PUBLISHED[name][0]


def test_weights_come_from_the_seed_and_every_layer_tells() -> None:
    network, again, other = build("mobilenet_v1"), build("mobilenet_v1"), build("mobilenet_v1", 1)
    assert not network.training
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = network(x)
        assert torch.equal(made, again(x))
        assert (made - other(x)).abs().max() > 0.1 * made.abs().max()
        network[0][0].weight[0] *= -1  # one of the first layer's 32 filters
        assert (made - network(x)).abs().max() > 1e-2 * made.abs().max()


def test_onnx_s_networks_take_a_batch() -> None:
    pair = light_logits("shufflenet", 0, batch=2)
    fed = onnx_models.feeds(pair, seed=1)
    ((name, images),) = fed.items()
    assert images.shape == (2, 3, 224, 224)
    (together,) = InferenceSession(pair.SerializeToString()).run(None, fed)
    alone = InferenceSession(light_logits("shufflenet", 0).SerializeToString())
    for image, wanted in zip(images, together, strict=True):
        (made,) = alone.run(None, {name: image[None]})
        np.testing.assert_allclose(made[0], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        assert np.ptp(wanted) > np.abs(wanted).mean() > 0  # and no constant


def test_lines_read_back() -> None:
    run = parse_case('network resnet50 mb8 n"eight*2"')
    assert (run.name, run.count, run.kind) == ("eight", 2, "network")
    assert run.problem == NetworkRun("resnet50", 8) == parse_case(run.problem.line()).problem
    assert parse_case("network resnet50").name == "network resnet50 mb1"
    assert load("network light_vgg19 mb2")[0].problem.x_shape == (2, 3, 224, 224)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("network", "want 'network NAME [mbBATCH]'"),
        ("network resnet51", "got 'resnet51', want one of convnext_tiny"),
        ("network resnet50 b8", "want 'network NAME [mbBATCH]'"),
        ("network resnet50 mb0", "got a batch of 0"),
    ],
)
def test_bad_lines_are_named(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"network") as raised:
        parse_case(line)
    assert said in str(raised.value)
    assert main(["bench", line]) == 2
    assert said in capsys.readouterr().err


def test_suite_has_every_network_at_both_batches() -> None:
    cases = load("networks")
    assert {(case.problem.name, case.problem.batch) for case in cases} == {
        (name, batch) for name in INPUTS for batch in (1, 8)
    }
    assert len({case.name for case in cases}) == len(cases) == 2 * len(INPUTS)


def test_the_peak_of_memory_is_counted_from_where_it_is_told() -> None:
    if not memory.restart_peak():
        pytest.skip("this system does not count a process's memory anew as Linux does")
    before = memory.resident_bytes()
    assert before is not None
    held = np.ones(80 << 20, np.uint8)
    del held
    assert (memory.peak_bytes() or 0) - before > 70 << 20
    memory.restart_peak()
    assert (memory.peak_bytes() or 0) - before < 40 << 20


class Planted(Peer):
    """Returns what the reference wrote, and an offset."""

    offset = 0.0

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Any:
        true = np.load(file.parent / "truth.npy")
        return lambda: true + self.offset

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        return np.asarray(result)


@pytest.mark.parametrize("kind", SMALL)
def test_worker_checks_outputs_and_tells_memory(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "truth.npy")
    assert NetworkWorker(None).truth(SMALL[kind], path) == {}
    true = np.load(path)
    assert true.dtype == (np.float32 if kind == "onnx" else np.float64)
    assert network_truth.model_file(tmp_path).stat().st_size > 4_000_000
    for offset, is_wrong in ((0.0, False), (2e-4 * np.abs(true).max(), True)):
        planted = Planted(1)
        planted.offset = offset
        asked = NetworkWorker(planted)
        reply = worker.answer(asked, {"do": "prepare", "line": SMALL[kind], "path": path})
        assert reply.get("wrong", False) is is_wrong
    told = asked.memory()["bytes"]
    assert told is None or told >= 0


def test_a_network_that_is_not_exported_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand a long text")

    monkeypatch.setattr(torch.onnx, "export", export)
    NetworkWorker(None).truth(SMALL["torch"], str(tmp_path / "truth.npy"))
    with pytest.raises(Refusal) as refused:
        network_own.require_model(network_truth.model_file(tmp_path))
    assert str(refused.value) == "torch.onnx.export: RuntimeError: no such operator"


#: Without what inductor compiles, which takes minutes.
COLUMNS = [
    report.PACKED,
    report.MODULE,
    *(name for name in registry.installed_peers(kind="network") if "compile" not in name),
]


@pytest.mark.parametrize("name", COLUMNS)
def test_column_is_right_or_says_why_not(name: str, tmp_path: Path) -> None:
    library = registry.PEERS["network"]["cpu"][name]
    with (tmp_path / "log").open("w+b") as log:
        for kind, line in SMALL.items():
            path = tmp_path / kind / "truth.npy"
            path.parent.mkdir()
            reads_onnx = report.RIVALS["network"][report.PACKED]
            if name not in (report.PACKED, *reads_onnx) and kind == "onnx":
                assert library.declines(parse_case(line).problem) is not None
                continue
            assert library.declines(parse_case(line).problem) is None
            NetworkWorker(None).truth(line, str(path))
            process = runner.WorkerProcess(name, 2, log, "cpu", "network")
            try:
                reply = process.ask("prepare", 300, line=line, path=str(path))
                assert "reason" not in reply, (kind, reply)
                assert process.ask("time", 60, budget=1e-3)["times"]
                told = process.ask("memory", 60)["bytes"]
                assert told is None or told > 1_000_000
            finally:
                process.close()


@pytest.mark.parametrize("name", ["torch_compile", "torch_compile_channels_last"])
def test_a_compiled_column_compiles_the_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda network: seen.append(network) or network)
    settings = import_module("torch._inductor.config")
    with settings.patch(freezing=False):
        column = registry.PEERS["network"]["cpu"][name](1)
        assert settings.freezing
    run = parse_case(SMALL["torch"]).problem
    call = column.prepare(run, *network_truth.arrays(run), Path("model.onnx"))
    assert column.to_numpy(run, call()).shape == (1, 1000)
    weight = seen[0][0][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is ("last" in name)


def test_ncnn_takes_one_image() -> None:
    ncnn = registry.PEERS["network"]["cpu"]["ncnn"]
    assert ncnn.declines(NetworkRun("resnet50", 1)) is None
    assert ncnn.declines(NetworkRun("resnet50", 8)) == "ncnn computes one image at a time"


def test_memory_that_is_not_counted_anew_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "nowhere" / "clear_refs")
    path = str(tmp_path / "truth.npy")
    NetworkWorker(None).truth(SMALL["onnx"], path)
    asked = NetworkWorker(Planted(1))
    assert "reason" not in asked.prepare(SMALL["onnx"], path)
    assert asked.memory() == {"bytes": None}


def made_up() -> runner.Result:
    def took(ms: float, memory: int = 20_000_000) -> runner.Measurement:
        return runner.Measurement([ms / 1e3], memory=memory)

    measured = {
        "fastconv": took(8.0, 30_000_000),
        "fastconv_torch": took(10.0),
        "torch": took(30.0),
        "torch_channels_last": took(15.0),
        "onnxruntime": took(12.0),
        "openvino": runner.Measurement(reason="wrong result: planted", wrong=True),
    }
    models = measured | {"fastconv_torch": runner.Measurement(reason="not of ONNX")}
    del models["torch"], models["torch_channels_last"]
    rows = [(parse_case(SMALL["torch"]), measured), (parse_case(SMALL["onnx"]), models)]
    return runner.Result({"cpu": "made up", "threads": 2}, {"float32": 1e11}, rows)


def test_each_of_fastconv_s_columns_has_its_own_rivals() -> None:
    made = report.build("made_up", made_up())
    first, second = made["rows"]
    assert (first["best_peer"], first["speedup"]) == ("onnxruntime", pytest.approx(1.5))
    assert first["best_module_peer"] == "torch_channels_last"
    assert first["module_speedup"] == pytest.approx(1.5)
    assert second["speedup"] == pytest.approx(1.5) and second["module_speedup"] is None
    assert made["module_min_speedup"] == pytest.approx(1.5)
    assert first["memory_mb"]["fastconv"] == 30.0 and "openvino" not in first["memory_mb"]
    assert (first["wrong"], first["failed"]) == (["openvino"], [])


def test_what_is_wrong_shows_as_wrong_beside_the_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = report.build("made_up", made_up())
    report.print_report(made, list(made_up().rows[0][1]), Console(width=200))
    shown = capsys.readouterr().out
    assert "wrong" in shown.split("peak memory")[0] and "openvino on b, a: wrong result" in shown
    assert "session against the best peer: geometric mean 1.500" in shown
    assert "module against the best peer: geometric mean 1.500, worst 1.500" in shown
    assert "GFLOP/s" not in shown.split("peak memory")[0] and "kernel" not in shown


@pytest.mark.parametrize(
    ("own", "code"),
    [
        (runner.Measurement(reason="PyTorch does not read ONNX models"), 0),
        (runner.Measurement(reason="ShapeError: planted", failed=True), 1),
        (runner.Measurement(reason="wrong result: planted", wrong=True), 1),
    ],
)
def test_what_a_column_of_fastconv_s_declines_is_no_failure(
    own: runner.Measurement, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = made_up()
    result.rows[1][1]["fastconv_torch"] = own
    seen: list[Any] = []

    def measure(cases: Any, libraries: Any, options: Any, progress: Any) -> runner.Result:
        seen.extend((list(libraries), options.fresh, options.kind))
        return result

    monkeypatch.setattr(command, "measure", measure)
    assert main(["bench", "networks", "--peers", "none", "--rows", "mb1"]) == code
    assert seen == [["fastconv", "fastconv_torch"], True, "network"]


@pytest.mark.parametrize("module", ["torch", "onnx"])
def test_a_missing_package_is_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network_truth, "find_spec", lambda name: None if name == module else name)
    assert main(["bench", "networks", "--peers", "none"]) == 2
    assert f"need the module {module}, which is not installed" in capsys.readouterr().err
    monkeypatch.setattr(command, "measure", lambda *_: made_up())
    main(["bench", "all", "--peers", "none", "--rows", "mb1|3x3 64@56"])
    shown = capsys.readouterr().out
    assert f"left out: networks need the module {module}" in shown
    assert "core" in shown.split("all suites")[1] and "networks" not in shown.split("all suites")[1]


def test_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite, file = tmp_path / "tiny.txt", tmp_path / "tiny.json"
    suite.write_text(SMALL["onnx"] + "\n")
    words = ["--peers", "torch", "--threads", "2", "--quick", "--json", str(file)]
    assert main(["bench", str(suite), *words]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert set(row["times_ms"]) == {"fastconv"} and row["speedup"] is None
    declined = "PyTorch does not read ONNX models"
    assert row["refused"] == dict.fromkeys(("fastconv_torch", "torch"), declined)
    assert row["errors"]["fastconv"] < 1e-4
    if sys.platform.startswith("linux"):
        assert 5 < row["memory_mb"]["fastconv"] < 1000  # 5 MB of weights
    assert "what PyTorch computes in float64" in capsys.readouterr().out


def test_every_row_has_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    replies = {"peak": {"flops": 1e9}, "time": {"times": [1e-3]}, "memory": {"bytes": 7}}

    class Process(SimpleNamespace):
        version = "planted"

        def ask(self, do: str, limit: float, **_: Any) -> dict[str, Any]:
            return dict(replies.get(do, {}))

        def close(self) -> None:
            pass

    def start(name: str, *_: Any) -> Process:
        started.append(name)
        return Process()

    monkeypatch.setattr(runner, "WorkerProcess", start)
    cases = [parse_case(SMALL["onnx"]), parse_case(SMALL["torch"])]
    options = runner.Options(1, kind="network", fresh=True)
    result = runner.run(cases, ["fastconv", "torch"], options)
    assert started.count("fastconv") == 3  # the last one tells the machine
    assert started.count("reference") == 2 and started.count("torch") == 1
    assert [row["fastconv"].memory for _, row in result.rows] == [7, 7]
    assert result.machine["versions"] == {"fastconv": "planted", "torch": "planted"}


def test_light_models_hold_their_weights() -> None:
    made = light("squeezenet", 3)
    onnx.checker.check_model(made)
    assert [each.name for each in made.graph.input] == ["data_0"]
    logits = light_logits("squeezenet", 3)
    onnx.checker.check_model(logits)
    assert [*made.graph.node[:-1]] == [*logits.graph.node]
    assert made.graph.node[-1].input[0] == logits.graph.output[0].name
