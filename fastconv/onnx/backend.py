"""The interface by which ONNX's own tests call an implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..contract.errors import DeviceError
from .session import InferenceSession

__all__ = ["Backend", "Prepared"]


class Prepared:
    """A model that can be run again and again."""

    def __init__(self, model: Any) -> None:
        self._session = InferenceSession(model.SerializeToString())

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        """Return the outputs for inputs in the model's order."""
        names = [each.name for each in self._session.get_inputs()]
        return tuple(self._session.run(None, dict(zip(names, inputs, strict=True))))


class Backend:
    """The methods of ``onnx.backend.base.Backend``, for the CPU."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **_: Any) -> bool:
        """Tell whether a model can run: what ONNX's reference runs can."""
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **_: Any) -> Prepared:
        """Return a model ready to run.

        Raises
        ------
        DeviceError
            For another device than the CPU.
        FastconvError
            For a model that is not valid, or has operators that nobody knows.
        """
        if not cls.supports_device(device):
            raise DeviceError(f"device: got {device!r}, want 'CPU'")
        return Prepared(model)

    @classmethod
    def run_model(
        cls, model: Any, inputs: Sequence[Any], device: str = "CPU", **_: Any
    ) -> tuple[Any, ...]:
        """Return the outputs of a model that is run once."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Tell whether models can run there: on the CPU alone."""
        return device.partition(":")[0] == "CPU"
