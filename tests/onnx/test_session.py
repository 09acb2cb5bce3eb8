"""Sessions: what is fused, folded and handed on gives what the nodes give one by one."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

import onnx_models
from fastconv.bench.networks.light import light
from fastconv.contract.errors import ArgumentError, DTypeError, FastconvError, ShapeError
from fastconv.onnx import InferenceSession, operators, session


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def compared(made: Any, fed: dict[str, Any]) -> InferenceSession:
    """A session whose outputs are those of ONNX's reference."""
    session = InferenceSession(made.SerializeToString())
    for own, wanted in zip(
        session.run(None, fed), ReferenceEvaluator(made).run(None, fed), strict=True
    ):
        assert own.dtype == wanted.dtype
        np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    return session


@pytest.mark.parametrize("module", [session, operators])
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_every_layer_of_a_network(name: str) -> None:
    made = light(name, seed=1)
    fed = onnx_models.feeds(made, seed=2)
    wanted = onnx_models.every_value(made, fed)
    session = InferenceSession(made.SerializeToString())
    values = session._constants | fed
    for step in session._steps:
        values.update(zip(step.outputs, step.run(values), strict=True))
        for each in step.outputs:
            difference = np.abs(values[each] - wanted[each]).max()
            assert difference <= 1e-4 * np.abs(wanted[each]).max(), (each, step.described())


def test_a_residual_block_is_one_step(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["c"]),
        make_node("Mul", ["c", "scale"], ["d"]),
        make_node("Mul", ["two", "d"], ["f"]),
        make_node("Add", ["f", "x"], ["e"]),
        make_node("Relu", ["e"], ["y"]),
    ]
    constants = weights(rng, w=(4, 4, 3, 3), g=(4,), b=(4,), m=(4,), scale=(1, 4, 1, 1))
    constants["two"] = np.array(2, np.float32)
    constants["v"] = rng.random(4, dtype=np.float32) + 0.5
    made = onnx_models.model(nodes, {"x": ["n", 4, "h", "w"]}, ["y"], constants)
    for size in (6, 9):
        fed = weights(rng, x=(2, 4, size, size))
        session = compared(made, fed)
    (step,) = session._steps
    assert step.described() == (
        "fastconv.Conv2d, BatchNormalization folded, Mul folded, Mul folded, residual, relu"
    )
    assert step.handed_on == ""


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_a_norm_takes_what_is_behind_it(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    nodes = [
        make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["a"]),
        make_node("Mul", ["a", "scale"], ["c"]),
        make_node("Add", ["c", "shift"], ["d"]),
        make_node("Relu", ["d"], ["y"]),
    ]
    constants = weights(rng, g=(3,), b=(3,), m=(3,), scale=shape, shift=shape)
    constants["v"] = rng.random(3, dtype=np.float32) + 0.5
    made = onnx_models.model(nodes, {"x": ["n", 3, "h", "w"]}, ["y"], constants)
    session = compared(made, weights(rng, x=(2, 3, 4, 5)))
    (step,) = session._steps
    assert step.described().endswith("Mul folded, Add folded, relu") and not step.handed_on


def test_a_norm_of_rows_is_computed_apart(rng: np.random.Generator) -> None:
    nodes = [
        make_node("BatchNormalization", ["x", "b", "b", "b", "v"], ["a"]),
        make_node("Relu", ["a"], ["y"]),
    ]
    constants = weights(rng, b=(3,)) | {"v": np.ones(3, np.float32)}
    made = onnx_models.model(nodes, {"x": ["n", 3]}, ["y"], constants)
    assert "handed on: the input has 2 axes" in compared(made, weights(rng, x=(2, 3))).explain()


