"""What normalisations cost: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.array_problem import ArrayProblem
from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.pointwise_problem import LocalResponseProblem, PReluProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec

__all__ = ["SPECS", "chunk_rows", "has_lone_pixels", "tasks"]

#: Operators by numbers of each channel.
Channelwise = NormProblem | PReluProblem

#: Cycles of a vector: to be scaled; to be summed in float64, which is twice as wide.
_SCALED, _SUMMED = 4.0, 8.0
#: Times an element that is not reached by a whole vector's load costs more.
_GATHERED = 100.0
#: Elements of a task.
_TASK_ELEMENTS = 1 << 14
#: Bytes of the pixels whose sums are taken together, channels in the lanes.
_CHUNK_BYTES = 1 << 15


def tasks(problem: ArrayProblem) -> int:
    """Return the tasks of a call, some thousand elements each."""
    return -(-math.prod(problem.x_shape) // _TASK_ELEMENTS)


def chunk_rows(problem: NormProblem) -> int:
    """Return the pixels whose sums are taken together where channels lie in the lanes."""
    return max(16, min(1024, _CHUNK_BYTES // (problem.channels * problem.itemsize)))


def has_lone_pixels(problem: Channelwise) -> bool:
    """Return whether channels are next to each other: there is one pixel, or they come last."""
    return problem.layout == "channels_last" or math.prod(problem.in_size) == 1


def _vectors(problem: ArrayProblem, device: DeviceInfo, along: int) -> float:
    """Return vectors of the input, whose runs of `along` elements may not fill their last one."""
    lanes = device.lanes(problem.compute_itemsize)
    return math.prod(problem.x_shape) / along * -(-along // lanes)


def _needs_given(problem: NormProblem, device: DeviceInfo) -> list[str]:
    given = problem.op == "batch_norm" and not problem.training
    return [] if given else ["its statistics are not given: they are taken from its input"]


def _needs_taken(problem: NormProblem, device: DeviceInfo) -> list[str]:
    given = problem.op == "batch_norm" and not problem.training
    return ["its statistics are given: it takes none from its input"] if given else []


def _nothing_against(problem: ArrayProblem, device: DeviceInfo) -> list[str]:
    return []


def _local_response(problem: LocalResponseProblem, device: DeviceInfo) -> float:
    vectors = math.prod(problem.x_shape) / device.lanes(problem.compute_itemsize)
    dense = problem.layout == "channels_first"
    cycles = (50.0 + 2.0 * problem.window) * vectors * (1 if dense else 2)
    return array_seconds(problem, device, cycles, tasks(problem))


def _pixels(problem: Channelwise, device: DeviceInfo) -> float:
    dense = problem.layout == "channels_first" and not has_lone_pixels(problem)
    cycles = _SCALED * _vectors(problem, device, math.prod(problem.in_size))
    return array_seconds(problem, device, cycles * (1 if dense else _GATHERED), tasks(problem))


def _channels(problem: Channelwise, device: DeviceInfo) -> float:
    dense = has_lone_pixels(problem)
    cycles = _SCALED * _vectors(problem, device, problem.channels)
    return array_seconds(problem, device, cycles * (1 if dense else _GATHERED), tasks(problem))


def _runs(problem: NormProblem, device: DeviceInfo) -> float:
    rows = problem.kind == "layer_norm"
    dense = problem.layout == "channels_first" and (rows or not has_lone_pixels(problem))
    vectors = _vectors(problem, device, math.prod(problem.in_size))
    cycles = (_SCALED + _SUMMED) * vectors * (1 if dense else _GATHERED)
    return array_seconds(problem, device, cycles, min(problem.statistics, tasks(problem)))


def _grad_runs(problem: NormProblem, device: DeviceInfo) -> float:
    return 2.0 * _runs(problem, device)


def _grad_columns(problem: NormProblem, device: DeviceInfo) -> float:
    return 2.0 * _columns(problem, device)


def _columns(problem: NormProblem, device: DeviceInfo) -> float:
    dense = has_lone_pixels(problem)
    vectors = _vectors(problem, device, problem.channels)
    cycles = (_SCALED + _SUMMED) * vectors * (1 if dense else _GATHERED)
    return 1e-5 + array_seconds(problem, device, cycles, tasks(problem))


SPECS = (
    array_spec("prelu_pixels", "norm.scale_pixels", "prelu", _nothing_against, _pixels),
    array_spec("prelu_channels", "norm.scale_channels", "prelu", _nothing_against, _channels),
    array_spec(
        "local_response_norm",
        "norm.local_response",
        "local_response_norm",
        _nothing_against,
        _local_response,
    ),
    array_spec("scale_pixels", "norm.scale_pixels", "batch_norm", _needs_given, _pixels),
    array_spec("scale_channels", "norm.scale_channels", "batch_norm", _needs_given, _channels),
    *(
        array_spec(f"{op}_runs", "norm.runs", op, _needs_taken, _runs)
        for op in ("batch_norm", "group_norm", "instance_norm", "layer_norm")
    ),
    *(
        array_spec(f"{op}_runs", "norm.grad_runs", op, _nothing_against, _grad_runs)
        for op in ("batch_norm_grad", "group_norm_grad", "layer_norm_grad")
    ),
    *(
        array_spec(f"{op}_columns", "norm.grad_columns", op, _nothing_against, _grad_columns)
        for op in ("batch_norm_grad", "group_norm_grad")
    ),
    *(
        array_spec(f"{op}_columns", "norm.columns", op, _needs_taken, _columns)
        for op in ("batch_norm", "group_norm", "instance_norm")
    ),
)
