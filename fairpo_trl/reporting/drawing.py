"""What all plots share: colours, markers of the roles, figures and how they are written (no display needed).

Colours are from Okabe and Ito's colour-blind-safe palette; role and meaning are never carried by colour alone
(privileged: filled circles and solid lines; held: open squares and dashed lines).
"""

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairpo_trl.reporting.documents import Interval


PRIVILEGED, HELD, BAND, TEXT = "#D55E00", "#0072B2", "#8C8C8C", "#222222"
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of a size in inches, with styled axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    style_axes(axes)
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
    height = y.mean if y is not None else row
    width = 1.8 if y is None else 1.2
    style = role_marker(role) | style
    axes.errorbar([x.mean], [height], xerr=error_bars(x), yerr=error_bars(y), elinewidth=width, zorder=3, **style)


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
    axes.set_title(plain(f"{title}\n{subtitle}"), loc="left", fontsize=11, color=TEXT, pad=pad)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG; the folder is created if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