def test_a_residual_that_is_broadcast_is_added_apart(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["a"]),
        make_node("Add", ["r", "a"], ["c"]),
        make_node("Tanh", ["c"], ["y"]),
    ]
    inputs = {"x": [1, 3, 5, 5], "r": [1, "c", 1, 1]}
    made = onnx_models.model(nodes, inputs, ["y"], weights(rng, w=(2, 3, 1, 1)))
    session = compared(made, weights(rng, x=(1, 3, 5, 5), r=(1, 2, 1, 1)))
    assert "residual: got shape" in session.explain()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([make_node("Relu", ["a"], ["y"])], "relu"),
        ([make_node("LeakyRelu", ["a"], ["y"], alpha=0.2)], "leaky_relu"),
        ([make_node("Elu", ["a"], ["y"])], "elu"),
        ([make_node("Clip", ["a", "zero", "six"], ["y"])], "relu6"),
        ([make_node("Clip", ["a", "zero"], ["y"])], "relu"),
        ([make_node("HardSwish", ["a"], ["y"])], "hardswish"),
        ([make_node("Sigmoid", ["a"], ["s"]), make_node("Mul", ["a", "s"], ["y"])], "silu"),
        (
            [
                make_node("HardSigmoid", ["a"], ["s"], alpha=1 / 6, beta=0.5),
                make_node("Mul", ["s", "a"], ["y"]),
            ],
            "hardswish",
        ),
        (
            [
                make_node("Add", ["a", "three"], ["d"]),
                make_node("Clip", ["d", "zero", "six"], ["e"]),
                make_node("Mul", ["a", "e"], ["f"]),
                make_node("Div", ["f", "six"], ["y"]),
            ],
            "hardswish",
        ),
        (
            [
                make_node("Div", ["a", "root"], ["d"]),
                make_node("Erf", ["d"], ["e"]),
                make_node("Add", ["e", "one"], ["f"]),
                make_node("Mul", ["a", "f"], ["g"]),
                make_node("Mul", ["g", "half"], ["y"]),
            ],
            "gelu",
        ),
    ],
)
def test_an_activation_is_part_of_its_layer(
    nodes: list[Any], told: str, rng: np.random.Generator
) -> None:
    numbers = {"zero": 0, "six": 6, "root": 2**0.5, "one": 1, "three": 3, "half": 0.5}
    constants = weights(rng, w=(3, 2, 4))
    constants |= {name: np.array(number, np.float32) for name, number in numbers.items()}
    first = make_node("ConvTranspose", ["x", "w"], ["a"], strides=[2])
    made = onnx_models.model([first, *nodes], {"x": [1, 3, "l"]}, ["y"], constants)
    session = compared(made, weights(rng, x=(1, 3, 7)))
    assert [step.described() for step in session._steps] == [f"fastconv.ConvTranspose1d, {told}"]


@pytest.mark.parametrize("gate", ["Tanh", "Sigmoid"])
def test_what_is_nearly_an_activation_is_not(gate: str, rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["a"]),
        make_node(gate, ["a"], ["s"]),
        make_node("Mul" if gate == "Tanh" else "Add", ["a", "s"], ["y"]),
    ]
    made = onnx_models.model(nodes, {"x": [1, 2, 5]}, ["y"], weights(rng, w=(2, 2, 2)))
    session = compared(made, weights(rng, x=(1, 2, 5)))
    told = [step.described() for step in session._steps]
    assert told == ["fastconv.Conv1d", "fastconv, element-wise, 2 nodes in one"]


def test_what_is_an_output_too_is_not_fused(rng: np.random.Generator) -> None:
    nodes = [make_node("Conv", ["x", "w"], ["a"]), make_node("Relu", ["a"], ["y"])]
    made = onnx_models.model(nodes, {"x": [1, 2, 5]}, ["y", "a"], weights(rng, w=(2, 2, 2)))
    assert len(compared(made, weights(rng, x=(1, 2, 5)))._steps) == 2


