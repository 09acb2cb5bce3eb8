"""What programs for ONNX Runtime say of where and how a model runs: checked, then set aside.

A session of fastconv's runs on the CPU. Programs name that device, others before it for machines
that have them, and settings of ONNX Runtime's memory and threads, which change no result.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..contract.errors import ArgumentError, DeviceError, DTypeError

__all__ = ["CPU", "check_provider_options", "check_providers", "check_session_options"]

#: What ONNX Runtime calls the CPU, and devices and libraries that it may know beside it.
CPU = "CPUExecutionProvider"
_ELSEWHERE = frozenset(
    f"{name}ExecutionProvider"
    for name in (
        "ACL", "ArmNN", "Azure", "CANN", "CUDA", "CoreML", "Dml", "Dnnl", "Js", "MIGraphX", "Nnapi",
        "NvTensorRTRTX", "OpenVINO", "QNN", "ROCM", "Rknpu", "SNPE", "Tensorrt", "Tvm", "VSINPU",
        "VitisAI", "WebGpu", "WebNN", "Xnnpack",
    )
)  # fmt: skip


def check_providers(providers: Any) -> None:
    """Raise where a model shall run on anything but the CPU; warn where it may, too.

    Parameters
    ----------
    providers : sequence of str or (str, dict), or None
        Names, the one to be tried first at the front, alone or with their options.

    Raises
    ------
    ArgumentError
        For names that ONNX Runtime does not know.
    DeviceError
        Where the CPU is not among them.
    DTypeError
        For what is no sequence of names.
    """
    if providers is None:
        return
    if isinstance(providers, (str, bytes)) or not isinstance(providers, Sequence):
        raise DTypeError(
            f"providers: got {providers!r}, want a list of names such as [{CPU!r}], or None"
        )
    names = [_name(each) for each in providers]
    for name in names:
        if name != CPU and name not in _ELSEWHERE:
            raise ArgumentError(
                f"providers: got {name!r}, want {CPU!r}, or before it another of ONNX Runtime's"
            )
    others = [name for name in names if name != CPU]
    if others and CPU not in names:
        raise DeviceError(
            f"providers: got {', '.join(others)} alone, want {CPU!r}, where fastconv.onnx runs"
        )
    if others:
        warnings.warn(
            f"providers: got {', '.join(others)} beside {CPU}: fastconv.onnx runs on the CPU",
            UserWarning,
            stacklevel=3,
        )


def _name(provider: Any) -> str:
    """Return the name of a provider, whose options, where they stand with it, are a mapping."""
    if isinstance(provider, str):
        return provider
    if isinstance(provider, (tuple, list)) and len(provider) == 2:
        name, options = provider
        if isinstance(name, str) and isinstance(options, Mapping):
            return name
    raise DTypeError(f"providers: got {provider!r}, want a name, or (name, dict of options)")


def check_provider_options(providers: Any, provider_options: Any) -> None:
    """Raise where options are not one mapping for each provider, or are given twice.

    Parameters
    ----------
    providers : sequence of str or (str, dict), or None
        As `check_providers` takes them.
    provider_options : sequence of dict, or None
        Their options.

    Raises
    ------
    ArgumentError
        For as many as there are no providers, and where providers have theirs with them.
    DTypeError
        For what is no sequence of mappings.
    """
    if provider_options is None:
        return
    is_list = isinstance(provider_options, Sequence) and not isinstance(provider_options, str)
    if not is_list or not all(isinstance(each, Mapping) for each in provider_options):
        raise DTypeError(
            f"provider_options: got {provider_options!r}, want a list of a dict for each provider"
        )
    names = providers or ()
    if len(provider_options) != len(names):
        raise ArgumentError(
            f"provider_options: got {len(provider_options)} with {len(names)} providers, want one "
            "for each"
        )
    if any(provider_options) and not all(isinstance(each, str) for each in names):
        raise ArgumentError(
            "provider_options: got some beside those in providers, want them in one place"
        )


def check_session_options(sess_options: Any) -> None:
    """Raise for what is not like ONNX Runtime's ``SessionOptions``; None stands for its defaults.

    Raises
    ------
    DTypeError
        For other objects.
    """
    if sess_options is not None and not hasattr(sess_options, "graph_optimization_level"):
        raise DTypeError(
            f"sess_options: got {type(sess_options).__name__}, want an object like "
            "onnxruntime.SessionOptions, or None"
        )
