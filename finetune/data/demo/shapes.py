"""The outlines of the things that the demo's images show: a few polygons each, proportions drawn at random.

A thing is a list of parts in painting order. A part is a level (CUT: a hole, BODY, DETAIL: painted in a second
colour) and a closed polygon, float (N, 2), in a box from -1 to 1, y pointing down.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Part = tuple[int, Points]
Shape = Callable[[np.random.Generator], list[Part]]

CUT, BODY, DETAIL = 0, 1, 2


def poly(*corners: tuple[float, float]) -> Points:
    """Return the polygon with these corners."""
    return np.array(corners, dtype=np.float64)


def sided(*half: tuple[float, float]) -> Points:
    """Return the polygon whose right half has these corners, top to bottom, and whose left half mirrors it."""
    right = np.array(half, dtype=np.float64)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def oval(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    """Return an ellipse, or the segment of one between two angles in degrees (0 is right, 90 is down)."""
    angle = np.radians(np.linspace(start, stop, 28))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def smooth(corners: Points) -> Points:
    """Return the polygon with its corners rounded: Chaikin's corner cutting (1974), three times."""
    for _ in range(3):
        following = np.roll(corners, -1, axis=0)
        quarter, half = 0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following
        corners = np.stack([quarter, half], axis=1).reshape(-1, 2)
    return corners


def stroke(line: ArrayLike, width: float, end: float | None = None) -> Points:
    """Return a band along a line, float (N, 2), as wide as `width`, or narrowing from there to `end`."""
    points = np.asarray(line, dtype=np.float64)
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] * [-1, 1] / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    half = np.linspace(width, width if end is None else end, len(points))[:, None] / 2
    return np.concatenate([points + across * half, (points - across * half)[::-1]])