def test_products_take_factors_and_sums(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Gemm", ["x", "w", "b"], ["a"], alpha=0.5, beta=2.0),
        make_node("MatMul", ["a", "u"], ["c"]),
        make_node("Add", ["c", "d"], ["e"]),
        make_node("Sigmoid", ["e"], ["y"]),
    ]
    constants = weights(rng, w=(5, 4), b=(1, 4), u=(4, 3), d=(3,))
    made = onnx_models.model(nodes, {"x": ["n", 5]}, ["y"], constants)
    session = compared(made, weights(rng, x=(7, 5)))
    told = [step.described() for step in session._steps]
    assert told == ["fastconv.Linear", "fastconv.Linear, Add folded, sigmoid"]


def test_a_deformable_layer_is_packed(rng: np.random.Generator) -> None:
    names = ["x", "w", "offset", "b", "mask"]
    nodes = [
        make_node("DeformConv", names, ["a"], pads=[0, 0, 1, 1], kernel_shape=[2, 2]),
        make_node("Relu", ["a"], ["y"]),
    ]
    inputs = {"x": [1, 2, 4, 4], "offset": [1, 8, 4, 4], "mask": [1, 4, 4, 4]}
    constants = weights(rng, w=(3, 2, 2, 2), b=(3,))
    made = onnx_models.model(nodes, inputs, ["y"], constants, version=19)
    session = compared(made, weights(rng, x=(1, 2, 4, 4), offset=(1, 8, 4, 4), mask=(1, 4, 4, 4)))
    assert "fastconv.DeformConv2d, relu  cpu.deform_conv" in session.explain()


