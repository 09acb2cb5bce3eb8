"""The command line: what each command prints, and that a mistake is one sentence and code 2."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fastconv
from fastconv import cli, dispatch, information
from fastconv.cli import main
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem_line import LINE_KEYS

pytestmark = pytest.mark.program

_LINE = 'ic64ih56oc64kh3ph1n"res2"'
_COMMANDS = (
    "info",
    "explain",
    "bench",
    "tune",
    "audit",
    "forecast",
    "demo",
    "fuzz",
    "warmup",
    "cache",
)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    done = _python(
        "import sys\n"
        "from fastconv.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "assert not {'numba', 'torch', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in _COMMANDS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"fastconv {name}" in capsys.readouterr().out


def test_no_command_is_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and all(name in captured.out for name in _COMMANDS)
    done = subprocess.run([sys.executable, "-m", "fastconv"], capture_output=True, check=False)
    assert done.returncode == 0 and b"usage: fastconv" in done.stdout


@pytest.mark.parametrize("words", [["convolve"], ["cache", "--empty"]])
def test_unknown_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2


def test_info_reports_machine_and_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(information, "measure_peak", lambda dtype, threads: 123e9)
    monkeypatch.setenv("FASTCONV_THREADS", "2")
    monkeypatch.setenv("FASTCONV_SCAN", "scan.npy")
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    (unread,) = (line for line in printed.splitlines() if "but nothing reads it" in line)
    assert unread.split()[0] == "FASTCONV_THREADS"
    cpu = cpu_info()
    for expected in ("numba", "llvmlite", "numpy", cpu.name, cpu.isa, "123 GFLOP/s measured"):
        assert expected in printed
    for spec in dispatch.kernels():
        assert spec.name in printed
    assert "FASTCONV_CACHE_DIR" in printed
    facts = [line.split(None, 1)[1] for line in printed.split("\nkernels\n")[1].splitlines()]
    told = [fact for fact in facts if not fact.startswith("as c")]
    assert len(told) == len(set(told)) < len(facts)


def test_info_says_why_a_kernel_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(dispatch.kernels()[0], name="cpu.never", reasons=lambda *_: ["needs a tide"])
    monkeypatch.setattr(dispatch, "kernels", lambda *_: [spec])
    assert information.usable_kernels() == {"cpu.never": "unusable; needs a tide"}


def test_info_does_not_import_the_peers() -> None:
    done = _python(
        "import sys\n"
        "from fastconv.cli import main\n"
        "assert main(['info']) == 0\n"
        "assert not {'torch', 'onnxruntime', 'openvino', 'ncnn', 'cv2'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "GFLOP/s measured" in done.stdout


@pytest.mark.parametrize("line", [_LINE, "--dt=f64 " + _LINE, "ic8iw100oc8kw3"])
def test_explain_prints_the_table(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", line]) == 0
    printed = capsys.readouterr().out
    explanation = fastconv.explain(line)
    assert printed == f"{explanation}\n"
    assert explanation.chosen in printed


@pytest.mark.parametrize(
    "line", ["", "nonsense!", "ic64ih56", "ic64ih2oc64kh3", "g3ic64ih56oc64kh3", "--dt=i8 " + _LINE]
)
def test_bad_problem_line_is_one_sentence(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", line]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fastconv: ") and captured.err.count("\n") == 1


def test_module_exits_with_the_code_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "explain", "ic64"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and done.stderr.startswith("fastconv: problem line")


@pytest.mark.parametrize("words", [["info"], ["explain", _LINE]])
def test_who_reads_may_have_enough(words: list[str]) -> None:
    """As in ``python -m fastconv info | head -1``."""
    run = subprocess.Popen(
        [sys.executable, "-u", "-m", "fastconv", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    error = run.stderr.read()
    assert run.wait(300) == 128 + 13 and error == ""


@pytest.mark.parametrize("minutes", ["nan", "-1", "0", "1e400"])
def test_a_search_ends(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fuzz", "--minutes", minutes])
    assert caught.value.code == 2 and minutes in capsys.readouterr().err


def test_a_wrong_variable_is_one_sentence() -> None:
    code = "import sys; from fastconv.cli import main; sys.exit(main(['info']))"
    done = _python(code, FASTCONV_NUM_THREADS="many")
    assert done.returncode == 2
    assert done.stderr.startswith("fastconv: FASTCONV_NUM_THREADS: got 'many'")


def test_cache_shows_and_clears(tmp_path: Path) -> None:
    show = "from fastconv.cli import main; main(['cache'])"
    clear = "from fastconv.cli import main; main(['cache', '--clear'])"
    environment = {"FASTCONV_CACHE_DIR": str(tmp_path / "kept"), "FASTCONV_CACHE": "1"}
    assert "entries  0\n" in _python(show, **environment).stdout
    (folder,) = (tmp_path / "kept").iterdir()
    (folder / f"strip-{'0' * 24}.bin").write_bytes(bytes(2048))
    shown = _python(show, **environment).stdout
    assert str(folder) in shown and "entries  1\n" in shown and "size     2 KiB\n" in shown
    assert f"removed 1 files from {folder}\n" in _python(clear, **environment).stdout
    assert not list((tmp_path / "kept").rglob("*.bin"))


def test_cache_switched_off_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _python("from fastconv.cli import main; main(['cache'])", FASTCONV_CACHE="0")
    assert "none (switched off by FASTCONV_CACHE" in done.stdout


def test_cache_and_warmup_tell_that_there_is_none_and_why(tmp_path: Path) -> None:
    folder = tmp_path / "open to all"
    folder.mkdir()
    folder.chmod(0o777)
    done = _python(
        "import sys; from fastconv.cli import main; main(['cache']); sys.exit(main(['warmup']))",
        FASTCONV_CACHE_DIR=str(folder),
    )
    assert done.returncode == 2
    (shown,) = (line for line in done.stdout.splitlines() if "none (" in line)
    assert "mode 777" in shown and f"chmod go-w '{folder}'" in shown
    (refused,) = done.stderr.splitlines()
    assert refused.startswith("fastconv: warmup: kernels would be kept nowhere: none (others may")
    assert not list(folder.iterdir())


def test_warmup_counts_what_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("fastconv.warmup")
    monkeypatch.setattr(module, "_LINES", ("ic3ih16oc3kh3ph1",))
    told: list[str] = []
    module.warmup(["float32"], told.append)
    _, *pairs = told
    assert [text.partition(":")[0] for text in pairs] == [
        f"{number} of {len(pairs)}" for number in range(1, len(pairs) + 1)
    ]
    assert any("cpu.direct ic3" in text for text in pairs)
    assert not any("cpu.dilated" in text for text in pairs)  # it does not run this problem


def test_without_the_compiler_info_works_and_a_call_is_one_sentence() -> None:
    done = _python(
        "import numpy as np, fastconv\n"
        "from fastconv.cli import main\n"
        "assert main(['info']) == 0 and main(['warmup']) == 2\n"
        "x, w = np.ones((1, 3, 8, 8), 'f4'), np.ones((4, 3, 3, 3), 'f4')\n"
        "for call in (lambda: fastconv.conv2d(x, w), fastconv.Conv2d(w).prepare):\n"
        "    try:\n"
        "        call(x) if call.__name__ == 'prepare' else call()\n"
        "        raise AssertionError\n"
        "    except fastconv.FastconvError as error:\n"
        "        assert 'NUMBA_DISABLE_JIT' in str(error)\n",
        NUMBA_DISABLE_JIT="1",
    )
    assert done.returncode == 0, done.stderr
    assert "not measured: fastconv's kernels are compiled" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("fastconv: fastconv's kernels are compiled")


def test_demo_names_missing_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    expected = "demo needs scikit-learn and matplotlib, which is not installed"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fastconv.torch", "fastconv.spconv.pytorch"])
def test_an_import_without_pytorch_says_how_to_get_it(name: str) -> None:
    done = _python(f"import sys; sys.modules['torch'] = None; import {name}")
    wanted = f"{name} needs torch, which is not installed: pip install 'fastconv[torch]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {wanted}"


def test_help_of_explain_lists_the_keys_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert LINE_KEYS in shown and "bf16" in shown


def test_audit_names_packages_as_they_are_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    assert main(["audit"]) == 2
    assert "audit needs numba-cuda and rich, which is not installed" in capsys.readouterr().err
