"""Models as they are read: whole, checked, with no byte from outside of their folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..contract.errors import ArgumentError, DTypeError, FastconvError, ShapeError
from .node import library

__all__ = [
    "Model", "element_type", "failure", "initializers", "label", "one_sentence", "read_model",
]  # fmt: skip


class Model(NamedTuple):
    """A model without its initialisers, and these.

    Parameters
    ----------
    proto : ModelProto
        The rest; its graph has an input for each initialiser.
    held : dict of str to ndarray
        The initialisers.
    defaults : frozenset of str
        Those that are values of inputs which may be given, too.
    """

    proto: Any
    held: dict[str, Any]
    defaults: frozenset[str]


def read_model(source: Any) -> Model:
    """Return a model from a file's path or its bytes, with its external data, checked.

    Raises
    ------
    FastconvError
        Where it cannot be read, or is not valid; the message says why.
    """
    library()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _checked(_parsed(bytes(source), "bytes"), "bytes", None)
    if not isinstance(source, (str, os.PathLike)):
        raise DTypeError(
            f"path_or_bytes: got {type(source).__name__}, want a path or the bytes of a model"
        )
    path = os.fspath(source)
    if "\0" in os.fsdecode(path):
        raise ArgumentError(f"path_or_bytes: got {path!r}, want a path without a zero in it")
    return _checked(_parsed(_content(path), repr(path)), repr(path), path)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ArgumentError(f"path_or_bytes: got {path!r}: {error.strerror}") from None


def _parsed(content: bytes, shown: str) -> Any:
    model = library("onnx").ModelProto()
    try:
        model.ParseFromString(content)
    except library("google.protobuf.message").DecodeError:
        raise ArgumentError(
            f"path_or_bytes: got {shown} of {len(content)} bytes, want an ONNX model: it is cut "
            "off, or something else"
        ) from None
    if not model.graph.node and not model.graph.output:
        raise ArgumentError(f"path_or_bytes: got {shown} with no graph in it, want an ONNX model")
    return model


def _checked(model: Any, shown: str, path: str | None) -> Model:
    """Return a model that ONNX's checker takes, with its external data in it."""
    checker = library("onnx.checker")
    _check_version(model, shown)
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            _load(tensor, path)
    held = initializers(model.graph)
    try:
        outline = _outline(model)
        checker.check_model(outline)
    except (checker.ValidationError, ValueError) as error:
        raise ArgumentError(f"path_or_bytes: got {shown}: {one_sentence(error)}") from None
    if outline.functions:  # their nodes can be fused where they are called
        outline = library("onnx.inliner").inline_local_functions(outline)
    # Before version 4 of the format every initialiser had to be an input, too.
    named = {each.name for each in model.graph.input} if model.ir_version >= 4 else set()
    return Model(outline, held, frozenset(named.intersection(held)))


def _check_version(model: Any, shown: str) -> None:
    """Raise where a model is for operators that the installed ``onnx`` does not know yet."""
    newest = library("onnx.defs").onnx_opset_version()
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx") and each.version > newest:
            raise ArgumentError(
                f"path_or_bytes: got {shown} of operator set {each.version}, want at most "
                f"{newest}, the newest that the installed onnx knows"
            )


def initializers(graph: Any) -> dict[str, Any]:
    """Return a graph's initialisers as arrays."""
    held = {each.name: _array(each) for each in graph.initializer}
    return held | {each.values.name: _dense(each) for each in graph.sparse_initializer}


def _load(tensor: Any, path: str | None) -> None:
    """Read the data of a tensor from its file."""
    folder = _folder(tensor, path)
    try:
        library("onnx.external_data_helper").load_external_data_for_tensor(tensor, folder)
    except (library("onnx.checker").ValidationError, ValueError, OSError) as error:
        raise ArgumentError(f"tensor {tensor.name!r}: {one_sentence(error)}") from None
    tensor.data_location = tensor.DEFAULT
    del tensor.external_data[:]


def _outline(model: Any) -> Any:
    """Return a model whose initialisers are inputs, for a checker that takes 2 GB at most.

    It also wants a type of each output, which models need not tell to be run.
    """
    onnx, graph = library("onnx"), model.graph
    made = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        domain=model.domain,
        doc_string=model.doc_string,
        model_version=model.model_version,
        metadata_props=model.metadata_props,
    )
    made.opset_import.extend(
        onnx.helper.make_opsetid(each.domain, each.version) for each in model.opset_import
    )
    made.functions.extend(model.functions)
    made.graph.name = graph.name or "graph"  # the checker wants one
    made.graph.node.extend(graph.node)
    made.graph.input.extend(graph.input)
    known = {each.name for each in graph.input}
    held = [(each.name, each.data_type, each.dims) for each in graph.initializer]
    held += [(s.values.name, s.values.data_type, s.dims) for s in graph.sparse_initializer]
    made.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, element, list(dims))
        for name, element, dims in held
        if name not in known
    )
    made.graph.output.extend(graph.output)
    for output in made.graph.output:
        if not output.HasField("type"):
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    return made


def _folder(tensor: Any, path: str | None) -> str:
    """Return the model's folder; raise where a tensor lies in a file that is not in it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if path is None:
        raise ArgumentError(
            f"tensor {tensor.name!r}: got bytes of a model whose data is in {location!r}, want its "
            "path: bytes have no folder"
        )
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    place = os.path.realpath(os.path.join(folder, location))
    if not location or os.path.isabs(location) or os.path.commonpath([folder, place]) != folder:
        raise ArgumentError(
            f"tensor {tensor.name!r}: got data in {location!r}, want a file in the model's folder"
        )
    return folder


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model, those of its functions and of graphs within nodes too."""
    graphs, nodes = [model.graph], [node for each in model.functions for node in each.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def _array(tensor: Any) -> Any:
    """Return an initialiser as an array."""
    element_type(f"tensor {tensor.name!r}", tensor.data_type)
    try:
        return library("onnx.numpy_helper").to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"tensor {tensor.name!r}: {one_sentence(error)}") from None


def _dense(sparse: Any) -> Any:
    """Return a sparse initialiser as an array."""
    values, indices = _array(sparse.values), _array(sparse.indices)
    made = np.zeros(tuple(sparse.dims), values.dtype)
    where = indices if indices.ndim == 1 else None
    if where is not None:
        made.reshape(-1)[where] = values
    else:
        made[tuple(indices.T)] = values
    return made


def element_type(name: str, number: int) -> np.dtype[Any]:
    """Return the NumPy type of one of ONNX's numbers; `name` is whose, for the message."""
    try:
        return np.dtype(library("onnx.helper").tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError):
        raise ArgumentError(f"{name}: got element type {number}, want one of ONNX's") from None


def one_sentence(error: BaseException) -> str:
    """Return the first line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def label(proto: Any) -> str:
    """Return how messages call a node."""
    name = proto.name or next((each for each in proto.output if each), "")
    return f"node {name!r} ({proto.op_type})"


def failure(proto: Any, error: BaseException) -> FastconvError:
    """Return the error of a node, of the kind that it was where fastconv raised it."""
    known = (ShapeError, DTypeError, ArgumentError, FastconvError)
    kind = next((each for each in known if isinstance(error, each)), ArgumentError)
    while error.__cause__ is not None and not isinstance(error, FastconvError):
        error = error.__cause__
    return kind(f"{label(proto)}: {one_sentence(error)}")
