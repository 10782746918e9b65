"""What all plots share: colours, markers of the roles, figures and how they are written (no display needed).

Colours are from Okabe and Ito's colour-blind-safe palette; role and meaning are never carried by colour alone
(privileged: filled circles and solid lines; held: open squares and dashed lines).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fairpo_trl.reporting.documents import Interval


PRIVILEGED, HELD, BAND, TEXT = "#D55E00", "#0072B2", "#8C8C8C", "#222222"
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150
LARGEST_IMAGE = 400
"""Pixels a side of the image of a sample."""


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """An empty figure of a size in inches with styled axes, one or an array; options are those of `subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **options)
    for one in np.ravel(axes):
        style_axes(one)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """The look of all axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT, labelsize=9)


def role_marker(role: str) -> dict[str, Any]:
    """Filled circles for privileged names, open squares for held ones."""
    if role == "privileged":
        return {"marker": "o", "color": PRIVILEGED, "markersize": 7}
    return {"marker": "s", "color": HELD, "markersize": 6.5, "markerfacecolor": "white", "markeredgewidth": 1.6}


def draw_point(axes: Axes, x: Interval, y: Interval | None, row: float, role: str, **style: Any) -> None:
    """A point with bars for the intervals there are; `row` is the height if y is not a measurement."""
    height, width = (row, 1.8) if y is None else (y.mean, 1.2)
    style = role_marker(role) | style
    axes.errorbar([x.mean], [height], xerr=error_bars(x), yerr=error_bars(y), elinewidth=width, zorder=3, **style)


def name_rows(axes: Axes, names: Sequence[str], roles: Sequence[str], fontsize: float) -> None:
    """Names rows from above, privileged ones in bold."""
    axes.set_yticks(range(len(names)), names)
    for label, role in zip(axes.get_yticklabels(), roles, strict=True):
        label.set(fontweight="bold" if role == "privileged" else "normal", parse_math=False, fontsize=fontsize)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def legend_above(axes: Axes, columns: int, **options: Any) -> None:
    """A legend between the axes and their title."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "borderaxespad": 0.1}
    axes.legend(frameon=False, fontsize=9, ncols=columns, **place, **options)


def error_bars(value: Interval | None) -> list[list[float]] | None:
    """What `errorbar` wants: distances below and above the mean; `None` without an interval."""
    if value is None or value.ends is None:
        return None
    low, high = value.ends
    return [[max(0.0, value.mean - low)], [max(0.0, high - value.mean)]]


def plain(text: str) -> str:
    """Text from data with the sign that starts a formula escaped."""
    return text.replace("$", r"\$")


def save_titled(
    figure: Figure, axes: Axes, title: str, subtitle: str, path: str | os.PathLike[str], pad: float = 8
) -> Path:
    """Give a figure its title and a second line, and write it."""
    set_titles(axes, title, subtitle, pad)
    return save_figure(figure, path)


def set_titles(axes: Axes, title: str, subtitle: str, pad: float) -> None:
    """A title and a second line."""
    axes.set_title(plain(f"{title}\n{subtitle}"), loc="left", fontsize=11, color=TEXT, pad=pad)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG; the folder is created if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def sample_image(image: str | None, name: str, folder: Path) -> Any:
    """
    The image of a sample in RGB on white, at most 400 pixels a side; `None` without a file.

    Raises:
        FileNotFoundError: If the file is not in the folder of the report; names the sample.
        ValueError: If it is no image.
    """
    if image is None:
        return None
    file = folder / image
    if not file.is_file():
        raise FileNotFoundError(f"The image of sample {name!r}, {image!r}, is not in the folder.")
    try:
        with Image.open(file) as opened:
            found = opened.convert("RGBA")
    except OSError as error:
        raise ValueError(f"{image!r} of sample {name!r} is no image: {error}") from error
    found.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))
    white = Image.new("RGBA", found.size, "white")
    white.alpha_composite(found)
    return white.convert("RGB")