def test_constants_are_computed_once(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Add", ["p", "q"], ["w"]),
        make_node("Identity", ["x"], ["same"]),
        make_node("Conv", ["same", "w"], ["a"], auto_pad="SAME_UPPER", strides=[2]),
        make_node("Dropout", ["a"], ["y"]),
        make_node("RandomNormal", [], ["z"], shape=[2]),
    ]
    constants = weights(rng, p=(2, 2, 3), q=(2, 2, 3))
    made = onnx_models.model(nodes, {"x": [1, 2, "l"]}, ["y", "z"], constants)
    session = InferenceSession(made.SerializeToString())
    assert session.explain().startswith("1 nodes computed once; 3 steps")
    for size in (7, 8):
        fed = weights(rng, x=(1, 2, size))
        wanted = ReferenceEvaluator(made).run(["y"], fed)[0]
        np.testing.assert_allclose(session.run(["y"], fed)[0], wanted, atol=1e-5)
    first, second = (session.run(["z"], fed)[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_graphs_within_nodes_see_what_is_around_them(rng: np.random.Generator) -> None:
    branch = [
        onnx.helper.make_graph([make_node(kind, ["a"], ["r"])], kind, [],
                               [onnx.ValueInfoProto(name="r")])
        for kind in ("Relu", "Neg")
    ]  # fmt: skip
    nodes = [
        make_node("Conv", ["x", "w"], ["a"]),
        make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        make_node("Greater", ["sum", "zero"], ["c"]),
        make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    constants = weights(rng, w=(1, 1, 1)) | {"zero": np.zeros((), np.float32)}
    made = onnx_models.model(nodes, {"x": [1, 1, 4]}, ["y"], constants)
    for sign in (1, -1):
        compared(made, {"x": np.full((1, 1, 4), sign, np.float32)})


def test_nodes_of_a_function_are_fused_too(rng: np.random.Generator) -> None:
    body = [make_node("Conv", ["p", "q"], ["r"]), make_node("Relu", ["r"], ["s"])]
    opset = onnx.helper.make_opsetid("", 18)
    function = onnx.helper.make_function("com.example", "Block", ["p", "q"], ["s"], body, [opset])
    node = make_node("Block", ["x", "w"], ["y"], domain="com.example")
    made = onnx_models.model([node], {"x": [1, 2, 5]}, ["y"], weights(rng, w=(3, 2, 2)))
    made.functions.append(function)
    session = compared(made, weights(rng, x=(1, 2, 5)))
    assert [step.described() for step in session._steps] == ["fastconv.Conv1d, relu"]


def test_first_samples_that_stay_in_their_place(rng: np.random.Generator) -> None:
    kind = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    node = make_node("Resize", ["x", "", "s"], ["y"], **kind)
    constants = {"s": np.array([1, 1, 3, 2], np.float32)}
    made = onnx_models.model([node], {"x": [1, 2, "h", "w"]}, ["y"], constants)
    assert "handed on" not in compared(made, weights(rng, x=(1, 2, 3, 4))).explain()


def test_a_factor_that_changes_no_size_moves_samples(rng: np.random.Generator) -> None:
    node = make_node("Resize", ["x", "", "s"], ["y"], mode="linear")
    constants = {"s": np.array([1, 1, 1.3], np.float32)}
    made = onnx_models.model([node], {"x": [1, 1, 2]}, ["y"], constants)
    compared(made, weights(rng, x=(1, 1, 2)))


@pytest.mark.filterwarnings("ignore:invalid value")  # of ONNX's reference
def test_resizing_to_no_number_is_a_sentence() -> None:
    node = make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    constants = {"s": np.array([1, 1, np.inf], np.float32)}
    made = onnx_models.model([node], {"x": [1, 2, 5]}, ["y"], constants)
    session = InferenceSession(made.SerializeToString())
    with pytest.raises(FastconvError, match=r"node 'y' \(Resize\): "):
        session.run(None, {"x": np.zeros((1, 2, 5), np.float32)})


def test_outputs_are_the_callers(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Transpose", ["x"], ["y"]),
        make_node("Identity", ["w"], ["z"]),
    ]
    made = onnx_models.model(nodes, {"x": [2, 3]}, ["y", "z"], weights(rng, w=(2,)))
    session, fed = InferenceSession(made.SerializeToString()), weights(rng, x=(2, 3))
    first = session.run(None, fed)
    for each in first:
        each += 1
    for own, changed in zip(session.run(None, fed), first, strict=True):
        np.testing.assert_allclose(own + 1, changed)


def test_names_and_shapes_are_those_of_the_model(rng: np.random.Generator) -> None:
    node = make_node("Conv", ["x", "w"], ["y"])
    made = onnx_models.model([node], {"x": ["n", 2, 9]}, ["y"], weights(rng, w=(2, 2, 2)))
    session = InferenceSession(made.SerializeToString())
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.type, x.shape, y.name) == ("x", "tensor(float)", ["n", 2, 9], "y")


def test_a_negative_size_is_any(rng: np.random.Generator) -> None:
    node = make_node("Conv", ["x", "w"], ["y"])
    made = onnx_models.model([node], {"x": [-1, 2, -1]}, ["y"], weights(rng, w=(2, 2, 2)))
    for size in (4, 7):
        compared(made, weights(rng, x=(2, 2, size)))
    session = InferenceSession(made.SerializeToString())
    assert session.get_inputs()[0].shape == [None, 2, None]
    with pytest.raises(ShapeError, match=r"want \(any, 2, any\)"):
        session.run(None, weights(rng, x=(2, 3, 4)))


def test_what_a_file_says_of_its_model(rng: np.random.Generator) -> None:
    made = onnx_models.model([make_node("Relu", ["x"], ["y"])], {"x": [1]}, ["y"])
    session = InferenceSession(made.SerializeToString())
    told = session.get_modelmeta()
    assert (told.producer_name, told.version, told.custom_metadata_map) == ("", 0, {})
    made.producer_name, made.domain, made.doc_string = "a writer", "org.example", "Reads text."
    made.model_version, made.graph.name = 3, "reader"
    onnx.helper.set_model_props(made, {"character": "a\nb", "dictionary": "c"})
    session = InferenceSession(made.SerializeToString())
    assert session.get_modelmeta() == (
        "a writer", "reader", "org.example", "Reads text.", 3,
        {"character": "a\nb", "dictionary": "c"},
    )  # fmt: skip
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("names", "fed", "error", "message"),
    [
        (["q"], {"x": (1, 2, 9)}, ArgumentError, "output_names: got 'q', want ['y']"),
        (None, {}, ArgumentError, "input_feed: got no 'x', want ['x']"),
        (None, {"z": (1,)}, ArgumentError, "input_feed: got 'z', want ['x']"),
        (None, {"x": (1, 3, 9)}, ShapeError, "x: got shape (1, 3, 9), want (n, 2, any)"),
        (None, {"x": (1, 2)}, ShapeError, "x: got shape (1, 2), want (n, 2, any)"),
        (None, {"x": (1, 2, 1)}, FastconvError, "node 'y' (Conv): "),
    ],
)
def test_a_run_that_does_not_fit(names: Any, fed: Any, error: type, message: str) -> None:
    constants = {"w": np.ones((2, 2, 3), np.float32)}
    node = make_node("Conv", ["x", "w"], ["y"])
    made = onnx_models.model([node], {"x": ["n", 2, None]}, ["y"], constants)
    session = InferenceSession(made.SerializeToString())
    with pytest.raises(error) as caught:
        session.run(names, {name: np.zeros(shape, np.float32) for name, shape in fed.items()})
    assert str(caught.value).startswith(message)
    with pytest.raises(DTypeError, match="x: got float64, want float32"):
        session.run(None, {"x": np.zeros((1, 2, 9))})


def external(path: Path, location: str) -> Path:
    """A model beside which, at a place of the caller's choice, its weight is."""
    node = make_node("Conv", ["x", "w"], ["y"])
    made = onnx_models.model([node], {"x": [1, 2, 9]}, ["y"], {"w": np.ones((2, 2, 3), np.float32)})
    (tensor,) = made.graph.initializer
    (path / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    (path / "model.onnx").write_bytes(made.SerializeToString())
    return path / "model.onnx"


def test_external_data_lies_in_the_folder_of_the_model(tmp_path: Path) -> None:
    session = InferenceSession(external(tmp_path, "weights.bin"))
    made = session.run(None, {"x": np.ones((1, 2, 9), np.float32)})[0]
    assert np.array_equal(made, np.full((1, 2, 7), 6))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link.bin", ""])
def test_external_data_from_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"0" * 48)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ArgumentError, match=r"tensor 'w': got data in .* in the model's folder"):
        InferenceSession(external(folder, location))


