"""Measured choices: who wins, what is remembered, and what is not. No test reads a real clock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import calls, cli, dispatch, tuning
from fastconv.contract import cache, first_use
from fastconv.contract.problem import ConvProblem
from fastconv.contract.settings import config
from fastconv.tuning import Choice, Memory
from problem_matrix import problem

pytestmark = pytest.mark.program

OF = problem((16, 16), (14, 14), 3, padding=1)
X, WEIGHT = np.ones(OF.x_shape, np.float32), np.ones(OF.weight_shape, np.float32)


class Laboratory:
    """Kernels that compute nothing and a clock that they alone advance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.seconds: dict[str, float] = {}
        self.pack_seconds: dict[str, float] = {}
        self.runs: Counter[str] = Counter()

    def plan(self, spec: Any, of: ConvProblem, binding: Any) -> Any:
        name = spec.name

        def run(*_: Any) -> None:
            self.runs[name] += 1
            self.now += self.seconds.get(name, 1e-3)

        def pack(weight: np.ndarray) -> np.ndarray:
            self.now += self.pack_seconds.get(name, 0.0)
            return weight

        return SimpleNamespace(packing=name, pack=pack, run=run)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Laboratory:
    found = Laboratory(tmp_path / "tuned.json")
    monkeypatch.setattr(tuning, "_memory", Memory(found.path))
    monkeypatch.setattr(tuning, "_clock", lambda: found.now)
    for module in (dispatch, calls):
        monkeypatch.setattr(module, "plan_of", found.plan)
    monkeypatch.setattr(calls, "_prepared", {})
    monkeypatch.setattr(dispatch, "_chosen", {})
    return found


def by_cost(packed: bool = True) -> list[str]:
    """Names of the kernels that can run the problem, lowest predicted cost first."""
    able = [each for each in dispatch.list_candidates(OF, packed) if not each.reasons]
    return [each.spec.name for each in sorted(able, key=lambda each: each.seconds)]


def reasons(packed: bool = True) -> dict[str, str]:
    told = (
        fastconv.explain(OF) if packed else fastconv.explain(fastconv.conv2d, X, WEIGHT, padding=1)
    )
    return {row.kernel: "; ".join(row.reasons) for row in told.rows}