def turned(points: Points, degrees: float) -> Points:
    """Return the points turned about the origin, clockwise as y points down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    result: Points = points @ np.array([[cos, sin], [-sin, cos]])
    return result


# --- the target task: the ten classes that the demo fine-tunes on ---------------------------------------------------


def butterfly(rng: np.random.Generator) -> list[Part]:
    top, low = rng.uniform(0.75, 0.95), rng.uniform(0.45, 0.65)
    parts: list[Part] = []
    for side in (-1, 1):
        parts.append((BODY, smooth(poly((0, -0.1), (side * 0.5, -top), (side, -top), (side * 0.95, -0.1), (0, 0.15)))))
        parts.append((BODY, smooth(poly((0, 0), (side * 0.9, 0.05), (side * low, 0.95), (side * 0.2, 0.75)))))
        parts.append((DETAIL, oval(side * 0.62, -0.45, 0.15, 0.17)))
        parts.append((BODY, stroke([(0, -0.5), (side * 0.1, -0.75), (side * 0.3, -0.95)], 0.07)))
    return [*parts, (DETAIL, oval(0, 0, 0.1, 0.6))]


def cactus(rng: np.random.Generator) -> list[Part]:
    left, right = rng.uniform(-0.35, 0.05, 2)
    wide = rng.uniform(0.36, 0.5)
    return [
        (BODY, np.concatenate([oval(0, -0.7, wide / 2, 0.25, 180, 360), poly((wide / 2, 0.5), (-wide / 2, 0.5))])),
        (BODY, stroke([(0, left + 0.3), (-0.3, left + 0.3), (-0.5, left + 0.15), (-0.55, left - 0.35)], 0.26)),
        (BODY, stroke([(0, right + 0.35), (0.3, right + 0.35), (0.5, right + 0.2), (0.55, right - 0.2)], 0.26)),
        (DETAIL, poly((-0.5, 0.4), (0.5, 0.4), (0.36, 0.98), (-0.36, 0.98))),
    ]


def fish(rng: np.random.Generator) -> list[Part]:
    fat, fork = rng.uniform(0.36, 0.52), rng.uniform(0.35, 0.55)
    return [
        (BODY, poly((0.35, 0), (0.98, -fork), (0.8, 0), (0.98, fork))),
        (BODY, poly((-0.3, -fat * 0.7), (0.1, -fat - 0.32), (0.35, -fat * 0.5))),
        (BODY, oval(-0.22, 0, 0.74, fat)),
        (DETAIL, stroke([(-0.1, -fat * 0.85), (-0.02, 0), (-0.1, fat * 0.85)], 0.14)),
        (DETAIL, oval(-0.62, -0.12, 0.08, 0.08)),
    ]


def key(rng: np.random.Generator) -> list[Part]:
    ring, teeth = rng.uniform(0.32, 0.42), rng.uniform(0.25, 0.4, 2)
    return [
        (BODY, oval(-0.58, 0, ring, ring)),
        (CUT, oval(-0.62, 0, ring * 0.5, ring * 0.5)),
        (BODY, poly((-0.3, -0.1), (0.98, -0.1), (0.98, 0.1), (-0.3, 0.1))),
        (BODY, poly((0.76, 0), (0.96, 0), (0.96, 0.1 + teeth[0]), (0.76, 0.1 + teeth[0]))),
        (BODY, poly((0.4, 0), (0.6, 0), (0.6, 0.1 + teeth[1]), (0.4, 0.1 + teeth[1]))),
        (DETAIL, poly((-0.22, -0.17), (-0.1, -0.17), (-0.1, 0.17), (-0.22, 0.17))),
    ]


def mug(rng: np.random.Generator) -> list[Part]:
    foot, band = rng.uniform(0.42, 0.6), rng.uniform(-0.2, 0.3)
    return [
        (BODY, oval(0.52, 0, 0.42, 0.46)),
        (CUT, oval(0.52, 0, 0.24, 0.28)),
        (BODY, poly((-0.78, -0.75), (0.5, -0.75), (foot - 0.14, 0.8), (-foot - 0.14, 0.8))),
        (DETAIL, poly((-0.7, band), (0.42, band), (0.4, band + 0.22), (-0.68, band + 0.22))),
    ]


def mushroom(rng: np.random.Generator) -> list[Part]:
    tall, stem = rng.uniform(0.75, 1.0), rng.uniform(0.17, 0.28)
    return [
        (BODY, poly((-stem, -0.1), (stem, -0.1), (stem + 0.1, 0.95), (-stem - 0.1, 0.95))),
        (BODY, oval(0, 0.05, 0.92, tall, 180, 360)),
        *((DETAIL, oval(x, y * tall, 0.13, 0.12)) for x, y in ((-0.5, -0.3), (0.02, -0.62), (0.48, -0.25))),
    ]


def rocket(rng: np.random.Generator) -> list[Part]:
    wide, fin = rng.uniform(0.24, 0.34), rng.uniform(0.5, 0.7)
    return [
        (DETAIL, sided((0.01, 0.98), (0.16, 0.5))),
        (BODY, sided((wide * 0.7, 0.1), (fin, 0.5), (fin, 0.8), (wide * 0.6, 0.55))),
        (BODY, smooth(sided((0.02, -1.05), (wide, -0.6), (wide + 0.05, 0.1), (wide * 0.7, 0.65)))),
        (DETAIL, oval(0, -0.3, 0.15, 0.15)),
    ]


def sailboat(rng: np.random.Generator) -> list[Part]:
    mast, sail = rng.uniform(-0.2, 0.1), rng.uniform(0.55, 0.75)
    return [
        (BODY, poly((-0.9, 0.42), (0.9, 0.42), (0.55, 0.88), (-0.6, 0.88))),
        (BODY, poly((mast - 0.04, -0.98), (mast + 0.04, -0.98), (mast + 0.04, 0.45), (mast - 0.04, 0.45))),
        (DETAIL, poly((mast + 0.08, -0.9), (mast + sail, 0.3), (mast + 0.08, 0.3))),
        (BODY, poly((mast - 0.1, -0.65), (mast - 0.1, 0.3), (mast - sail * 0.8, 0.3))),
    ]


def teapot(rng: np.random.Generator) -> list[Part]:
    fat, spout = rng.uniform(0.5, 0.6), rng.uniform(-0.5, -0.25)
    return [
        (BODY, oval(0.55, 0.1, 0.4, 0.4)),
        (CUT, oval(0.55, 0.1, 0.24, 0.24)),
        (BODY, stroke([(-0.35, 0.35), (-0.65, 0.2), (-0.78, spout + 0.25), (-0.98, spout)], 0.36, 0.14)),
        (BODY, oval(0, 0.2, 0.58, fat)),
        (DETAIL, oval(0, -0.22, 0.36, 0.2, 180, 360)),
        (DETAIL, oval(0, -0.5, 0.1, 0.1)),
    ]


def umbrella(rng: np.random.Generator) -> list[Part]:
    dome, hook = rng.uniform(0.65, 0.9), rng.choice([-1, 1])
    grip = stroke(oval(hook * 0.14, 0.78, 0.14, 0.17, 0, 180), 0.09)
    return [
        (BODY, poly((-0.05, -0.9), (0.05, -0.9), (0.05, 0.8), (-0.05, 0.8))),
        (BODY, grip),
        (BODY, oval(0, 0, 0.96, dome, 180, 360)),
        (DETAIL, poly((-0.3, 0), (-0.05, -dome), (0.05, -dome), (0.3, 0))),
        *((CUT, oval(x, 0.03, 0.16, 0.12)) for x in (-0.64, -0.32, 0.32, 0.64)),
    ]


TARGET_SHAPES: dict[str, Shape] = {
    shape.__name__: shape for shape in (butterfly, cactus, fish, key, mug, mushroom, rocket, sailboat, teapot, umbrella)
}
