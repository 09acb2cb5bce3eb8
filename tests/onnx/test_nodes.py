"""ONNX's own tests of the operators that fastconv has: in its evaluator, and by the backend."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import pytest

import fastconv
from fastconv.contract.errors import DeviceError, FastconvError
from fastconv.onnx import operators
from fastconv.onnx.node import Refusal

onnx = pytest.importorskip("onnx")

#: Modules of cases, one an operator.
MODULES = (
    "averagepool",
    "batch_normalization",
    "col2im",
    "conv",
    "convtranspose",
    "deformconv",
    "depthtospace",
    "gemm",
    "globalaveragepool",
    "globalmaxpool",
    "instance_normalization",
    "layernormalization",
    "logsoftmax",
    "lppool",
    "lrn",
    "matmul",
    "maxpool",
    "maxunpool",
    "prelu",
    "resize",
    "softmax",
    "spacetodepth",
    "upsample",
)

#: Cases that ONNX's reference computes, by a part of their names, and why fastconv does not.
HANDED_ON = {
    "_uint8": "fastconv pools floating point",
    "lppool_2d_dilations": "a norm has no dilation",
    "gemm_default_matrix_bias": "what is added differs from row to row",
    "gemm_alpha": "a product has no factors",
    "gemm_beta": "a product has no factors",
    "gemm_all_attributes": "a product has no factors",
    "matmul_1d": "not rows by one matrix",
    "matmul_3d": "not rows by one matrix",
    "matmul_4d": "not rows by one matrix",
    "matmul_bcast": "not rows by one matrix",
    "training_mode": "updated variances are unbiased",
    "layer_normalization": "the mean and the deviation are outputs, too",
    "exclude_outside": "a cubic has neighbours beyond the border",
    "crop_and_resize": "no places outside of the input",
    "antialias": "no antialias",
    "not_larger": "no sizes but those given",
    "not_smaller": "no sizes but those given",
    "linear_half_pixel_symmetric": "places of a size that is no whole number",
    "scales_linear_align_corners": "places of a size that is no whole number",
    "downsample_scales_cubic_align_corners": "places of a size that is no whole number",
    "cubic_asymmetric": "cubics have centres or corners aligned",
    "linear_pytorch_half_pixel": "one sample is the middle of an axis",
    "downsample_sizes_nearest": "other samples are the nearest",
    "nearest_floor_align_corners": "other samples are the nearest",
    "nearest_round_prefer_ceil_asymmetric": "other samples are the nearest",
    "nearest_ceil_half_pixel": "other samples are the nearest",
    "prelu_example": "a slope an element",
    "prelu_broadcast": "a slope a column",
}
#: Where a part of a name says too much: computed by fastconv.
OWN = ("upsample_scales_linear_align_corners",)


def cases(module: str) -> list[Any]:
    """ONNX's cases of an operator; those of its definition by others are not ours."""
    node = import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(f"{node.__name__}.{module}")  # which computes what is expected
    kind = module.replace("_", "")
    named = [case for case in node._NodeTestCases if "_expanded" not in case.name]
    return [case for case in named if case.model.graph.node[0].op_type.lower() == kind]


@pytest.mark.filterwarnings("ignore")  # of ONNX's reference, which pads whole numbers with NaN
@pytest.mark.parametrize("module", MODULES)
def test_the_cases_of_an_operator(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    own = operators.translate

    def watch(*given: Any) -> Any:
        try:
            return own(*given)
        except (Refusal, FastconvError) as error:
            refused.append(str(error))
            raise

    monkeypatch.setattr(operators, "translate", watch)
    found = cases(module)
    assert found
    for case in found:
        refused.clear()
        check(case)
        parts = [part for part in HANDED_ON if part in case.name]
        handed_on = bool(parts) and not case.name.endswith(OWN)
        assert bool(refused) == handed_on, (case.name, refused)


def check(case: Any) -> None:
    """Compare the evaluator with fastconv's operators, and the backend, with what is expected."""
    runner = import_module("onnx.backend.test.runner")
    classes = fastconv.onnx.OPERATORS
    evaluator = import_module("onnx.reference").ReferenceEvaluator(case.model, new_ops=classes)
    prepared = fastconv.onnx.Backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        given = [runner._normalize_tensor(each) for each in inputs]
        wanted = [runner._normalize_tensor(each) for each in outputs]
        made = evaluator.run(None, dict(zip(evaluator.input_names, given, strict=True)))
        runner.Runner.assert_similar_outputs(wanted, made, case.rtol, case.atol, case.name)
        made = prepared.run(given)
        runner.Runner.assert_similar_outputs(wanted, made, case.rtol, case.atol, case.name)


def test_the_backend_runs_on_the_cpu_alone() -> None:
    assert fastconv.onnx.Backend.supports_device("CPU")
    assert not fastconv.onnx.Backend.supports_device("CUDA")
    with pytest.raises(DeviceError, match="device: got 'CUDA'"):
        fastconv.onnx.Backend.prepare(None, "CUDA")