def test_models_that_cannot_be_read(tmp_path: Path) -> None:
    node = make_node("Frobnicate", ["x"], ["y"], name="odd", domain="com.example")
    unknown = onnx_models.model([node], {"x": [1]}, ["y"]).SerializeToString()
    node = make_node("Conv", ["x"], ["y"])
    invalid = onnx_models.model([node], {"x": [1]}, ["y"]).SerializeToString()
    outside = external(tmp_path, "weights.bin").read_bytes()
    strange = onnx_models.model([node], {"x": [1]}, ["y"], {"w": np.ones(2, np.float32)})
    strange.graph.node[0].op_type = "Relu"
    strange.graph.initializer[0].data_type = 99
    for source, message in {
        b"": "no graph in it",
        b"not a model": "want an ONNX model",
        unknown[:-9]: "want an ONNX model",
        unknown: "node 'odd' \\(Frobnicate\\)",
        invalid: "Conv",
        outside: "bytes have no folder",
        strange.SerializeToString(): "tensor 'w': got element type 99",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            InferenceSession(source)
    with pytest.raises(ArgumentError, match="No such file"):
        InferenceSession(tmp_path / "missing.onnx")
    with pytest.raises(DTypeError, match="got int, want a path"):
        InferenceSession(3)  # type: ignore[arg-type]
