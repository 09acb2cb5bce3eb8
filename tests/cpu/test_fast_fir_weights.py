"""The transformed weights of fast FIR: those of its definition in float64, rounded once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.problem import ConvProblem
from fastconv.contract.settings import config
from fastconv.contract.spec import ConvPlan, DeviceInfo, dense_binding
from fastconv.kernels.cook_toom import matrices
from fastconv.kernels.cpu.fast_fir.costs import choose
from fastconv.kernels.cpu.fast_fir.plan import plan
from helpers import DTYPES
from problem_matrix import problem

PROBLEMS = {
    "image": problem((1, 1), (40, 45), 31, padding=15),
    "oblong": problem((3, 2), (64, 64), (11, 23), padding=5),
    "one phase high": problem((2, 3), (64, 64), (2, 40), padding=((1, 1), (20, 20))),
    "one phase wide": problem((2, 3), (64, 64), (9, 2), padding=((4, 4), (1, 1))),
    "signal": problem((2, 3), (5000,), 70, padding=35),
    "grouped signal": problem((96, 96), (300,), 128, padding=64, groups=8),
    "depthwise": problem((19, 19), (40, 40), 13, padding=6, groups=19),
    "halves": problem((2, 3), (64, 64), 13, padding=6, dtype="float16"),
    "doubles": problem((2, 3), (64, 64), 13, padding=6, dtype="float64"),
}


def plan_for(of: ConvProblem, weight: np.ndarray) -> ConvPlan:
    """A plan for the weight's own strides and the threads in force."""
    device = dispatch.device_info(of)
    assert isinstance(device, DeviceInfo)
    return plan(of, dataclasses.replace(dense_binding(of), weight_strides=weight.strides), device)


def transformed(of: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """U[K, e1, e2, C, kh, kw] in float64, as the kernel's docstring defines it."""
    s = choose(of, dispatch.device_info(of))[1]
    first, second = (np.array(matrices(m, m)[1], np.float64) for m in (s.m1, s.m2))
    filters, channels = weight.shape[:2]
    height, width = (1, *weight.shape)[-2:] if of.ndim == 2 else (weight.shape[2], 1)
    phases_h, phases_w = (s.m1 * s.m2, 1) if s.fold else (s.m2, s.m1)
    taps = np.zeros((filters, channels, s.taps_h * phases_h, s.taps_w * phases_w))
    taps[:, :, :height, :width] = weight.reshape(filters, channels, height, width)
    phases = taps.reshape(filters, channels, s.taps_h, s.m2, s.taps_w, s.m1)
    return np.einsum("ap,bq,kciqjp->kabcij", first, second, phases).ravel()


@pytest.mark.parametrize("order", ["dense", "strided"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_weights_are_rounded_once(
    name: str, order: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "poison_workspace", True)
    of = PROBLEMS[name]
    weight = rng.standard_normal(of.weight_shape).astype(DTYPES[of.dtype])
    if order == "strided":
        weight = np.ascontiguousarray(weight.swapaxes(0, -1)).swapaxes(0, -1)
    packed, truth = plan_for(of, weight).pack(weight), transformed(of, weight)
    assert packed.shape == truth.shape
    # Half a unit in the last place of each, beside float64's own error of the largest.
    unit = np.finfo(packed.dtype).eps / 2
    error = np.abs(packed - truth)
    assert np.all(error <= unit * np.abs(truth) + 1e-14 * np.abs(truth).max())


@pytest.mark.parametrize("name", ["depthwise", "grouped signal", "oblong"])
def test_any_number_of_threads_packs_alike(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = PROBLEMS[name]
    weight = rng.standard_normal(of.weight_shape).astype(DTYPES[of.dtype])
    made = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(config, "num_threads", threads)
        made.append(plan_for(of, weight).pack(weight))
    assert all(np.array_equal(made[0], each) for each in made[1:])
