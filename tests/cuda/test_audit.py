"""The compile audit: its bars on the main tiles, and that it sees what it is there to see."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba_cuda")

from numba import cuda
from numba.cuda import types

from fastconv import cli
from fastconv.contract.errors import DeviceError
from fastconv.kernels.cuda.audit import check, compile, report, sass
from fastconv.kernels.cuda.common.launch import Kernel

KEPT = Path(report.__file__).with_name("AUDIT.md")
QUICK = [
    "128x128x8 float32 single w1 pixels",
    "128x128x8 float32 channels w1 channels",
    "64x64x8 float32 single w1 pixels",
    "64x64x16 float64 single w1 pixels",
    "sparse_gemm 128x64x8 float32 x4",
    "sparse_gemm 64x64x8 float32 x4",
    "sparse_gemm 32x32x16 float32 x4",
]


@pytest.mark.parametrize("arch", ["sm_80", "sm_120"])
@pytest.mark.parametrize("name", QUICK)
def test_main_tiles_keep_to_their_bars(name: str, arch: str) -> None:
    kernel, bars = next(each for each in check.kernels_to_audit() if each[0].name.endswith(name))
    found = check.audit_kernel(kernel, bars, arch)
    assert found.faults == ()
    assert found.cubin.registers <= 255 and found.blocks >= 1
    assert found.cubin.shared == kernel.shared
    if "float32" in name:
        assert found.loads["LDS.128"] >= 16


def test_every_audited_kernel_has_a_name_of_its_own() -> None:
    names = [kernel.name for kernel, _ in check.kernels_to_audit()]
    assert len(set(names)) == len(names)


def doubling(x: Any) -> None:
    x[cuda.grid(1)] *= 0.1  # a bare number is float64


def indexing_registers(x: Any) -> None:
    kept = cuda.local.array(256, types.float32)
    for i in range(256):
        kept[i] = x[i]
    x[0] = kept[int(x[9])]


@pytest.mark.parametrize(
    ("function", "sentence"), [(doubling, "in float64"), (indexing_registers, "local memory")]
)
def test_planted_faults_are_found(function: Any, sentence: str) -> None:
    kernel = Kernel(function.__name__, function, (types.float32[::1],), 128, 1)
    found = check.audit_kernel(kernel, check.Bars(share=0.5), "sm_80")
    assert any(sentence in fault for fault in found.faults), found.faults
    assert any("of its main loop" in fault for fault in found.faults)


def test_a_bound_on_registers_that_is_too_tight_spills() -> None:
    kernel, bars = next(each for each in check.kernels_to_audit() if QUICK[0] in each[0].name)
    crowded = dataclasses.replace(kernel, blocks=4)
    assert any("spills" in fault for fault in check.audit_kernel(crowded, bars, "sm_80").faults)


def test_the_main_loop_is_the_innermost_one_with_most_multiply_adds() -> None:
    lines = [
        ".L_x_0:",
        "IADD3 R1, R1, 1",
        ".L_x_1:",
        "FFMA R2, R3, R4, R2",
        "@!P0 LDS.128 R4, [R8]",
        "@P0 BRA `(.L_x_1)",
        "FFMA R2, R3, R4, R2",
        "@P1 BRA `(.L_x_0)",
        ".L_x_2:",  # an epilogue: more multiply-adds, and a store
        "FFMA R2, R3, R4, R2",
        "FFMA R2, R3, R4, R2",
        "STG.E [R8], R2",
        "@P0 BRA `(.L_x_2)",
    ]
    text = "\n".join(
        line if line.startswith(".L") else f"  /*{16 * i:04x}*/  {line} ;"
        for i, line in enumerate(lines)
    )
    loop = sass.parse(text).main_loop("FFMA")
    assert loop == {"FFMA": 1, "LDS.128": 1, "BRA": 1}
    assert sass.share(loop, "FFMA") == pytest.approx(1 / 3)


def test_a_tool_that_is_nowhere_is_named_with_the_extra() -> None:
    with pytest.raises(DeviceError, match=r"no-such-tool.*pip install 'fastconv\[cuda-audit\]'"):
        compile.find_tool("no-such-tool")


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "audit.md"
    words = ["audit", "pack_weight float32", "--sm", "sm_90", "--markdown", str(path)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "FMA 90" in path.read_text() and "| pack_weight float32 |" in path.read_text()
    assert "pack_weight float32" in printed and "0 of 1 miss a bar" in printed
    assert cli.main(["audit", "--sm", "sm_11"]) == 2
    assert cli.main(["audit", "no such kernel"]) == 2
    assert "sm_11" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reduce_splits float32", "depthwise float32 w1", QUICK[2]])
def test_the_table_that_is_kept_is_true(name: str) -> None:
    kernel, bars = next(each for each in check.kernels_to_audit() if each[0].name.endswith(name))
    row = report.markdown_row(check.audit_everywhere(kernel, bars, compile.ARCHITECTURES))
    assert row in KEPT.read_text(encoding="utf-8").splitlines()


def test_the_table_that_is_kept_has_every_product_and_no_fault() -> None:
    rows = [line for line in KEPT.read_text(encoding="utf-8").splitlines() if line[:2] == "| "][1:]
    kept = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    names = [kernel.name for kernel, _ in check.kernels_to_audit()]
    assert kept == [name for name in names if name in kept]
    assert {name for name in names if name.startswith(("implicit_gemm", "dilated"))} < set(kept)
    assert all(row.endswith("| ok |") for row in rows)


def without_names(ptx: str) -> list[str]:
    """The lines of PTX, its symbols numbered in the order in which they appear."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"symbol{len(numbers)}")

    lines = [
        line for line in ptx.splitlines() if not line.startswith(("//", ".version", ".target"))
    ]
    return [re.sub(r"_ZN\w+|_cudapy_smem_\d+", number, line) for line in lines]


@pytest.mark.parametrize("generation", [("sm_75", "sm_90"), ("sm_100", "sm_120")])
def test_nvvm_makes_the_same_ptx_for_a_generation(generation: tuple[str, str]) -> None:
    kernel = next(each for each, _ in check.kernels_to_audit() if each.name.startswith("depthwise"))
    first, last = (without_names(compile.compile_ptx_for(kernel, arch)) for arch in generation)
    assert first == last and len(first) > 1000
