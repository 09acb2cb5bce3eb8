"""A model ready to run, with the names of ONNX Runtime."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from ..arrays import is_masked
from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..contract.settings import config
from ..dispatch import settings
from .fusion import plan_program
from .graph import Graph
from .job_list import JobList, key_of
from .model import element_type, read_model
from .program import Program, own
from .providers import CPU, check_provider_options, check_providers, check_session_options

__all__ = ["InferenceSession", "ModelMetadata", "NodeArg"]

#: What ONNX Runtime calls element types that have another name in NumPy.
_TYPES = {"float32": "float", "float64": "double", "object": "string", "str": "string"}


#: Kinds of inputs whose lists of jobs are kept; the oldest goes.
_MOST_LISTS = 8


class NodeArg(NamedTuple):
    """An input or output of a model.

    Parameters
    ----------
    name : str
        Its name.
    type : str
        As ONNX Runtime writes it, such as ``"tensor(float)"``.
    shape : list of int, str or None
        Sizes; names of those that a run decides, or None where they have no name.
    """

    name: str
    type: str
    shape: list[Any]


class ModelMetadata(NamedTuple):
    """What a model's file says of the model.

    Parameters
    ----------
    producer_name, graph_name, domain, description : str
        Of the program that wrote it, and of the model; "" where the file does not tell.
    version : int
        The model's version.
    custom_metadata_map : dict of str to str
        What else was put into the file, such as the characters that a model reads.
    """

    producer_name: str
    graph_name: str
    domain: str
    description: str
    version: int
    custom_metadata_map: dict[str, str]


class _Wanted(NamedTuple):
    """What an input must be: element type and shape, each None where the model does not tell."""

    dtype: np.dtype[Any] | None
    shape: list[Any] | None


class InferenceSession:
    """An ONNX model on fastconv's kernels, with the names of ONNX Runtime.

    Constants are computed once and weights packed once; batch norms, sums and activations behind
    convolutions and matrix products become part of them, and other element-wise nodes that lead to
    one value are computed in one pass. Nodes that fastconv has no operator for
    run on ONNX's reference implementation, in NumPy, which may be slow: `explain` tells which.

    Parameters
    ----------
    path_or_bytes : str, path or bytes
        A file, whose external data must lie in its folder, or what such a file holds.
    sess_options : object, optional
        One like ``onnxruntime.SessionOptions``. Nothing in it is used: models are optimised as
        told above, and `fastconv.set_num_threads` says how many threads run them.
    providers : sequence of str or (str, dict), optional
        Where the model may run, as ONNX Runtime calls it: ``"CPUExecutionProvider"``, and any other
        of ONNX Runtime's beside it, with a warning.
    provider_options : sequence of dict, optional
        One for each provider. Nothing in them is used: those of the CPU are of its memory.

    Raises
    ------
    DeviceError
        For providers without the CPU among them.
    ArgumentError, DTypeError
        For providers that ONNX Runtime does not know, and options that are none.
    FastconvError
        For a model that cannot be read, is not valid, or has operators that neither fastconv nor
        the reference knows; the message says which node.

    Examples
    --------
    >>> import numpy as np, onnx, fastconv.onnx
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 18]>
    ...     scores (float[n, 3, 8, 8] x) => (float[n, 3, 1, 1] y) {
    ...         z = Relu(x)
    ...         y = GlobalAveragePool(z)
    ...     }''')
    >>> session = fastconv.onnx.InferenceSession(model.SerializeToString())
    >>> session.get_inputs()[0].name, session.get_inputs()[0].shape
    ('x', ['n', 3, 8, 8])
    >>> session.run(None, {"x": np.ones((2, 3, 8, 8), np.float32)})[0].shape
    (2, 3, 1, 1)
    """

    def __init__(
        self,
        path_or_bytes: str | PathLike[str] | bytes,
        sess_options: Any = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        check_session_options(sess_options)
        check_providers(providers)
        check_provider_options(providers, provider_options)
        model = read_model(path_or_bytes)
        graph = Graph(model)
        self._metadata = _metadata(model.proto)
        self._inputs = {each.name: each for each in graph.inputs}
        self._outputs = {each.name: each for each in graph.outputs}
        self._wanted = {name: _wanted(each) for name, each in self._inputs.items()}
        self._program = plan_program(graph)
        self._steps, self._constants = self._program.steps, self._program.constants
        self._defaults = graph.defaults
        #: Lists of jobs by what they are made for; None for what has run once.
        self._job_lists: dict[Any, JobList | None] = {}

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs that a run must be given."""
        return [
            _argument(each) for each in self._inputs.values() if each.name not in self._defaults
        ]

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs of the model."""
        return [_argument(each) for each in self._outputs.values()]

    def get_modelmeta(self) -> ModelMetadata:
        """Return what the model's file says of it."""
        return self._metadata

    def get_providers(self) -> list[str]:
        """Return what ONNX Runtime calls that on which models run: the CPU."""
        return [CPU]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Run the model.

        Parameters
        ----------
        output_names : sequence of str or None
            Outputs to return; all of them where it is None.
        input_feed : mapping of str to ndarray
            The inputs, by name.

        Returns
        -------
        list of ndarray
            The outputs, in the order of their names.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            For names that the model does not have, and inputs that do not fit.
        """
        if isinstance(output_names, (str, bytes)) or not isinstance(output_names or (), Iterable):
            raise ArgumentError(f"output_names: got {output_names!r}, want None or a list of names")
        names = list(self._outputs) if output_names is None else list(output_names)
        for name in names:
            if name not in self._outputs:
                raise ArgumentError(f"output_names: got {name!r}, want {list(self._outputs)}")
        values = self._values(input_feed)
        made = self._run_jobs(values, names)
        if made is not None:
            return made
        for place in range(len(self._steps)):
            self._program.advance(place, values)
        return [own(values[name]) for name in names]

    def _run_jobs(self, values: dict[str, Any], names: list[str]) -> list[Any] | None:
        """Return outputs by the jobs for such inputs; None where there is none yet.

        It is made when inputs of one kind come for the second time.
        """
        feed = {name: values[name] for name in self._inputs if name in values}
        fits = key_of(feed)
        if fits is None or config.tune:
            return None
        key = fits, settings()
        if key not in self._job_lists:
            while len(self._job_lists) >= _MOST_LISTS:
                self._job_lists.pop(next(iter(self._job_lists)), None)
            self._job_lists[key] = None
            return None
        jobs = self._job_lists.get(key)
        if jobs is None:
            jobs = JobList(self._program, self._defaults, feed)
            self._job_lists[key] = jobs
        return jobs.run(feed, names)

    def profile(self, input_feed: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Run the model and return what each step is and how many milliseconds it took."""
        values, taken = self._values(input_feed), []
        for place, step in enumerate(self._steps):
            start = time.perf_counter()
            self._program.advance(place, values)
            milliseconds = (time.perf_counter() - start) * 1e3
            taken.append((f"{step.name}: {step.described()}", milliseconds))
        return taken

    def _values(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that are known when a run begins, by name."""
        return self._constants | self._defaults | self._checked(feed)

    def _checked(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a run, checked against what the model says of them."""
        if not isinstance(feed, Mapping):
            raise DTypeError(f"input_feed: got {type(feed).__name__}, want inputs by name")
        for name in feed:
            if name not in self._inputs:
                raise ArgumentError(f"input_feed: got {name!r}, want {list(self._inputs)}")
        for name in self._inputs:
            if name not in feed and name not in self._defaults:
                raise ArgumentError(f"input_feed: got no {name!r}, want {list(self._inputs)}")
        for name, value in feed.items():
            _check_input(name, value, self._wanted[name])
        return {
            name: np.asarray(value) if isinstance(value, np.generic) else value
            for name, value in feed.items()
        }

    def explain(self) -> str:
        """Return a table of the steps: what computes each, and why what fastconv does not.

        After a run it also names the kernels of layers, and tells which nodes turned out not to be
        fastconv's, by their shapes or element types. After two runs with inputs of equal shapes it
        tells the jobs that later ones run.
        """
        steps = self._program.every_step()
        operators = Counter(step.described().partition(",")[0] for step in steps)
        counted = ", ".join(f"{number} {name}" for name, number in operators.most_common())
        rows = list(_rows(self._program, ""))
        wide = [max((len(row[place]) for row in rows), default=0) for place in range(4)]
        lines = [f"{self._program.folded} nodes computed once; {len(steps)} steps: {counted}"]
        for row in rows:
            padded = (f"{cell:<{width}}" for cell, width in zip(row, wide, strict=False))
            lines.append("  ".join(("", *padded, row[4])).rstrip())
        lines += [str(jobs) for jobs in self._job_lists.values() if jobs is not None]
        return "\n".join(lines)


def _rows(program: Program, margin: str) -> Iterator[tuple[str, ...]]:
    """Rows of a table of steps, those of programs within them too."""
    for step in program.steps:
        kinds = "+".join(proto.op_type for proto in step.protos)
        handed_on = f"handed on: {step.handed_on}" if step.handed_on else ""
        yield margin + step.name, kinds, step.described(), step.kernel, handed_on
        for word, inner in step.programs.items():
            yield f"{margin}  {word}", "", "", "", ""
            yield from _rows(inner, f"{margin}    ")


def _metadata(proto: Any) -> ModelMetadata:
    """Return what a model says of itself."""
    return ModelMetadata(
        producer_name=proto.producer_name,
        graph_name=proto.graph.name,
        domain=proto.domain,
        description=proto.doc_string,
        version=proto.model_version,
        custom_metadata_map={each.key: each.value for each in proto.metadata_props},
    )


def _wanted(info: Any) -> _Wanted:
    """Return what the model says of an input."""
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type") or not tensor.elem_type:
        return _Wanted(None, None)
    dtype = element_type(f"value {info.name!r}", tensor.elem_type)
    return _Wanted(dtype, _sizes(tensor) if tensor.HasField("shape") else None)


def _sizes(tensor: Any) -> list[Any]:
    """Return the sizes of a shape; a negative one, as some exporters write, is any."""
    return [
        each.dim_value
        if each.HasField("dim_value") and each.dim_value >= 0
        else (each.dim_param or None)
        for each in tensor.shape.dim
    ]


def _argument(info: Any) -> NodeArg:
    dtype, shape = _wanted(info)
    name = "" if dtype is None else _TYPES.get(dtype.name, dtype.name)
    return NodeArg(info.name, f"tensor({name})", shape or [])


def _check_input(name: str, value: Any, wanted: _Wanted) -> None:
    """Raise where an input has another element type or other sizes than the model says."""
    if wanted.dtype is None:
        return
    if not isinstance(value, (np.ndarray, np.generic)) or is_masked(value):
        raise DTypeError(f"{name}: got {type(value).__name__}, want a NumPy array")
    if value.dtype != wanted.dtype and wanted.dtype.kind not in "OU":
        raise DTypeError(f"{name}: got {value.dtype}, want {wanted.dtype}")
    if wanted.shape is None:
        return
    fits = len(wanted.shape) == value.ndim and all(
        not isinstance(size, int) or size == own
        for size, own in zip(wanted.shape, value.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if size is None else str(size) for size in wanted.shape)
        raise ShapeError(f"{name}: got shape {value.shape}, want ({shown})")
