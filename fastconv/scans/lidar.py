"""A LiDAR sweep simulated by ray casting: a street of boxes on flat ground, seen by 64 lasers.

The lasers turn once around the vertical axis and take their ranges at even steps of azimuth. A
ray's return is the nearest surface that it meets; a box is met by the slab method (Kay and Kajiya
1986) in its own axes::

    for box:                              some 170
        azimuths that its corners span:   few of 2048, since most boxes are small or far
            64 rays each, at once:        enter and leave three pairs of planes, keep the nearest
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Boxes", "Rays", "cast", "street", "sweep"]

Array = npt.NDArray[np.float32]

_AZIMUTHS = 2048
#: Degrees of the 64 lasers, densest about the horizon, where far things are.
_ELEVATIONS = (*np.linspace(-25, -7, 16), *np.linspace(-6, 2, 36), *np.linspace(3, 14, 12))
_SENSOR_HEIGHT = 1.8  # metres above the ground, which is at z = 0
_MAX_RANGE = 75.0
_RANGE_NOISE = 0.02  # metres, one standard deviation
_GROUND_ALBEDO, _LANE_ALBEDO = 0.25, 0.9
_HALF_RANGE = 40.0  # metres at which a return has lost half of its intensity
_FAINTEST = 0.003  # the receiver's threshold: grazing returns from afar are lost


@dataclass(frozen=True, slots=True)
class Boxes:
    """Upright boxes, each turned about the vertical axis.

    Parameters
    ----------
    centre, half : ndarray of float32, shape (boxes, 3)
        Middle and half of the extents, metres.
    yaw : ndarray of float32, shape (boxes,)
        Radians, anticlockwise from above.
    albedo : ndarray of float32, shape (boxes,)
        Share of the light that comes back at normal incidence.
    """

    centre: Array
    half: Array
    yaw: Array
    albedo: Array


def sweep(seed: int = 0) -> Array:
    """Return a sweep over a street drawn from a seed.

    Returns
    -------
    ndarray of float32, shape (points, 4)
        ``x``, ``y``, ``z`` in metres, the ground at 0 and the sensor above the origin, and
        intensity from 0 to 1. About 100,000 points, the same for a seed wherever it runs.

    Examples
    --------
    >>> points = sweep()
    >>> points.shape[1], bool(np.hypot(*points[:, :2].T).max() < 76)
    (4, True)
    """
    random = np.random.default_rng(seed)
    return _returns(street(random), random)


def street(random: np.random.Generator) -> Boxes:
    """Return buildings, vehicles, trees, poles and people along a street and one that crosses it.

    The street runs along x, the other along y at x = 28.
    """
    rows = [
        *_buildings(random),
        *_vehicles(random),
        *_trees_and_poles(random),
        *_people(random),
    ]
    table = np.array(rows, np.float32)
    return Boxes(table[:, 0:3], table[:, 3:6], table[:, 6], table[:, 7])


#: Centre x, y, z; half extents x, y, z; yaw; albedo.
_Row = tuple[float, float, float, float, float, float, float, float]


def _buildings(random: np.random.Generator) -> list[_Row]:
    """Return two fronts along the street, with gaps, and a row behind the crossing's corners."""
    rows: list[_Row] = []
    for side in (-1, 1):
        x = -74.0
        while x < 74:
            width, depth = random.uniform(8, 18), random.uniform(8, 14)
            height, setback = random.uniform(5, 14), random.uniform(14, 24)
            middle = x + width / 2
            if abs(middle - 28) > 7 + width / 2:  # the crossing stays free
                y = side * (setback + depth / 2)
                albedo = random.uniform(0.3, 0.8)
                rows.append((middle, y, height / 2, width / 2, depth / 2, height / 2, 0.0, albedo))
            x += width + random.uniform(1.0, 14.0)
        for x in (17.0, 39.0):
            height = random.uniform(6, 10)
            y = side * random.uniform(46, 54)
            rows.append((x, y, height / 2, 4.5, 12.0, height / 2, 0.0, random.uniform(0.3, 0.8)))
    return rows


def _vehicles(random: np.random.Generator) -> list[_Row]:
    """Return parked and moving cars, each a body and a cabin, and a lorry."""
    places = [(x, side * 7.2, 0.0) for side in (-1, 1) for x in np.arange(-70.0, 75.0, 7.0)]
    places = [(x, y, yaw) for x, y, yaw in places if abs(x - 28) > 9 and random.random() < 0.5]
    places += [(13.0, -1.8, 0.0), (-17.0, 1.8, np.pi), (46.0, 1.9, np.pi), (26.2, 17.0, np.pi / 2)]
    rows: list[_Row] = []
    for x, y, yaw in places:
        yaw += random.normal(0, 0.03)
        x += random.normal(0, 0.5)
        albedo = random.uniform(0.2, 0.9)
        back = (x - 0.3 * np.cos(yaw), y - 0.3 * np.sin(yaw))
        rows.append((x, y, 0.6, 2.2, 0.9, 0.4, yaw, albedo))
        rows.append((*back, 1.2, 1.2, 0.8, 0.3, yaw, 0.15))  # glass
    rows.append((-34.0, -2.0, 1.9, 4.5, 1.25, 1.6, 0.0, 0.6))
    return rows


def _trees_and_poles(random: np.random.Generator) -> list[_Row]:
    """Return trunks with crowns of several boxes, and lamp posts, on both pavements."""
    rows: list[_Row] = []
    for side in (-1, 1):
        for x in np.arange(-66.0, 75.0, 12.0):
            if abs(x - 28) < 9:
                continue
            y = side * 9.6
            rows.append((x, y, 1.5, 0.15, 0.15, 1.5, 0.0, 0.3))
            for _ in range(3):
                dx, dy, dz = random.normal(0, (0.7, 0.5, 0.4))
                size = random.uniform(0.5, 1.0)
                yaw = random.uniform(0, np.pi / 2)
                rows.append((x + dx, y + dy, 3.8 + dz, size, size, size, yaw, 0.45))
            rows.append((x + 6.0, side * 9.2, 3.0, 0.08, 0.08, 3.0, 0.0, 0.7))
    return rows


