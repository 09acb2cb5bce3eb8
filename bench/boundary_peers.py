"""Columns of rows with a boundary mode: fastconv's layers and functions, and other libraries."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastconv.contract.boundary_problem import BoundaryProblem

from .own import Fastconv, FastconvBest
from .peer import Call, Peer, Refusal
from .peers import OpenCV, SciPy, Torch, TorchChannelsLast, is_same, refuse_all_but_filters

__all__ = ["BOUNDARY_PEERS"]


def _arguments(problem: BoundaryProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    mode = problem.mode if problem.mode != "constant" else (problem.mode, problem.value)
    told = {"out_dtype": problem.out_dtype} if problem.out_dtype else {}
    return {name: getattr(problem, name) for name in names} | {"padding_mode": mode} | told


class BoundaryFastconv(Fastconv):
    """The `Conv1d`/`Conv2d`/`Conv3d` objects: weights packed once."""

    def prepare(self, problem: BoundaryProblem, *arrays: Any) -> Call:
        """Pack the weight; the call is ``layer(x)``."""
        import fastconv

        x, w = arrays
        layer = getattr(fastconv, f"Conv{problem.ndim}d")(w, None, **_arguments(problem))
        return lambda: layer(x)

    def able(self, problem: BoundaryProblem, *arrays: Any) -> list[str]:
        """Return the names of the kernels that can run the whole, copied with its boundary."""
        return super().able(problem.dense(problem.whole()))

    def kernel(self, problem: BoundaryProblem) -> str | None:
        """Return the dispatcher's choices for the parts."""
        from fastconv import explain

        return ", ".join(sorted({row.kernel for row in explain(problem).rows}))


class BoundaryFastconvFunctional(BoundaryFastconv):
    """``conv1d``/``conv2d``/``conv3d``."""

    name = "fastconv_functional"

    def prepare(self, problem: BoundaryProblem, *arrays: Any) -> Call:
        """Return ``conv2d(x, w, ...)`` or its 1-D or 3-D kin."""
        import fastconv

        x, w = arrays
        function = getattr(fastconv, f"conv{problem.ndim}d")
        arguments = _arguments(problem)
        return lambda: function(x, w, None, **arguments)


class BoundaryFastconvBest(FastconvBest, BoundaryFastconv):
    """The layers with the fastest of the kernels that can run the whole."""


class BoundaryTorch(Torch):
    """``torch.nn.functional.pad`` and ``conv*`` behind it, as ``torch.nn.Conv2d`` calls them."""

    def prepare(self, problem: Any, x: np.ndarray, w: np.ndarray) -> Call:
        """Return the two calls."""
        from torch.nn import functional

        if problem.mode == "symmetric":
            raise Refusal("PyTorch has no mode that repeats the samples at the borders")
        conv = getattr(functional, f"conv{problem.ndim}d")
        xt, wt = self._tensors(problem, x, w)
        sides = [side for pair in reversed(problem.padding) for side in pair]
        stride, dilation, groups = problem.stride, problem.dilation, problem.groups
        mode, value = problem.mode, problem.value if problem.mode == "constant" else None

        def call() -> Any:
            padded = functional.pad(xt, sides, mode, value)
            return conv(padded, wt, None, stride, 0, dilation, groups)

        return call


class BoundaryTorchChannelsLast(BoundaryTorch, TorchChannelsLast):
    """The same with input and weight in PyTorch's channels-last memory format."""


class BoundaryOpenCV(OpenCV):
    """``cv2.filter2D`` with a border of the same kind."""

    borders: ClassVar[dict[str, str]] = {
        "reflect": "BORDER_REFLECT_101", "symmetric": "BORDER_REFLECT",
        "replicate": "BORDER_REPLICATE",
    }  # fmt: skip

    def border(self, problem: Any) -> int:
        """Return OpenCV's number of the mode."""
        import cv2

        if problem.mode not in self.borders:
            raise Refusal(f"OpenCV's filter2D has no border for {problem.word}")
        number: int = getattr(cv2, self.borders[problem.mode])
        return number


class BoundarySciPy(SciPy):
    """``scipy.ndimage.correlate``, a channel at a time."""

    modes: ClassVar[dict[str, str]] = {
        "reflect": "mirror", "symmetric": "reflect", "replicate": "nearest", "circular": "wrap",
        "constant": "constant",
    }  # fmt: skip

    def prepare(self, problem: Any, x: np.ndarray, w: np.ndarray) -> Call:
        """Return one correlation a plane into a new output."""
        refuse_all_but_filters(problem, "SciPy")
        if not is_same(problem):
            raise Refusal("SciPy's correlate is called on odd kernels with 'same' padding only")
        from scipy import ndimage

        told = {"mode": self.modes[problem.mode], "cval": problem.value}

        def call() -> Any:
            out = np.empty_like(x)
            for n, c in np.ndindex(x.shape[:2]):
                ndimage.correlate(x[n, c], w[c, 0], output=out[n, c], **told)
            return out

        return call


BOUNDARY_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        BoundaryFastconv,
        BoundaryFastconvFunctional,
        BoundaryFastconvBest,
        BoundaryTorch,
        BoundaryTorchChannelsLast,
        BoundarySciPy,
        BoundaryOpenCV,
    )
}
