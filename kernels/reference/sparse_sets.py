"""The truth about sparse tensors that are joined: plain NumPy in float64, sites in a dictionary.

Nothing here is ever dispatched to. A tensor is the list of its sites and the features there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["add", "concat", "multiply", "subtract", "values"]

Values = dict[tuple[int, ...], NDArray[np.float64]]


def values(sites: ArrayLike, features: ArrayLike) -> Values:
    """Return the features by site."""
    rows = np.asarray(features, np.float64)
    return {tuple(site): row for site, row in zip(np.asarray(sites).tolist(), rows, strict=True)}


def add(x: Values, y: Values) -> Values:
    """Return the sum at the sites that either has."""
    nothing = np.zeros_like(_any(x))
    return {site: x.get(site, nothing) + y.get(site, nothing) for site in {**x, **y}}


def subtract(x: Values, y: Values) -> Values:
    """Return the difference at the sites that either has."""
    return add(x, {site: -row for site, row in y.items()})


def multiply(x: Values, y: Values) -> Values:
    """Return the product at the sites that both have."""
    return {site: row * y[site] for site, row in x.items() if site in y}


def concat(x: Values, y: Values) -> Values:
    """Return the features of both, one behind the other, at the sites that either has."""
    nothing = np.zeros_like(_any(x)), np.zeros_like(_any(y))
    return {
        site: np.concatenate([x.get(site, nothing[0]), y.get(site, nothing[1])])
        for site in {**x, **y}
    }


def _any(x: Values) -> NDArray[np.float64]:
    """Return the features of some site."""
    return next(iter(x.values()))