def _people(random: np.random.Generator) -> list[_Row]:
    rows: list[_Row] = []
    for _ in range(14):
        x, side = random.uniform(-35, 35), random.choice([-1.0, 1.0])
        y = side * random.uniform(9.5, 12.0)
        rows.append((x, y, 0.88, 0.22, 0.28, 0.88, random.uniform(0, np.pi), 0.5))
    return rows


@dataclass(frozen=True, slots=True)
class Rays:
    """A turn of rays from one point, and the nearest surface that each has met so far.

    Arrays are of shape (azimuths, rings), so that the rays towards a box are few whole rows.

    Parameters
    ----------
    height : float
        Metres of the start above the ground.
    directions : ndarray of float32, shape (azimuths, rings, 3)
        Unit vectors; azimuths rise evenly from -pi.
    distance, cosine, albedo : ndarray of float32, shape (azimuths, rings)
        Metres, infinite where nothing is met; cosine of the angle to the surface's normal.
    """

    height: float
    directions: Array
    distance: Array
    cosine: Array
    albedo: Array


def cast(boxes: Boxes, height: float, elevations: npt.ArrayLike, azimuths: int) -> Rays:
    """Return what rays from above the origin meet first.

    Parameters
    ----------
    boxes : Boxes
        What stands on the ground; the rays start outside of every box.
    height : float
        Metres of the start above the ground.
    elevations : array_like of float, shape (rings,)
        Radians, one a ring.
    azimuths : int
        Rays of each ring.

    Returns
    -------
    Rays
        All that have met the ground, a box or nothing.
    """
    rays = _over_ground(height, np.asarray(elevations, np.float64), azimuths)
    for centre, half, yaw, albedo in zip(
        boxes.centre, boxes.half, boxes.yaw, boxes.albedo, strict=True
    ):
        c, s = np.cos(yaw), np.sin(yaw)
        axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)  # row vectors turn by it
        start = (np.array([0, 0, height], np.float32) - centre) @ axes
        corners = centre[:2] + (half[:2] * [[1, 1], [1, -1], [-1, -1], [-1, 1]]) @ axes[:2, :2].T
        _meet(rays, _spanned(corners, azimuths), start, axes, half, float(albedo))
    return rays


def _over_ground(height: float, elevations: npt.NDArray[np.float64], azimuths: int) -> Rays:
    """Return the rays over ground with a line of paint along the street."""
    azimuth = np.linspace(-np.pi, np.pi, azimuths, endpoint=False)[:, None]
    level = np.cos(elevations) * np.ones_like(azimuth)
    directions = np.stack(
        [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevations) + 0 * azimuth], -1
    ).astype(np.float32)
    down = -directions[..., 2]
    distance = np.full(down.shape, np.inf, np.float32)
    np.divide(height, down, out=distance, where=down > 0)
    across = np.where(down > 0, np.abs(directions[..., 1]) * np.minimum(distance, 1e6), np.inf)
    albedo = np.where(np.abs(across - 3.7) < 0.1, _LANE_ALBEDO, _GROUND_ALBEDO)
    return Rays(height, directions, distance, np.abs(down), albedo.astype(np.float32))


def _spanned(corners: Array, azimuths: int) -> npt.NDArray[np.intp]:
    """Return the numbers of the azimuths between the outermost of a box's corners."""
    seen = np.arctan2(corners[:, 1], corners[:, 0])
    around = seen[0] + (seen - seen[0] + np.pi) % (2 * np.pi) - np.pi  # a box may lie across -x
    first, last = (np.array([around.min(), around.max()]) + np.pi) / (2 * np.pi) * azimuths
    return np.arange(int(np.ceil(first)), int(np.floor(last)) + 1) % azimuths


def _meet(
    rays: Rays,
    columns: npt.NDArray[np.intp],
    start: Array,
    axes: Array,
    half: Array,
    albedo: float,
) -> None:
    """Keep a box as what the rays of some azimuths meet, where it is nearest."""
    steps = rays.directions[columns] @ axes
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-half - start) / steps, (half - start) / steps
    near, far = np.fmin(low, high), np.fmax(low, high)
    face, enter = near.argmax(-1), near.max(-1)
    row, ring = np.nonzero((enter < far.min(-1)) & (enter > 0) & (enter < rays.distance[columns]))
    at = (columns[row], ring)
    rays.distance[at] = enter[row, ring]
    rays.cosine[at] = np.abs(steps[row, ring, face[row, ring]])
    rays.albedo[at] = albedo


def _returns(boxes: Boxes, random: np.random.Generator) -> Array:
    """Return the points that the sensor reports."""
    rays = cast(boxes, _SENSOR_HEIGHT, np.radians(_ELEVATIONS), _AZIMUTHS)
    strength = rays.albedo * rays.cosine / (1 + (rays.distance / _HALF_RANGE) ** 2)
    strength *= random.uniform(0.8, 1.2, strength.shape)
    measured = rays.distance + random.normal(0, _RANGE_NOISE, strength.shape)
    seen = (measured < _MAX_RANGE) & (strength > _FAINTEST)
    points = rays.directions[seen] * measured[seen, None] + [0, 0, rays.height]
    return np.column_stack([points, np.clip(strength[seen], 0, 1)]).astype(np.float32)
