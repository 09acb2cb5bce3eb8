"""ONNX models on fastconv's kernels: for the reference evaluator, as a backend, as a session.

Names of ONNX are translated to fastconv's here, and nothing is computed. The package ``onnx`` is
imported when one of these is first used; ``pip install 'fastconv[onnx]'`` brings it.

``OPERATORS``
    Classes for ``onnx.reference.ReferenceEvaluator(model, new_ops=fastconv.onnx.OPERATORS)``.
``Backend``
    The interface of ``onnx.backend.base``, as ONNX's own tests call it.
``InferenceSession``
    A model ready to run, with the names of ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..contract import first_use

if TYPE_CHECKING:
    from .backend import Backend
    from .session import InferenceSession

    OPERATORS: list[Any]

__all__ = ["OPERATORS", "Backend", "InferenceSession"]

_HOME = {"Backend": "backend", "InferenceSession": "session"}


def __getattr__(name: str) -> Any:
    if name == "OPERATORS":
        value = first_use.load(f"{__name__}.operators").operator_classes()
    elif name in _HOME:
        value = getattr(first_use.load(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
