"""``explain LINE --gpu MODEL --code`` and ``--asm``: generated text, and SASS of the main loop."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

import fastconv
from fastconv import code_listing
from fastconv.cli import main
from fastconv.code_listing import list_code
from fastconv.contract.errors import DeviceError
from fastconv.contract.problem_line import parse_line
from fastconv.kernels.cuda.audit import compile as audit_compile
from fastconv.kernels.cuda.audit import sass

LINE = "ic64ih28oc64kh3ph1"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda"
)


def tools_missing() -> bool:
    try:
        for tool in ("ptxas", "nvdisasm"):
            audit_compile.find_tool(tool)
    except DeviceError:
        return True
    return False


needs_tools = pytest.mark.skipif(tools_missing(), reason="needs ptxas and nvdisasm")


def test_the_text_of_every_kernel_is_listed_in_the_order_of_launches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with fastconv.use_kernel("cuda.implicit_gemm"):
        assert main(["explain", LINE, "--gpu", "A100", "--code"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{parse_line(LINE)[0].line()}: cuda.implicit_gemm on A100, ")
    pack, product = printed.index("\n# pack_weight float32: "), printed.index("\n# implicit_gemm ")
    assert (
        pack < printed.index("\ndef pack_weight(") < product < printed.index("\ndef implicit_gemm(")
    )
    assert "# compiled for " in printed and "BK = " in printed
    assert "cuda.syncthreads()" in printed


@pytest.mark.parametrize(
    ("kernel", "names"),
    [
        ("cuda.winograd_f2", ["weight", "input", "output"]),
        ("cuda.depthwise", ["depthwise"]),
        ("cuda.direct", ["direct"]),
        ("cuda.dilated", ["dilated"]),
    ],
)
@pytest.mark.parametrize("options", ["", "--dt=f16 ", "--dt=f64 --tag=axb ", "--tag=any "])
def test_every_kernel_has_a_listing(kernel: str, names: list[str], options: str) -> None:
    line = {"cuda.depthwise": "g8ic8ih9oc8kh3ph1", "cuda.dilated": "ic8ih20oc8kh3ph4dh3"}
    with fastconv.use_kernel(kernel):
        printed = list_code(options + line.get(kernel, "ic8ih20oc8kh3ph1"), "code", "T4")
    assert f": {kernel} on T4, " in printed
    assert all(name in printed for name in names)


def test_a_problem_need_not_fit_in_memory() -> None:
    printed = list_code("mb16ic64ih1500oc64kh3ph1", "code", "B200")
    assert "\ndef implicit_gemm(" in printed


@needs_tools
def test_the_main_loop_is_listed_with_the_counts_of_the_audit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", LINE, "--gpu", "RTX 4090", "--asm"]) == 0
    _, product, pack = capsys.readouterr().out.split("\n\n")
    head, facts, *loop = product.splitlines()
    assert head.startswith("# implicit_gemm ") and ", sm_89: " in head
    assert " 0 bytes spilled, " in head and head.endswith(" blocks a multiprocessor")
    assert facts.startswith("# main loop: ") and "% FFMA; " in facts and " LDS.128" in facts
    instructions = [line for line in loop if line.startswith("        ")]
    assert len(instructions) == int(facts.split()[3])
    assert loop[0].startswith(".L_x_") and loop[0].rstrip(":") in instructions[-1]
    assert pack.startswith("# pack_weight float32, sm_89: ")
    assert pack.rstrip().endswith("; no loop multiplies and adds")


@needs_tools
def test_double_precision_is_listed_too() -> None:
    assert "% DFMA; " in list_code(f"--dt=f64 {LINE}", "asm", "A100")


def test_labels_stay_with_the_instruction_behind_them() -> None:
    text = (
        " /*0000*/ MOV R1, R2 ;\n"
        ".L_x_1:\n"
        " /*0010*/ @!P0 FFMA R0, R1, R2, R0 ;\n"
        " /*0020*/ FFMA R3, R1, R2, R3 ;\n"
        " /*0030*/ @P0 BRA `(.L_x_1) ;\n"
        ".L_x_2:\n"
        " /*0040*/ FFMA R0, R1, R2, R0 ;\n"
        " /*0050*/ @P1 BRA `(.L_x_2) ;\n"
    )
    listing = sass.parse(text)
    assert listing.main_loop("FFMA").total() == 3
    assert listing.main_text("FFMA") == (
        ".L_x_1:\n        @!P0 FFMA R0, R1, R2, R0",
        "        FFMA R3, R1, R2, R3",
        "        @P0 BRA `(.L_x_1)",
    )


def test_missing_tools_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(code_listing, "find_spec", lambda _: None)
        for form in ("--code", "--asm"):
            assert main(["explain", LINE, "--gpu", "A100", form]) == 2
            error = capsys.readouterr().err
            assert "numba-cuda, which is not installed" in error and error.count("\n") == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["explain", LINE, "--gpu", "A100", "--asm"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastconv: ptxas: in none") and "fastconv[cuda-audit]" in error


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", LINE, "--gpu", "A99", "--asm"]) == 2
    assert capsys.readouterr().err.startswith("fastconv: gpu: got 'A99', want one of ")
