"""Geometry of a picture of vectors in the plane: places in a square of 100 units, classes for the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

SIDE, MARGIN = 100.0, 3.0
COLORS = 8  # classes that the style sheet has colours for
SIZES = (0.75, 1.1, 1.5)  # radius of the first, second and third grade
SHAPES = ("circle", "square")


@dataclass(frozen=True)
class Dot:
    """One vector: x right, y down, in units of the square; `color` is an index of classes, `grade` of sizes."""

    x: float
    y: float
    color: int
    grade: int
    shape: str
    radius: float


@dataclass(frozen=True)
class Scatter:
    """A picture; `colors` are the names of the classes, `shapes` (shape, name) of groups, `grades` names of sizes."""

    title: str
    dots: list[Dot]
    colors: list[str]
    shapes: list[tuple[str, str]]
    grades: list[str]
    label: str


def scatter(
    points: np.ndarray,
    classes: Sequence[str],
    *,
    title: str,
    groups: Sequence[str] | None = None,
    grades: Sequence[int] | None = None,
) -> Scatter:
    """Lays points over a square, both axes to one scale, the bounding box in its middle.

    Args:
        points: (N, 2), y up.
        classes: what colours go by; in the order of names.
        title: of the picture.
        groups: what shapes go by, two at most.
        grades: what sizes go by, numbers of which there are three at most.

    Raises:
        InputError: other shapes, or more classes, groups or grades than can be told apart.
    """
    places = _placed(np.asarray(points, dtype=np.float64), len(classes))
    names, own = sorted(set(classes)), list(groups) if groups is not None else [""] * len(classes)
    people, sizes = sorted(set(own)), sorted(set(grades)) if grades is not None else [0]
    given = list(grades) if grades is not None else [0] * len(classes)
    if len(names) > COLORS or len(people) > len(SHAPES) or len(sizes) > len(SIZES):
        raise InputError(f"{len(names)} classes, {len(people)} groups and {len(sizes)} grades cannot be told apart")
    # Of one grade all are of the middle size.
    radius = dict(zip(sizes, SIZES if len(sizes) > 1 else SIZES[1:], strict=False))
    dots = [
        Dot(x, y, names.index(name), sizes.index(grade), SHAPES[people.index(who)], radius[grade])
        for (x, y), name, grade, who in zip(places, classes, given, own, strict=True)
    ]
    shapes = [(SHAPES[k], name) for k, name in enumerate(people)] if groups is not None else []
    label = f"{title}: {len(dots)} points of {len(names)} classes"
    return Scatter(title, dots, names, shapes, list(map(str, sizes)) if grades is not None else [], label)


def _placed(points: np.ndarray, count: int) -> list[tuple[float, float]]:
    if points.shape != (count, 2) or not count or not np.isfinite(points).all():
        raise InputError(f"a picture takes finite points (N, 2) and a class each, not {points.shape} with {count}")
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (SIDE - 2 * MARGIN) / max(float((high - low).max()), 1e-12)
    centred = (points - (low + high) / 2) * scale * (1, -1) + SIDE / 2
    return [(round(float(x), 2), round(float(y), 2)) for x, y in centred]
