"""A network's input, its true output, and the file that ONNX libraries read.

PyTorch in float64 computes what is true of its networks. ONNX's own are computed by ONNX Runtime,
or node by node where that is not installed: a row on which libraries differ shows those as wrong
that differ from it.
"""

from __future__ import annotations

import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from . import truth
from .network import NetworkRun
from .networks import ONNX_PREFIX, build

__all__ = ["arrays", "expected", "flops", "model_file", "setting", "write_model", "wrong"]

#: Largest accepted error, relative to the largest output: of a hundred layers in a row.
_TOLERANCE = 1e-4
_NEEDED = ("torch", "onnx")


def setting() -> str:
    """Return what the report says about the data, and what results are held against.

    Raises
    ------
    ModuleNotFoundError
        Where a package is missing that makes networks.
    """
    for module in _NEEDED:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"networks need the module {module}, which is not installed")
    runtime = "ONNX Runtime" if find_spec("onnxruntime") else "ONNX's operators node by node"
    return (
        f"random weights; right is what PyTorch computes in float64, of ONNX's networks what "
        f"{runtime} computes, within {_TOLERANCE:g} of the largest output"
    )


def arrays(run: NetworkRun) -> tuple[np.ndarray]:
    """Return the images: normal numbers from a seed that the line decides."""
    rng = np.random.default_rng(zlib.crc32(run.line().encode()))
    return (rng.standard_normal(run.x_shape, dtype=np.float32),)


def model_file(folder: Path) -> Path:
    """Return where a row's ONNX model lies, in the folder of its true output."""
    return folder / "model.onnx"


def write_model(run: NetworkRun, file: Path) -> None:
    """Write a row's network as an ONNX model for its batch.

    Raises
    ------
    Exception
        Of any kind, from ``torch.onnx.export`` where it cannot export a network.
    """
    if run.is_onnx:
        import onnx

        from .networks.light import light_logits

        onnx.save(light_logits(run.name.removeprefix(ONNX_PREFIX), 0, run.batch), file)
        return
    import torch

    with warnings.catch_warnings():
        # The exporter that this names instead needs onnxscript, and writes the same operators.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            build(run.name), (torch.zeros(run.x_shape),), str(file), dynamo=False,
            input_names=["x"], output_names=["y"],
        )  # fmt: skip


def expected(run: NetworkRun, x: np.ndarray, file: Path) -> np.ndarray:
    """Return the output, of PyTorch's networks in float64.

    Parameters
    ----------
    run : NetworkRun
        The row.
    x : ndarray
        The images.
    file : Path
        The row's ONNX model, of which alone ONNX's own networks are computed.
    """
    if run.is_onnx:
        return _by_onnx(x, file)
    import torch

    with torch.inference_mode():
        made: np.ndarray = build(run.name).double()(torch.from_numpy(x).double()).numpy()
    return made


def _by_onnx(x: np.ndarray, file: Path) -> np.ndarray:
    session: Any
    if find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    else:
        import onnx.reference

        import fastconv.onnx

        session = onnx.reference.ReferenceEvaluator(str(file), new_ops=fastconv.onnx.OPERATORS)
        name = session.input_names[0]
    made: np.ndarray = session.run(None, {name: x})[0]
    return made


def flops(run: NetworkRun) -> int:
    """Return 0: no rate is told of a network, since libraries leave out and fuse operators."""
    return 0


def wrong(run: NetworkRun, result: np.ndarray, true: np.ndarray) -> str | None:
    """Return the sentence that says why a result gets no figure, or None for a right one."""
    return truth.verdict(result, true, _TOLERANCE)
