"""PyTorch's tensors on the CPU: arrays over the same memory on the way in, tensors on the way out.

Public functions are opened to tensors once, where the package hands them out: what lies behind
sees NumPy's arrays alone. Nothing is copied either way, and PyTorch is never imported: where it is
not loaded there are no tensors.

Gradients are not recorded on this way, so a tensor that wants one is refused: `fastconv.torch` has
the same operators with gradients. Tensors on a GPU go on as they are, to `array_libraries`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .arrays import dtype_of
from .contract.errors import ArgumentError, DeviceError, DTypeError

__all__ = ["array_of", "compute_tensors", "holds_tensors", "open_to_tensors", "tensor_of"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: What `open_to_tensors` has made, by the function: one for each, whichever thread asks first.
_opened: dict[Any, Any] = {}


def open_to_tensors(function: Function) -> Function:
    """Return a public function that takes CPU tensors where it takes arrays, and returns them.

    Parameters
    ----------
    function : callable
        One of arrays; a call whose first argument is a NumPy array goes straight to it.
    """

    @functools.wraps(function)
    def opened(*args: Any, **kwargs: Any) -> Any:
        if args and type(args[0]) is np.ndarray:
            return function(*args, **kwargs)
        # None, too, while another thread imports PyTorch: there are no tensors yet.
        compiler = getattr(sys.modules.get("torch"), "compiler", None)
        if compiler is None:
            return function(*args, **kwargs)
        if compiler.is_compiling():
            # torch.compile goes on behind this call: it would read all of fastconv, and NumPy.
            return compiler.disable(compute_tensors)(function, args, kwargs)
        return compute_tensors(function, args, kwargs)

    # Where a pickle finds it again; the inner function has the name of its own module.
    opened.__module__, _, _ = function.__module__.partition(".")
    if function.__module__.startswith("fastconv.grad."):
        opened.__module__ = "fastconv.grad"
    made: Function = _opened.setdefault(function, opened)
    return made


def compute_tensors(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    recorded: bool = True,
) -> Any:
    """Call a function of arrays with tensors, and return tensors.

    A call without a CPU tensor, or with one on a GPU, is made as it stands.

    Parameters
    ----------
    function : callable
        One of arrays.
    args, kwargs : tuple and dict
        Its arguments.
    recorded : bool
        Whether gradients may be recorded, so that a tensor that requires one is refused.

    Raises
    ------
    DeviceError, DTypeError
        For tensors whose memory NumPy cannot see, NumPy arrays among tensors, and tensors that
        require gradients while these are recorded.
    """
    call = _Call(function, args, kwargs, recorded)
    given = [call.replaced(value) for value in args]
    words = {key: call.replaced(value) for key, value in kwargs.items()}
    if call.elsewhere or not call.owners:
        return function(*args, **kwargs)
    if call.arrays:
        name = call.name_of(call.arrays[0])
        raise DeviceError(
            f"{name}: got a NumPy array, want a PyTorch tensor as its companions are "
            f"(torch.from_numpy({name}) is one over the same memory)"
        )
    return call.returned(function(*given, **words))


#: Types of arguments that hold no tensor.
_WORDS = frozenset((int, float, bool, str, type(None)))


class _Call:
    """A call whose tensors become arrays."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        recorded: bool,
    ) -> None:
        self._call = function, args, kwargs
        self._recorded = recorded
        self._tensor: Any = getattr(sys.modules.get("torch"), "Tensor", ())
        self._made: dict[int, Any] = {}
        #: Tensors by the arrays over their memory, NumPy's own arrays, and whether one is on a GPU.
        self.owners: dict[int, Any] = {}
        self.arrays: list[Any] = []
        self.elsewhere = False

    def replaced(self, value: Any) -> Any:
        """Return an argument with arrays in the place of tensors, PyTorch's sizes as plain ones."""
        if type(value) in _WORDS:
            return value
        if isinstance(value, (tuple, list)):
            entries = [self.replaced(each) for each in value]
            return entries if isinstance(value, list) else tuple(entries)
        if isinstance(value, self._tensor):
            return self._array(value)
        if isinstance(value, np.ndarray):
            self.arrays.append(value)
        return value

    def _array(self, tensor: Any) -> Any:
        if tensor.is_cuda:
            self.elsewhere = True
            return tensor
        array = self._made.get(id(tensor))
        if array is None:
            array = self._made[id(tensor)] = array_of(self, tensor, self._recorded)
            self.owners[id(array)] = tensor
        return array

    def returned(self, result: Any) -> Any:
        """Return a result with tensors in the place of arrays: the caller's own where it is one."""
        if isinstance(result, tuple):
            return tuple(map(self.returned, result))
        if not isinstance(result, np.ndarray):
            return result
        owner = self.owners.get(id(result))
        return tensor_of(result) if owner is None else owner

    def name_of(self, value: Any) -> str:
        """Return the name of the argument that is, or holds, a value."""
        function, args, kwargs = self._call
        try:
            bound = inspect.signature(function).bind(*args, **kwargs).arguments
        except TypeError:  # not a call of this function: the first one's name will do
            bound = kwargs
        return next((name for name, each in bound.items() if _holds(each, value)), "input")


