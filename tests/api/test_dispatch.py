"""Which kernel runs, why, and that nothing ever runs on the reference."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.errors import NoKernelError
from fastconv.contract.problem import ConvProblem
from fastconv.kernels import reference
from fastconv.trim import trim
from problem_matrix import matrix, problem

DENSE = problem((16, 16), (14, 14), 3, padding=1)
DEPTHWISE = problem((16, 16), (14, 14), 3, padding=1, groups=16)


def arrays(of: ConvProblem = DENSE) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(of.x_shape, of.dtype), np.ones(of.weight_shape, of.dtype)


def able_to_run(of: ConvProblem) -> list[str]:
    return [row.kernel for row in fastconv.explain(of).rows if row.milliseconds is not None]


def test_registry_names_are_unique_and_filtered() -> None:
    every = dispatch.kernels()
    names = [spec.name for spec in every]
    assert len(set(names)) == len(names)
    assert all(spec.name.startswith(f"{spec.device}.") for spec in every)
    assert not [name for name in names if "reference" in name]
    assert dispatch.kernels(op="conv", device="cpu") == [
        spec for spec in every if spec.op == "conv" and spec.device == "cpu"
    ]
    assert dispatch.kernels(op="no_such_operator") == []


def test_explain_lists_every_kernel_with_reasons_or_a_cost() -> None:
    for of in matrix()[::10]:
        explanation, (of, _) = fastconv.explain(of), trim(of)
        assert explanation.chosen == dispatch.choose(of).name
        specs = {spec.name: spec for spec in dispatch.kernels(op="conv", device="cpu")}
        assert {row.kernel for row in explanation.rows} == set(specs)
        for row in explanation.rows:
            spec = specs[row.kernel]
            assert row.chosen == (row.kernel == explanation.chosen)
            assert row.kernel in str(explanation)
            assert row.reasons  # also the chosen one says why
            for sentence in row.reasons:
                assert sentence in str(explanation)
            against = spec.reasons(of, cpu_info())
            assert set(against) <= set(row.reasons)
            if row.milliseconds is None:
                assert row.workspace is None and (against or of.dtype not in spec.tolerance)
            else:
                assert not against
                assert row.milliseconds == pytest.approx(1e3 * spec.cost(of, cpu_info()))
                assert row.milliseconds > 0
                assert row.workspace == spec.workspace(of, cpu_info()) >= 0


def test_the_cheapest_kernel_without_a_reason_against_it_is_chosen() -> None:
    for of in matrix():
        rows = fastconv.explain(of).rows
        times = [row.milliseconds for row in rows if row.milliseconds is not None]
        chosen = next(row for row in rows if row.chosen)
        assert chosen.milliseconds == min(times), of.line()


def test_explain_takes_a_problem_a_line_a_layer_or_a_call() -> None:
    x, weight = arrays()
    told = [
        fastconv.explain(DENSE),
        fastconv.explain(DENSE.line("name")),
        fastconv.explain(fastconv.Conv2d(weight, padding=1), x),
        fastconv.explain(fastconv.Conv2d(weight, padding=1), x[0]),
        fastconv.explain(fastconv.conv2d, x, weight, padding=1),
        fastconv.explain(fastconv.conv2d, x, weight, None, 1, 1, activation="relu"),
    ]
    assert {each.chosen for each in told[:4]} == {dispatch.choose(DENSE).name}
    assert {each.chosen for each in told[4:]} == {dispatch.choose(DENSE, packed=False).name}
    last = np.moveaxis(np.ones((1, 14, 14, 16), np.float32), -1, 1)
    assert fastconv.explain(fastconv.conv2d, last, weight, padding="same").chosen
    one = fastconv.explain(fastconv.conv1d, np.ones((4, 9)), np.ones((4, 1, 3)), groups=4)
    of = problem((4, 4), (9,), 3, groups=4, dtype="float64")
    assert one.chosen == dispatch.choose(of, packed=False).name


@pytest.mark.parametrize(
    ("channels", "told", "calls"), [(16, "packed in each call", 1), (512, "remembered", 10)]
)
def test_a_weight_that_calls_pack_costs_its_packing(channels: int, told: str, calls: int) -> None:
    weighty = problem((channels, channels), (7, 7), 3, padding=1)
    x, weight = arrays(weighty)
    once, each_call = (
        fastconv.explain(weighty),
        fastconv.explain(fastconv.conv2d, x, weight, padding=1),
    )
    assert (once.packed, each_call.packed) == (True, False)
    for before, after in zip(once.rows, each_call.rows, strict=True):
        if before.milliseconds is None:
            assert before.pack_milliseconds is after.pack_milliseconds is after.milliseconds is None
            continue
        assert before.pack_milliseconds == 0 <= after.pack_milliseconds
        assert after.milliseconds == pytest.approx(before.milliseconds + after.pack_milliseconds)
        spec = next(spec for spec in dispatch.kernels() if spec.name == before.kernel)
        packing = 1e3 * spec.pack_cost(weighty, dispatch.device_info(weighty)) / calls
        assert after.pack_milliseconds == pytest.approx(packing)
    assert each_call.chosen == dispatch.choose(weighty, packed=False).name
    assert "weight packed once" in str(once) and f"weight {told}" in str(each_call)


def test_explain_refuses_bad_arguments_as_the_call_does() -> None:
    x, weight = arrays()
    with pytest.raises(fastconv.ShapeError, match="stride"):
        fastconv.explain(fastconv.conv2d, x, weight, stride=0)
    with pytest.raises(fastconv.ShapeError):
        fastconv.explain("not a problem line")


def test_use_kernel_forces_nests_and_ends() -> None:
    usual = dispatch.choose(DENSE).name
    able = able_to_run(DENSE)
    assert len(able) >= 2
    for name in able:
        with fastconv.use_kernel(name):
            assert dispatch.choose(DENSE).name == name
            assert fastconv.explain(DENSE).chosen == name
            with fastconv.use_kernel(usual):
                assert dispatch.choose(DENSE).name == usual
            assert dispatch.choose(DENSE).name == name
    assert dispatch.choose(DENSE).name == usual
    with pytest.raises(RuntimeError, match="mine"), fastconv.use_kernel(able[-1]):
        raise RuntimeError("mine")
    assert dispatch.choose(DENSE).name == usual


def test_use_kernel_with_an_unknown_name_lists_the_known_ones() -> None:
    x, weight = arrays()
    with pytest.raises(NoKernelError) as caught, fastconv.use_kernel("cpu.magic"):
        fastconv.conv2d(x, weight)
    assert "cpu.magic" in str(caught.value)
    assert "cpu.im2col_gemm" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("winograd_f4", "cpu.winograd_f4 or cuda.winograd_f4"),
        ("cpu.winograd_4", "cpu.winograd_f4 "),
        ("sparse_weight_grad", "cpu.sparse_weight_grad or cuda.sparse_weight_grad"),
    ],
)
def test_use_kernel_with_a_name_that_is_nearly_one_says_which(name: str, meant: str) -> None:
    with pytest.raises(NoKernelError) as caught, fastconv.use_kernel(name):
        pass
    said = str(caught.value)
    assert said.startswith(f"kernel: got {name!r} (do you mean {meant}")
    assert ("sparse" in said) == ("sparse" in name)  # the others of that operator alone
    assert ("cpu.im2col_gemm" in said) == ("winograd" in name)


def test_use_kernel_on_what_it_cannot_run_gives_its_reasons_and_leaves_out_alone() -> None:
    x, weight = arrays()
    sentences = next(
        row.reasons for row in fastconv.explain(DENSE).rows if row.kernel == "cpu.depthwise"
    )
    assert sentences
    out = np.full(DENSE.out_shape, 5, np.float32)
    with fastconv.use_kernel("cpu.depthwise"), pytest.raises(NoKernelError) as caught:
        fastconv.conv2d(x, weight, padding=1, out=out)
    assert all(sentence in str(caught.value) for sentence in sentences)
    assert str(caught.value).startswith("the kernel that is forced does not run ")
    assert np.all(out == 5)


def test_a_layer_follows_use_kernel() -> None:
    x, weight = arrays(DEPTHWISE)
    layer = fastconv.Conv2d(weight, padding=1, groups=16)
    truth = layer(x)
    for name in able_to_run(DEPTHWISE):
        with fastconv.use_kernel(name):
            np.testing.assert_array_equal(layer(x), truth)
    dense = fastconv.Conv2d(arrays()[1], padding=1)
    dense(x)
    with fastconv.use_kernel("cpu.depthwise"), pytest.raises(NoKernelError):
        dense(x)
    dense(x)


def test_another_thread_does_not_see_use_kernel() -> None:
    usual, seen = dispatch.choose(DENSE).name, []
    other = next(name for name in able_to_run(DENSE) if name != usual)
    with fastconv.use_kernel(other):
        thread = threading.Thread(target=lambda: seen.append(dispatch.choose(DENSE).name))
        thread.start()
        thread.join()
    assert seen == [usual]


def test_a_copy_of_the_context_brings_settings_to_an_executor() -> None:
    usual = dispatch.choose(DENSE).name
    other = next(name for name in able_to_run(DENSE) if name != usual)
    barrier = threading.Barrier(2)

    def choose() -> str:
        barrier.wait()
        return dispatch.choose(DENSE).name

    with ThreadPoolExecutor(2) as executor, fastconv.use_kernel(other):
        told = [executor.submit(contextvars.copy_context().run, choose) for _ in range(2)]
        assert [future.result() for future in told] == [other] * 2
        untold = [executor.submit(choose) for _ in range(2)]
        assert [future.result() for future in untold] == [usual] * 2


def test_precision_exact_leaves_transformed_kernels_out() -> None:
    for of in matrix()[::5]:
        with fastconv.precision("exact"):
            assert dispatch.choose(of).exact
            for row in fastconv.explain(of).rows:
                spec = next(spec for spec in dispatch.kernels() if spec.name == row.kernel)
                assert spec.exact or row.reasons
    with fastconv.precision("fast"), fastconv.precision("exact"):
        assert dispatch.choose(DENSE).exact
    with pytest.raises(ValueError, match=r"exact.*fast|fast.*exact"), fastconv.precision("best"):
        pass


def test_nothing_runs_on_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the reference was called")

    monkeypatch.setattr(reference, "conv", never)
    for dtype in ("float32", "float64", "float16"):
        for of in (DENSE, DEPTHWISE, problem((3, 1), (9, 9), 5, dilation=2, stride=2)):
            x, weight = arrays(of.with_(dtype=dtype))
            fastconv.conv2d(x, weight, stride=of.stride, dilation=of.dilation, groups=of.groups)
    program = (
        "import sys, numpy as np, fastconv;"
        "fastconv.conv2d(np.ones((1, 3, 9, 9)), np.ones((2, 3, 3, 3)));"
        "sys.exit('fastconv.kernels.reference' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_environment_forces_a_kernel() -> None:
    program = (
        "from fastconv import dispatch; from fastconv.contract.problem_line import parse_line;"
        "print(dispatch.choose(parse_line('ic16ih14oc16kh3ph1')[0]).name)"
    )
    for name in able_to_run(DENSE):
        child = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "FASTCONV_KERNEL": name},
            capture_output=True,
            text=True,
            check=True,
        )
        assert child.stdout.strip() == name


def test_thread_count_is_checked() -> None:
    before = fastconv.get_num_threads()
    for wrong in (0, -1, 1.5, "2", None):
        with pytest.raises((ValueError, TypeError), match="threads"):
            fastconv.set_num_threads(wrong)  # type: ignore[arg-type]
    assert fastconv.get_num_threads() == before