def forget(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Start as another process would: nothing in memory, the same file."""
    monkeypatch.setattr(tuning, "_memory", Memory(path))
    monkeypatch.setattr(calls, "_prepared", {})
    monkeypatch.setattr(dispatch, "_chosen", {})


def test_the_fastest_of_the_three_cheapest_is_chosen(lab: Laboratory) -> None:
    first, second, third, fourth, *_ = by_cost()
    lab.seconds = {first: 3e-3, second: 2.5e-3, third: 2e-3, fourth: 1e-6}
    layer = fastconv.Conv2d(WEIGHT, padding=1, tune=True)
    assert layer.prepare(X) == third
    assert dispatch.choose(OF).name == fastconv.explain(OF).chosen == third
    assert lab.runs[fourth] == 0
    told = reasons()
    assert told[third] == "tuned: measured 2 ms"
    assert (told[first], told[second]) == ("measured 3 ms", "measured 2.5 ms")
    assert "predicted" in told[fourth]


def test_without_tune_nothing_is_measured(lab: Laboratory) -> None:
    fastconv.conv2d(X, WEIGHT, padding=1)
    assert fastconv.Conv2d(WEIGHT, padding=1).prepare(X) == by_cost()[0]
    assert sum(lab.runs.values()) == 1 and not lab.path.exists()


def test_the_environment_tunes_every_call(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "tune", True)
    second = by_cost(packed=False)[1]
    lab.seconds = {second: 1e-4}
    fastconv.conv2d(X, WEIGHT, padding=1)
    assert dispatch.choose(OF, packed=False).name == second


@pytest.mark.parametrize(("value", "expected"), [(None, "False"), ("0", "False"), ("1", "True")])
def test_the_environment_is_read(value: str | None, expected: str) -> None:
    settings = {name: text for name, text in os.environ.items() if name != "FASTCONV_TUNE"}
    if value is not None:
        settings["FASTCONV_TUNE"] = value
    program = "from fastconv.contract.settings import config; print(config.tune)"
    child = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == expected


def test_a_functional_call_is_measured_with_its_packing(lab: Laboratory) -> None:
    first, second, third, *_ = by_cost(packed=False)
    lab.seconds = {first: 1e-3, second: 2e-3, third: 9e-3}
    lab.pack_seconds = {first: 5e-3, second: 1e-3}
    fastconv.conv2d(X, WEIGHT, padding=1, tune=True)
    assert dispatch.choose(OF, packed=False).name == second
    assert reasons(packed=False)[first] == "measured 6 ms"
    assert "tuned" not in " ".join(reasons(packed=True).values())


def test_a_problem_is_measured_once(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastconv.Conv2d(WEIGHT, padding=1, tune=True)
    layer(X)
    before = sum(lab.runs.values())
    layer(X)
    assert sum(lab.runs.values()) == before + 1
    forget(monkeypatch, lab.path)
    fastconv.Conv2d(WEIGHT, padding=1, tune=True)(X)
    assert sum(lab.runs.values()) == before + 2


def test_a_call_prepared_before_follows_the_choice(lab: Laboratory) -> None:
    layer = fastconv.Conv2d(WEIGHT, padding=1)
    first, second = by_cost()[:2]
    assert layer.prepare(X) == first
    lab.seconds = {second: 1e-4}
    fastconv.Conv2d(WEIGHT, padding=1, tune=True).prepare(X)
    assert layer.prepare(X) == second


def test_another_number_of_threads_or_precision_is_another_problem(lab: Laboratory) -> None:
    second = by_cost()[1]
    lab.seconds = {second: 1e-4}
    fastconv.Conv2d(WEIGHT, padding=1, tune=True).prepare(X)
    assert "tuned" in reasons()[second]
    before = fastconv.get_num_threads()
    fastconv.set_num_threads(before + 1)
    try:
        assert "tuned" not in " ".join(reasons().values())
    finally:
        fastconv.set_num_threads(before)
    with fastconv.precision("exact"):
        assert "tuned" not in " ".join(reasons().values())


@pytest.mark.parametrize("kernel", ["cpu.winograd_f4", "cpu.depthwise", "cpu.gone"])
def test_a_choice_that_may_not_run_is_passed_over(lab: Laboratory, kernel: str) -> None:
    with fastconv.precision("exact"):
        key = dispatch._choice_key(OF, True)
        tuning.memory().add(key, Choice(kernel, {kernel: 0.1}))
        assert dispatch.choose(OF).name == by_cost()[0] == fastconv.explain(OF).chosen
        assert dispatch.choose(OF).exact


def test_only_able_kernels_are_measured(lab: Laboratory) -> None:
    with fastconv.precision("exact"):
        fastconv.conv2d(X, WEIGHT, padding=1, tune=True)
    assert lab.runs and not [name for name in lab.runs if "winograd" in name]


def test_a_forced_kernel_is_not_measured(lab: Laboratory) -> None:
    with fastconv.use_kernel("cpu.im2col_gemm"):
        fastconv.conv2d(X, WEIGHT, padding=1, tune=True)
    assert lab.runs == {"cpu.im2col_gemm": 1}
    assert not lab.path.exists()


def test_a_hopeless_kernel_drops_out() -> None:
    now, runs = [0.0], Counter[str]()

    def taking(name: str, seconds: float) -> Any:
        def call() -> None:
            runs[name] += 1
            now[0] += seconds

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "_clock", lambda: now[0])
        choice = tuning.race({"slow": taking("slow", 9e-3), "quick": taking("quick", 1e-3)})
    assert choice == Choice("quick", pytest.approx({"slow": 9.0, "quick": 1.0}))
    assert runs["slow"] == 1 + tuning._TRIALS
    assert 10 < runs["quick"] <= 1 + tuning._TRIALS + tuning._BUDGET / 1e-3


def test_two_processes_keep_both_choices(tmp_path: Path) -> None:
    one, other = Memory(tmp_path / "tuned.json"), Memory(tmp_path / "tuned.json")
    assert one.get("a") is other.get("b") is None
    one.add("a", Choice("cpu.direct", {"cpu.direct": 1.5}))
    other.add("b", Choice("cpu.dilated", {"cpu.dilated": 2.5}))
    assert set(Memory(tmp_path / "tuned.json").all()) == set(other.all()) == {"a", "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]


DAMAGED = {
    "empty": b"",
    "half": b"{",
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "byte order mark": b"\xff\xfe",
    "utf-16": '{"a": 3}'.encode("utf-16"),
    "no choice": b'{"a": 3}',
    "no times": b'{"a": {"kernel": "x"}}',
    "time in words": b'{"a": {"kernel": "x", "milliseconds": {"x": "fast"}}}',
    "no time": b'{"a": {"kernel": "x", "milliseconds": {"x": NaN}}}',
    "endless time": b'{"a": {"kernel": "x", "milliseconds": {"x": 1e999}}}',
    "400 digits": b'{"a": {"kernel": "x", "milliseconds": {"x": %s}}}' % (b"9" * 400),
    "5000 digits": b'{"a": {"kernel": "x", "milliseconds": {"x": %s}}}' % (b"9" * 5000),
    "kernel without a name": b'{"a": {"kernel": {}, "milliseconds": {"x": 1}}}',
    "deep": b'{"a":' * 100_000,
    "deep list": b"[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_warning_and_is_written_anew(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_bytes(DAMAGED[name])
    path.chmod(0o600)
    memory = Memory(path)
    with pytest.warns(UserWarning, match=r"choices are lost: .*tuned\.json") as heard:
        assert memory.get("a") is None
    assert len(heard) == 1 and len(str(heard[0].message)) < 600
    memory.add("b", Choice("cpu.direct", {"cpu.direct": 1.5}))
    assert Memory(path).get("b") == Choice("cpu.direct", {"cpu.direct": 1.5})


def _folder(path: Path) -> None:
    path.mkdir()


def _huge(path: Path) -> None:
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)  # with a hole: it takes no room


def _link(path: Path) -> None:
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("plant", [_folder, _huge, _link, os.mkfifo])
def test_what_is_no_file_counts_as_an_empty_one(tmp_path: Path, plant: Any) -> None:
    path = tmp_path / "tuned.json"
    plant(path)
    memory = Memory(path)
    with pytest.warns(UserWarning, match="choices are lost"):
        assert memory.get("a") is None
    assert memory.get("a") is None  # and no second warning
    choice = Choice("cpu.direct", {"cpu.direct": 1.5})
    if plant is _folder:
        with pytest.warns(UserWarning, match=r"could not keep .*tuned\.json: Is a directory"):
            memory.add("b", choice)
        assert memory.get("b") == choice
        path.rmdir()
    memory.add("b", choice)
    assert Memory(path).get("b") == choice and not path.is_symlink()


def test_a_warning_that_is_an_error_is_raised_once(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_bytes(b"{")
    memory = Memory(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="choices are lost"):
            memory.get("a")
        assert memory.get("a") is None


def test_a_folder_that_is_gone_is_a_warning(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "gone" / "tuned.json")
    with pytest.warns(UserWarning, match="could not keep"):
        memory.add("a", Choice("cpu.direct", {}))
    assert memory.get("a") == Choice("cpu.direct", {})


CHILD = """
import sys
from fastconv import dispatch, tuning
from fastconv.contract.problem_line import parse_line

of = parse_line("ic16ih14oc16kh3ph1")[0]
if len(sys.argv) > 1:
    choice = tuning.Choice(sys.argv[1], {sys.argv[1]: 0.5})
    tuning.memory().add(dispatch._choice_key(of, True), choice)
print(dispatch.choose(of).name, tuning.memory().path)
"""


def test_processes_share_choices_of_the_same_sources_and_threads(tmp_path: Path) -> None:
    def run(*words: str, threads: int = 2) -> list[str]:
        settings = {"FASTCONV_CACHE_DIR": str(tmp_path), "FASTCONV_NUM_THREADS": str(threads)}
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *words],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        return child.stdout.split()

    usual, path = run()
    other = next(name for name in by_cost() if name != usual)
    assert run(other)[0] == other
    assert run()[0] == other
    assert run(threads=1)[0] != other or by_cost()[0] == other
    assert Path(path).parent == tmp_path / f"kernels-{cache.version_key()}"


def test_tuning_for_real_keeps_results_and_arguments(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 9, 32)).astype(np.float32)[..., ::2]
    weight = rng.standard_normal((4, 4, 3, 3)).astype(np.float32)
    kept, expected = x.copy(), fastconv.conv2d(x, weight, padding=1)
    results = [
        fastconv.conv2d(x, weight, padding=1, tune=True),
        fastconv.conv2d(x, weight, padding=1, tune=True, out=np.empty((2, 4, 32, 9), "f4")
                        .swapaxes(2, 3)[:, :, :, ::2]),
        fastconv.Conv2d(weight, padding=1, tune=True)(x),
    ]  # fmt: skip
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-4)
    np.testing.assert_array_equal(x, kept)
    fastconv.conv2d(x, weight, padding=1, tune=True, out=x)
    np.testing.assert_allclose(x, expected, atol=1e-4)


def test_threads_measure_one_after_the_other(lab: Laboratory) -> None:
    layer = fastconv.Conv2d(WEIGHT, padding=1, tune=True)
    threads = [threading.Thread(target=layer.prepare, args=(X,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = sum(lab.runs.values())
    lab.runs.clear()
    lab.path.unlink()
    tuning.memory().all().clear()
    dispatch._chosen.clear()
    calls._prepared.clear()
    layer.prepare(X)
    assert sum(lab.runs.values()) == alone


def ends(work: Any) -> None:
    """Run what could wait for itself for ever."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "hangs"


def test_a_call_in_the_midst_of_a_race_measures_nothing(lab: Laboratory) -> None:
    """As a signal handler or a finaliser makes it."""
    layer = fastconv.Conv2d(WEIGHT, padding=1, tune=True)
    other = np.ones((1, 16, 20, 20), np.float32)
    plan, nested = lab.plan, []

    def interrupted(spec: Any, of: ConvProblem, binding: Any) -> Any:
        made = plan(spec, of, binding)

        def run(*arrays: Any) -> None:
            made.run(*arrays)
            if not nested:
                nested.append("now")
                before = sum(lab.runs.values())
                nested[:] = [layer.prepare(X), layer.prepare(other), fastconv.explain(layer, X)]
                assert sum(lab.runs.values()) == before

        return SimpleNamespace(packing=made.packing, pack=made.pack, run=run)

    calls.plan_of = interrupted  # the fixture puts the real one back
    lab.seconds = {by_cost()[1]: 1e-4}
    ends(lambda: layer.prepare(X))
    assert nested[0] == by_cost()[0]
    assert layer.prepare(X) == by_cost()[1]
    measured = sum(lab.runs.values())
    layer.prepare(other)
    assert sum(lab.runs.values()) > measured


def test_a_call_in_the_midst_of_an_import_waits_for_no_race(lab: Laboratory) -> None:
    """The thread that races may wait for the import."""
    layer, held, done = fastconv.Conv2d(WEIGHT, padding=1, tune=True), threading.Event(), []

    def run_race() -> None:
        with tuning.lock:
            held.set()
            with first_use.lock:
                done.append("race")

    def call() -> None:
        with first_use.lock:
            threading.Thread(target=run_race, daemon=True).start()
            held.wait()
            layer.prepare(X)
            done.append("call")

    ends(call)
    assert done[0] == "call"
    assert not lab.runs
    layer.prepare(X)
    assert lab.runs


def test_the_command_tunes_a_line(lab: Laboratory, capsys: pytest.CaptureFixture[str]) -> None:
    second = by_cost()[1]
    lab.seconds = {second: 2e-4}
    assert cli.main(["tune", OF.line("row")]) == 0
    printed = capsys.readouterr().out
    assert second in printed and "0.200" in printed and "row" in printed
    assert dispatch.choose(OF).name == second
    assert cli.main(["tune", "no such suite"]) == 2
