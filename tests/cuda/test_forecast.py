"""The roofline forecast: how it scales, what it counts, and that dispatch costs are the same."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import cli, dispatch
from fastconv import forecast as command
from fastconv.bench import cases
from fastconv.contract.errors import DeviceError, FastconvError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.problem_line import parse_line
from fastconv.cuda_device import EMULATED, MODELS, named_model, use_device
from fastconv.kernels.cuda.common import roofline
from fastconv.kernels.cuda.common.roofline import BOUNDS, LaunchCost, bounds, touched
from fastconv.kernels.cuda.forecast.forecast import Forecast, forecast
from fastconv.kernels.cuda.specs import LAUNCHES, SPECS

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
A100 = MODELS["A100"]
LINES = [
    "mb8ic64ih56oc64kh3ph1",
    "ic512ih7oc512kh3ph1",
    "ic256ih56oc64kh1",
    "g64ic64ih56oc64kh3ph1",
    "ic3ih224oc64kh7sh2ph3",
    "--dt=f64 ic16id16oc16kd3pd1",
    "ic512ih33oc512kh3ph12dh11",
    "--dt=f16 --tag=axb g4ic64ih28oc64kh3ph1",
]


def on_gpu(line: str) -> ConvProblem:
    return parse_line(line)[0].with_(device="cuda")


def able(problem: ConvProblem) -> list[str]:
    return [spec.name for spec in SPECS if not spec.reasons(problem, A100)]


PAIRS = [(name, on_gpu(line)) for line in LINES for name in able(on_gpu(line))]


def test_every_kernel_is_counted_and_meets_a_problem() -> None:
    assert set(LAUNCHES) == {spec.name for spec in SPECS} == {name for name, _ in PAIRS}


@pytest.mark.parametrize("gpu", MODELS)
@pytest.mark.parametrize(("name", "problem"), PAIRS)
def test_the_cost_of_dispatch_is_the_forecast(name: str, problem: ConvProblem, gpu: str) -> None:
    (spec,) = (each for each in SPECS if each.name == name)
    found = forecast(name, problem, MODELS[gpu])
    assert found.forecast_ms == pytest.approx(1e3 * spec.cost(problem, MODELS[gpu]))
    assert found.decides in BOUNDS and set(found.bounds_ms) == set(BOUNDS)
    assert 0 < found.forecast_ms < math.inf and min(found.bounds_ms.values()) >= 0
    deciding = max(value for bound, value in found.bounds_ms.items() if bound != "launch")
    assert found.forecast_ms <= sum(found.bounds_ms.values())
    assert found.launches > 1 or found.forecast_ms >= deciding


@pytest.mark.parametrize(("name", "problem"), PAIRS)
def test_twice_the_clock_halves_what_a_multiprocessor_does(name: str, problem: ConvProblem) -> None:
    faster = replace(A100, clock=2 * A100.clock)
    for work in LAUNCHES[name](problem, A100):
        before, after = bounds(work, A100), bounds(work, faster)
        for bound in ("arithmetic", "shared", "waves", "l2"):
            assert after[bound] == pytest.approx(before[bound] / 2)
        assert after["memory"] == before["memory"] > 0


@pytest.mark.parametrize(("name", "problem"), PAIRS)
def test_twice_the_bandwidth_halves_memory(name: str, problem: ConvProblem) -> None:
    faster = replace(A100, bandwidth=2 * A100.bandwidth)
    for work in LAUNCHES[name](problem, A100):
        before, after = bounds(work, A100), bounds(work, faster)
        assert after == before | {"memory": pytest.approx(before["memory"] / 2)}


@pytest.mark.parametrize(("name", "problem"), PAIRS)
def test_more_multiprocessors_are_never_slower(name: str, problem: ConvProblem) -> None:
    times = [
        forecast(name, problem, replace(A100, multiprocessors=count)).forecast_ms
        for count in (1, 2, 3, 7, 40, 64, 107, 108, 109, 170, 500)
    ]
    assert all(more <= fewer * (1 + 1e-12) for fewer, more in itertools.pairwise(times))
    assert times[0] > times[-1]


def test_idle_units_count_as_waves() -> None:
    work = LaunchCost("full", 0, 0, 0, blocks=216, warps=8, macs=1 << 20, resident=2)
    assert bounds(work, A100)["waves"] == pytest.approx(0)
    one_more = bounds(replace(work, blocks=217), A100)
    assert one_more["waves"] == pytest.approx(one_more["arithmetic"] * (3 * 108 / 217 - 1))
    # A block of one warp leaves three of four schedulers idle.
    alone = bounds(replace(work, blocks=108, warps=1), A100)
    assert alone["waves"] == pytest.approx(3 * alone["arithmetic"])


def test_the_mix_of_instructions_and_the_banks_limit_the_peak() -> None:
    work = LaunchCost("half", 0, 0, 0, blocks=128, macs=1 << 20, warps=4, share=0.5, shared=1 << 20)
    ada, ampere = bounds(work, MODELS["RTX 4090"]), bounds(work, replace(A100, multiprocessors=128))
    # 64 of 128 units there; all 64 units here, where half of the instructions are enough.
    clock = MODELS["RTX 4090"].clock
    assert ada["arithmetic"] == pytest.approx((1 << 20) / 64 / clock)
    assert ampere["arithmetic"] == pytest.approx((1 << 20) / 64 / A100.clock)
    assert ada["shared"] == pytest.approx((1 << 20) / 128 / clock)


def test_bytes_by_hand() -> None:
    # 64 channels of 56 x 56 in and out, 64 x 576 weights, each moved once.
    problem = on_gpu("ic64ih56oc64kh3ph1")
    found = forecast("cuda.direct", problem, A100)
    maps, weights = 64 * 56 * 56 * 4, 64 * 576 * 4
    assert found.memory_bytes == 2 * maps + weights
    # 25 blocks of 128 pixels (3 rows, so 5 of the input) for each 16 channels.
    assert found.blocks == 25 * 4
    assert found.l2_bytes == 100 * (64 * 5 * 56 * 4 + 16 * 576 * 4)
    first, *_, last = LAUNCHES["cuda.winograd_f4"](problem, A100)
    tiles = 36 * 64 * 14 * 14 * 4
    assert (first.read, first.written, last.read, last.written) == (maps, tiles, tiles, maps)


def test_a_split_reduction_writes_and_reads_its_parts() -> None:
    problem = on_gpu("ic2048ih7oc512kh1")
    product, total = LAUNCHES["cuda.implicit_gemm"](problem, A100)
    outputs = 512 * 49 * 4
    assert product.written == total.read > outputs and product.written % outputs == 0
    assert total.written == outputs
    assert product.read == (2048 * 49 + 2048 * 512) * 4


@pytest.mark.parametrize(
    ("line", "pixels", "samples"),
    [
        ("ic8ih56oc8kh3ph1", 56, 3 * 56),
        ("ic8ih56oc8kh3ph1", 1, 3 * 3),
        ("ic8ih56oc8kh1sh2", 28 * 28, 28 * 55),
        ("--tag=axb ic8ih56oc8kh1sh2", 28 * 28, 28 * 28),
        ("mb3ic8ih7oc8kh3ph1", 3 * 49, 3 * 49),
        ("ic8iw100oc8kw3pw4dw3", 10, 9 + 8 + 1),
    ],
)
def test_samples_that_pixels_touch(line: str, pixels: int, samples: int) -> None:
    assert touched(parse_line(line)[0], pixels) == samples


@pytest.mark.parametrize("gpu", MODELS)
def test_every_row_of_resnet50_has_a_forecast(gpu: str) -> None:
    for case in cases.load("resnet50"):
        best, *others = command.forecast(case.problem, gpu)
        assert isinstance(best, Forecast) and best.gpu == gpu
        assert all(best.forecast_ms <= other.forecast_ms for other in others)
        with use_device(EMULATED, MODELS[gpu]):
            candidates = dispatch.list_candidates(case.problem.with_(device="cuda"), packed=True)
        chosen = min(candidates, key=lambda each: each.seconds)
        assert best.kernel == chosen.spec.name
        # Nothing is faster than the definition's products at the peak, Winograd's 4 in 1 aside.
        flops = case.problem.flops / (4 if "winograd" in best.kernel else 1)
        assert best.forecast_ms > 1e3 * flops / MODELS[gpu].flops(4)


def test_the_command_says_forecast_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forecast.json"
    words = ["forecast", "resnet50", "--gpu", "T4", "H100", "--rows", "layer1", "--json", str(path)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("Forecast of resnet50 on ") == printed.count("forecast ms") == 2
    assert "A forecast, not a measurement." in printed and "Not counted:" in printed
    written = json.loads(path.read_text())
    assert written["title"] == "forecast" and written["not_counted"]
    assert {each["gpu"] for each in written["forecasts"]} == {"T4", "H100"}
    assert all(each["forecast_ms"] > 0 for each in written["forecasts"])


def test_all_kernels_and_rows_that_none_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["forecast", "ic64ih56oc64kh3ph1", "--gpu", "L4", "--all"]) == 0
    printed = capsys.readouterr().out
    assert all(f"cuda.{name}" in printed for name in ("implicit_gemm", "direct", "winograd_f2"))
    assert cli.main(["forecast", "ic1iw1024oc1kw255pw127", "--gpu", "L4"]) == 0
    assert "no CUDA kernel can run it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["resnet50", "--gpu", "A1000"], "gpu: got 'A1000', want one of T4, A100"),
        (["no such suite"], "suite: got 'no such suite'"),
        (["resnet50", "--rows", "none"], "--rows: got 'none', which matches no row"),
    ],
)
def test_bad_input_is_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["forecast", *words]) == 2
    assert sentence in capsys.readouterr().err
    with pytest.raises(FastconvError, match="want one of"):
        command.forecast("ic64ih56oc64kh3ph1", "GTX 280")


def test_a_forecast_loads_no_compiler() -> None:
    code = (
        "import sys\n"
        "from fastconv.cli import main\n"
        "assert main(['forecast', 'alexnet', '--gpu', 'T4']) == 0\n"
        "assert not {'numba', 'numba_cuda', 'llvmlite', 'torch', 'cupy'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_numba_cuda
@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("128x128x8", 4), "implicit_gemm 128x128x8 float32 single w1 pixels"),
        (("32x32x16", 8), "implicit_gemm 32x32x16 float64 single w1 pixels"),
        (("window 16", 4), "direct float32 16 w1"),
        (("window 1", 4), "depthwise float32 w1"),
        (("sparse 128x64x8", 4), "sparse_gemm 128x64x8 float32 x4"),
        (("sparse depthwise 4", 4), "sparse_depthwise float32 x4"),
    ],
)
def test_shares_are_those_of_the_audit(key: tuple[str, int], name: str) -> None:
    from fastconv.kernels.cuda.audit import check

    kernel, bars = next(each for each in check.kernels_to_audit() if each[0].name == name)
    found = check.audit_kernel(kernel, bars, "sm_80")
    assert roofline.FMA_FRACTIONS[key] == pytest.approx(found.share, abs=5e-3)


@pytest.mark.parametrize("gpu", MODELS)
def test_explain_tells_the_table_of_a_gpu_that_is_not_there(gpu: str) -> None:
    for line in LINES:
        found = fastconv.explain(line, gpu=gpu)
        best, *_ = command.forecast(line, gpu)
        (chosen,) = (row for row in found.rows if row.chosen)
        assert found.chosen == best.kernel
        assert chosen.milliseconds == pytest.approx(best.forecast_ms)
        assert str(found).splitlines()[0].endswith(f"forecast for {gpu}")


def test_explain_takes_a_call_and_names_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    x, w = np.ones((1, 16, 9, 9), np.float32), np.ones((8, 16, 3, 3), np.float32)
    assert fastconv.explain(fastconv.conv2d, x, w, gpu="L4").chosen.startswith("cuda.")
    assert fastconv.explain(fastconv.conv2d, x, w).chosen.startswith("cpu.")
    assert cli.main(["explain", "ic16ih9oc8kh3", "--gpu", "H100"]) == 0
    assert "forecast for H100" in capsys.readouterr().out
    assert cli.main(["explain", "ic16ih9oc8kh3", "--gpu", "H1"]) == 2
    assert "gpu: got 'H1', want one of T4" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_explain_without_a_gpu_says_how_to_do_without() -> None:
    with pytest.raises(DeviceError, match=r"explain\(\.\.\., gpu='A100'\) needs no GPU"):
        fastconv.explain(on_gpu(LINES[0]))


@needs_numba_cuda
@pytest.mark.parametrize("line", ["mb2ic24ih14oc40kh3ph1", "--tag=axb ic32ih12oc32kh3ph6dh5"])
@pytest.mark.parametrize("gpu", ["T4", "RTX 4090"])
def test_accesses_counted_in_the_emulator_replace_those_assumed(line: str, gpu: str) -> None:
    from fastconv.kernels.cuda.forecast.emulated_launches import count_call

    problem = on_gpu(line)
    for name in able(problem):
        assumed = LAUNCHES[name](problem, MODELS[gpu])
        counted = count_call(name, problem, MODELS[gpu], assumed)
        assert [work.name for work in counted.launches] == [work.name for work in assumed]
        for before, after in zip(assumed, counted.launches, strict=True):
            assert replace(after, shared=before.shared, requested=before.requested) == before
            # A sector is written whole: once at best, and at worst for each of its elements.
            stored = after.requested - before.requested
            assert before.written <= stored <= 32 * before.written
            assert (after.shared > 0) == (before.blocks > 0)
        assert 1 <= counted.sectors <= 32 and 1 <= counted.conflicts <= 32
        found = forecast(name, problem, MODELS[gpu], count=True)
        parts = roofline.breakdown(counted.launches, MODELS[gpu])
        assert found.forecast_ms == pytest.approx(1e3 * sum(parts.values()))
        assert (found.sectors, found.conflicts) == (counted.sectors, counted.conflicts)


@needs_numba_cuda
def test_counts_by_hand() -> None:
    from fastconv.kernels.cuda.forecast.emulated_launches import count_call

    # Two channels of 8 x 16 pixels: a warp has 32 pixels side by side, 4 sectors a request.
    problem = on_gpu("ic1ih8iw16oc2kh1")
    (work,) = LAUNCHES["cuda.direct"](problem, A100)
    counted = count_call("cuda.direct", problem, A100, (work,))
    (found,) = counted.launches
    assert found.requested - work.requested == 2 * 8 * 16 * 4 == work.written
    assert found.blocks == 1 and found.shared % 32 == 0
    assert counted.conflicts == 1


@needs_numba_cuda
def test_the_command_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "forecast.json"
    words = ["forecast", "ic16ih14oc16kh3ph1", "--gpu", "T4", "--count", "--json", str(path)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "Counted in the emulator" in printed and "A forecast, not a measurement." in printed
    (found,) = json.loads(path.read_text())["forecasts"]
    assert found["sectors"] >= 1 and found["conflicts"] >= 1
    assert f"{found['sectors']:.2f}" in printed


def test_counting_without_the_emulator_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main(["forecast", "ic16ih14oc16kh3ph1", "--count"]) == 2
    assert "pip install 'fastconv[cuda-audit]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "name"),
    [("H200", "H200"), ("h200", "H200"), ("NVIDIA H200", "H200"), ("rtx4090", "RTX 4090"),
     ("GeForce RTX-3090", "RTX 3090"), ("Tesla_T4", "T4"), ("b200", "B200")],
)  # fmt: skip
def test_models_by_the_names_that_people_type(typed: str, name: str) -> None:
    assert named_model(typed) is MODELS[name]


@pytest.mark.parametrize("typed", ["H100 PCIe", "", "200", "A100-80GB"])
def test_another_model_is_not_taken_for_one_that_is_known(typed: str) -> None:
    with pytest.raises(FastconvError, match=f"gpu: got '{typed}', want one of T4, A100.*H200"):
        named_model(typed)


def test_models_of_two_words_need_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpu", "H200", "RTX", "4090", "h100"]
    assert cli.main(["forecast", "ic64ih56oc64kh3ph1", *words]) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f" on {name}, ms") for name in ("H200", "RTX 4090", "H100")] == [1, 1, 1]