def _holds(argument: Any, value: Any) -> bool:
    if isinstance(argument, (tuple, list)):
        return any(_holds(each, value) for each in argument)
    return argument is value


def holds_tensors(*values: Any) -> bool:
    """Tell whether the first of the arrays of a call is a tensor on the CPU."""
    first: Any = next((value for value in values if value is not None), None)
    return _is_tensor(first) and not first.is_cuda


def _is_tensor(value: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def array_of(name: str | _Call, tensor: Any, recorded: bool = True) -> Any:
    """Return an array over the memory of a tensor on the CPU.

    Parameters
    ----------
    name : str
        Of the argument, for errors.
    tensor : torch.Tensor
        Of any strides; bfloat16 becomes that of ml_dtypes.
    recorded : bool
        Whether gradients may be recorded, so that a tensor that requires one is refused.

    Raises
    ------
    DeviceError
        For a tensor elsewhere, or without memory that NumPy could see.
    DTypeError
        For one that requires gradients, and element types that NumPy does not have.
    """
    torch = sys.modules["torch"]
    if tensor.requires_grad:
        if recorded and torch.is_grad_enabled():
            raise DTypeError(
                f"{_name(name, tensor)}: got a tensor that requires gradients, which are not "
                "recorded here, want the function of the same name in fastconv.torch, whose are, "
                "or tensor.detach(), or torch.no_grad() around the call"
            )
        tensor = tensor.detach()
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise DeviceError(
            f"{_name(name, tensor)}: got a {_kind(torch, tensor)} tensor on {tensor.device}, want "
            "a dense one (torch.strided) on the CPU"
        )
    try:
        if tensor.dtype is torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(_bfloat16(name, tensor))
        return tensor.numpy()
    except TypeError as error:
        raise DTypeError(
            f"{_name(name, tensor)}: got a tensor of {tensor.dtype}, want a type that NumPy has "
            f"too ({error})"
        ) from None
    except RuntimeError as error:
        raise DeviceError(
            f"{_name(name, tensor)}: got a {type(tensor).__name__} whose memory cannot be seen, "
            f"want a plain tensor on the CPU ({error})"
        ) from None


def _name(name: str | _Call, tensor: Any) -> str:
    return name if isinstance(name, str) else name.name_of(tensor)


def _kind(torch: Any, tensor: Any) -> str:
    return "dense" if tensor.layout is torch.strided else str(tensor.layout).removeprefix("torch.")


def _bfloat16(name: str | _Call, tensor: Any) -> np.dtype[Any]:
    dtype = dtype_of("bfloat16")
    if dtype.name != "bfloat16":
        raise DTypeError(
            f"{_name(name, tensor)}: got a tensor of bfloat16, which NumPy has with ml_dtypes "
            "alone: pip install ml_dtypes"
        )
    return dtype


def tensor_of(array: Any) -> Any:
    """Return a tensor over the memory of an array that a function has made."""
    torch = sys.modules["torch"]
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if not array.flags.writeable:
        raise ArgumentError("out: got a read-only array, want a writable one")
    return torch.from_numpy(array)
