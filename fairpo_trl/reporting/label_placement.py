"""Names beside points: each where it hides least, off the other names, points, leaders and borders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fairpo_trl.reporting.drawing import TEXT, plain


REACHES = (7, 14, 24, 36, 50, 66, 84)
"""Distances tried between a point and the border of its name, in points."""
_ANGLES = [math.pi * (90 - 22.5 * i) / 180 for i in range(16)]
# What a place costs: of each name, point or leader that it hides, that its own leader crosses, and outside the axes.
_NAME, _POINT, _LEADER, _CROSSED_NAME, _CROSSED_POINT, _OUTSIDE = 400, 150, 120, 60, 40, 1000
_RADIUS, _SAMPLES = 9, 20

Label = tuple[str, float, float]
"""Text and the point's place in the units of the axes."""


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    taken: Sequence[Bbox] = (),
    unnamed: Sequence[tuple[float, float]] = (),
    fontsize: float = 8.5,
    color: str = TEXT,
) -> None:
    """
    Writes names beside points, the most important first; a name that stands apart gets a thin line to its point.

    Args:
        axes (`Axes`):
            Drawn once already, so that its layout is settled: places are in pixels.
        labels (`Sequence[Label]`), taken (`Sequence[Bbox]`):
            The names, and the places of other texts, in pixels.
        unnamed (`Sequence[tuple[float, float]]`, *optional*):
            Further points that no name may hide, in the units of the axes.
    """
    if not labels:
        return
    scale = axes.figure.dpi / 72
    pixels = axes.transData.transform([*((x, y) for _, x, y in labels), *unnamed])  # [labels and others, 2]
    points = np.concatenate([pixels - _RADIUS, pixels + _RADIUS], axis=1)  # [..., 4]: left, low, right, high
    names = np.array([box.extents for box in taken]).reshape(-1, 4)
    leaders = np.empty((0, 2))  # points along all leaders so far
    frame = axes.get_window_extent().extents
    for number, (text, x, y) in enumerate(labels):
        note = axes.annotate(
            plain(text), (x, y), (0, 0), textcoords="offset points", ha="center", va="center", zorder=5,
            linespacing=0.95, path_effects=[withStroke(linewidth=2.5, foreground="white")],
            fontsize=fontsize, color=color,
        )  # fmt: skip
        size = note.get_window_extent()
        offsets = np.array(
            [
                (
                    math.cos(angle) * (reach * scale + size.width / 2),
                    math.sin(angle) * (reach * scale + size.height / 2),
                )
                for reach in REACHES
                for angle in _ANGLES
            ]
        )  # [places, 2]
        reach = np.repeat(REACHES, len(_ANGLES))
        half = np.array([size.width, size.height]) / 2 + 2
        centres = pixels[number] + offsets
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        lines = pixels[number] + offsets[:, None] * np.linspace(0.05, 0.95, _SAMPLES)[:, None]  # [places, samples, 2]
        others = np.delete(points, number, axis=0)
        cost = reach + 0.02 * abs(offsets[:, 0])
        cost += _NAME * _overlaps(boxes, names) + _POINT * _overlaps(boxes, others)
        cost += _LEADER * _holds(boxes, leaders[None]).any(axis=1)
        cost += _CROSSED_NAME * _crossed(lines, names)
        cost += _CROSSED_POINT * _crossed(lines, others) * (reach > REACHES[1])
        cost += _OUTSIDE * ((boxes[:, :2] < frame[:2]) | (boxes[:, 2:] > frame[2:])).any(axis=1)
        best = int(cost.argmin())
        note.set_position(tuple(offsets[best] / scale))
        names = np.vstack([names, boxes[best]])
        if reach[best] > REACHES[1]:
            leaders = np.vstack([leaders, lines[best]])
            end = axes.transData.inverted().transform(pixels[number] + 0.98 * offsets[best])
            arrow = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7}
            axes.annotate("", tuple(end), (x, y), zorder=2.5, arrowprops=arrow)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the others each box overlaps: `[boxes, 4]`, `[others, 4]` -> `[boxes]`."""
    apart = (boxes[:, None, :2] >= others[None, :, 2:]) | (boxes[:, None, 2:] <= others[None, :, :2])
    return (~apart.any(axis=2)).sum(axis=1).astype(float)


def _holds(boxes: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each box holds each point: `[boxes, 4]`, `[1 or boxes, points, 2]` -> `[boxes, points]`."""
    return np.all((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:]), axis=2)


def _crossed(lines: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many boxes each line crosses: `[lines, samples, 2]`, `[boxes, 4]` -> `[lines]`."""
    return np.array([_holds(boxes, line[None]).any(axis=1).sum() for line in lines], dtype=float)
