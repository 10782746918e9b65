"""Methods against each other: what the privileged ones gained, and what the held ones keep."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from fairpo_trl.reporting.comparison_results import CONTINUED, LabelComparison, MethodResult, Section
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.drawing import (
    BAND,
    LINES,
    TEXT,
    draw_point,
    error_bars,
    legend_above,
    new_figure,
    plain,
    save_figure,
    set_titles,
)
from fairpo_trl.reporting.label_placement import Label, place_labels


_CURVES = (("-", "D"), ("--", "v"), (":", "<"), ("-.", ">"))
_STYLES: dict[Section, tuple[str, str, str]] = {  # marker, colour, name in the legend
    "methods": ("o", "#0072B2", "methods"),
    "reweighting": ("D", "#555555", "re-weighting of P, by factor"),
    "ablations": ("^", "#CC79A7", "ablations"),
    "variants": ("v", "#009E73", "variants"),
}
_FAIRPO, _FAIRPO_MARKER = "#D55E00", "P"
_FAR = 4.0
"""A point further from the middle half than this many times its range would press all others together."""


@dataclass(frozen=True)
class ComparisonPoint:
    """
    One method (or one stopping point of a curve) in a comparison.

    Attributes:
        label (`str`): Short text beside the point, for example a method's name or a number of steps.
        privileged ([`Interval`]): Mean win rate of the privileged attributes against the reference.
        mean_held, worst_held ([`Interval`]): Mean and lowest win rate of the held attributes.
    """

    label: str
    privileged: Interval
    mean_held: Interval
    worst_held: Interval


def plot_comparison(
    points: Sequence[ComparisonPoint],
    path: str | os.PathLike[str],
    *,
    curves: Mapping[str, Sequence[ComparisonPoint]] | None = None,
    title: str = "Privileged gain against what the held attributes keep",
    subtitle: str = "",
    differences: bool = False,
) -> Path:
    """
    Privileged win rate (x) against the mean and the worst held win rate (y), two panels.

    Args:
        points (`Sequence[ComparisonPoint]`):
            Methods, each drawn with its intervals and its label.
        path (`str` or `os.PathLike`):
            The PNG to write.
        curves (`Mapping[str, Sequence[ComparisonPoint]]`, *optional*):
            Points to be joined, by the curve's name: for example DPO stopped at several steps.
        title (`str`, *optional*, defaults to `"Privileged gain against what the held attributes keep"`):
            What is compared.
        subtitle (`str`, *optional*, defaults to `""`):
            A second line: model, number of prompts and seeds.
        differences (`bool`, *optional*, defaults to `False`):
            Whether the points are changes of a win rate, with 0 as good as the reference, rather than win rates, with
            0.5 as good as it.

    Returns:
        `Path`: the path.

    Raises:
        ValueError: If there is nothing to draw.
    """
    curves = curves or {}
    if not points and not any(curves.values()):
        raise ValueError("There are no points to compare.")
    figure, panels = new_figure(11, 5.6, 1, 2, sharex=True, sharey=True)
    panel_labels = []
    neutral, what = (0.0, "change of win rate") if differences else (0.5, "win rate against the reference")
    for axes, key, name in zip(panels, ("mean_held", "worst_held"), ("mean", "worst"), strict=True):
        axes.axhline(neutral, color=BAND, linewidth=1, zorder=1)
        axes.axvline(neutral, color=BAND, linewidth=1, zorder=1)
        labels: list[Label] = []
        for (label, curve), (line, shape) in zip(curves.items(), cycle(_CURVES), strict=False):
            x = [point.privileged.mean for point in curve]
            y = [getattr(point, key).mean for point in curve]
            axes.plot(
                x, y, line, color="#555555", marker=shape, markersize=4.5, linewidth=1.5, label=plain(label), zorder=2
            )
            labels += [(point.label, *place) for point, *place in zip(curve, x, y, strict=True)]
        for point, colour, shape in zip(points, cycle(LINES), cycle("os^vP*X"), strict=False):
            label = plain(point.label)
            held: Interval = getattr(point, key)
            draw_point(axes, point.privileged, held, 0, "privileged", color=colour, marker=shape, label=label)
        axes.set_title(f"{name} over the held attributes", fontsize=10, loc="left", color=TEXT)
        axes.set_xlabel(f"privileged: {what}")
        axes.margins(0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        panel_labels.append((axes, labels, [(point.privileged.mean, getattr(point, key).mean) for point in points]))
    panels[0].set_ylabel(f"held: {what}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", frameon=False, fontsize=9, ncols=3)
    figure.suptitle(plain(f"{title}\n{subtitle}".strip()), x=0.01, ha="left", fontsize=12, color=TEXT)
    figure.draw_without_rendering()  # settles the layout: the labels are placed in pixels
    for axes, labels, unnamed in panel_labels:
        place_labels(axes, labels, unnamed=unnamed, fontsize=8, color="#555555")
    return save_figure(figure, path)


@dataclass(frozen=True)
class _Point:
    text: str
    x: Interval
    y: Interval
    marker: str
    colour: str


def plot_pareto(
    comparison: LabelComparison, path: str | os.PathLike[str], head: str | None = None, *, ablations: bool = False
) -> Path:
    """
    Change of mAP (or F1) of the privileged labels (y) against that of the held ones (x); the origin: the reference.

    Thin lines are the intervals. The re-weighting rows are joined as a curve, in order of their factors. A point that
    would press all others together stands at the border with its numbers.

    Args:
        comparison ([`LabelComparison`]):
            Many methods.
        path (`str` or `os.PathLike`):
            The PNG to write.
        head (`str`, *optional*):
            Whose methods, by default those of the first head.
        ablations (`bool`, *optional*, defaults to `False`):
            Whether the ablations and variants are shown, with continued BCE, FairPO and the curve, instead of the
            methods.

    Raises:
        ValueError: If the head is unknown, or none of its methods was compared with the reference.
    """
    head = next(iter(comparison.heads), "") if head is None else head
    if head not in comparison.heads:
        raise ValueError(f"Unknown head {head!r}. Known: {', '.join(map(repr, comparison.heads))}.")
    methods = [
        method
        for method in comparison.of_head(head)
        if {"privileged", "non_privileged"} <= method.delta_reference.keys() and _shown(method, ablations)
    ]
    if not methods:
        raise ValueError(f"No method with the head {head!r} was compared with the reference in both groups.")
    points = [_point_of(method) for method in methods]
    figure, axes = new_figure(10.5, 7.6)
    axes.axhline(0, color=BAND, linewidth=1, zorder=1)
    axes.axvline(0, color=BAND, linewidth=1, zorder=1)
    curve = reweighting_curve(methods)
    on_curve = [_point_of(method) for method in curve]
    axes.plot(
        [p.x.mean for p in on_curve], [p.y.mean for p in on_curve], "-", color="#555555", linewidth=1.4, zorder=2
    )
    inside = _set_limits(axes, points)
    for point, fits in zip(points, inside, strict=True):
        if fits:
            axes.errorbar(
                [point.x.mean], [point.y.mean], xerr=error_bars(point.x), yerr=error_bars(point.y),
                marker=point.marker, color=point.colour, markersize=7.5, markeredgecolor="white",
                markeredgewidth=0.8, ecolor=point.colour, elinewidth=0.6, alpha=0.8, zorder=3,
            )  # fmt: skip
    axes.plot([0], [0], marker="*", color=TEXT, markersize=13, zorder=4)
    measure = comparison.measure
    axes.set_xlabel(f"held labels: change of {measure} against the reference (points)")
    axes.set_ylabel(f"privileged labels: change of {measure} against the reference (points)")
    handles = _legend(methods)
    legend_above(axes, 4, handles=handles)
    seeds = {method.seeds for method in methods if method.seeds is not None}
    about = f", mean over {seeds.pop()} seeds" if len(seeds) == 1 and max(seeds) > 1 else ""
    what = "ablations and variants" if ablations else "methods"
    title = f"Privileged against held labels, {what}: {comparison.heads[head]}{about}; bars: 95 % intervals"
    set_titles(axes, title, comparison.title, pad=24 if len(handles) <= 4 else 40)
    figure.draw_without_rendering()  # settles the layout: the labels are placed in pixels
    shown = [(p.text, p.x.mean, p.y.mean) for p, fits in zip(points, inside, strict=True) if fits]
    outside = [p for p, fits in zip(points, inside, strict=True) if not fits]
    place_labels(axes, [("reference", 0.0, 0.0), *shown], _name_outside(axes, outside))
    return save_figure(figure, path)


def reweighting_curve(methods: Sequence[MethodResult]) -> list[MethodResult]:
    """The re-weighting rows in order of their factors; those without one stay where they are, at the beginning."""
    return sorted((m for m in methods if m.section == "reweighting"), key=lambda m: m.factor or 0)


def _shown(method: MethodResult, ablations: bool) -> bool:
    if method.section in ("ablations", "variants"):
        return ablations
    main = method.name == CONTINUED or method.name.startswith("fairpo")
    return method.section == "reweighting" or (method.section == "methods" and (main or not ablations))


def _point_of(method: MethodResult) -> _Point:
    x, y = (method.delta_reference[group].times(100) for group in ("non_privileged", "privileged"))
    marker, colour, _ = _STYLES.get(method.section, _STYLES["methods"])
    lines = math.ceil(len(method.label) / 26)
    text = "\n".join(textwrap.wrap(method.label, math.ceil(len(method.label) / lines) + 3))
    if method.section == "reweighting":
        text = text if method.factor is None else f"x{method.factor:g}"
    elif method.name == CONTINUED:
        marker, colour = "s", "#000000"
    elif method.section == "methods" and method.name.startswith("fairpo"):
        marker, colour = _FAIRPO_MARKER, _FAIRPO
    return _Point(text, x, y, marker, colour)


def _set_limits(axes: Axes, points: Sequence[_Point]) -> list[bool]:
    """Limits that hold the origin and all points but those far from the others; which points are inside."""
    inside = [True] * len(points)
    for values in ([p.x.mean for p in points], [p.y.mean for p in points]):
        ordered = sorted(values)
        low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
        reach = _FAR * max(high - low, 0.5)
        inside = [fits and low - reach <= v <= high + reach for fits, v in zip(inside, values, strict=True)]
    kept = [p for p, fits in zip(points, inside, strict=True) if fits]
    for set_limits, key in ((axes.set_xlim, "x"), (axes.set_ylim, "y")):
        ends = [0.0, *(end for p in kept for end in getattr(p, key).ends or [getattr(p, key).mean])]
        margin = 0.06 * max(max(ends) - min(ends), 0.5)
        set_limits(min(ends) - margin, max(ends) + margin)
    return inside


def _legend(methods: Sequence[MethodResult]) -> list[Line2D]:
    def handle(marker: str, colour: str, name: str, line: Literal["-", "none"] = "none") -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle=line, markersize=7, label=name)

    handles = [handle("*", TEXT, "reference (origin)")]
    if any(method.name == CONTINUED for method in methods):
        handles.append(handle("s", "#000000", "BCE continued"))
    if any(method.name.startswith("fairpo") and method.section == "methods" for method in methods):
        handles.append(handle(_FAIRPO_MARKER, _FAIRPO, "FairPO"))
    others = [m for m in methods if m.name != CONTINUED and not m.name.startswith("fairpo")]
    for section, (marker, colour, name) in _STYLES.items():
        if any(m.section == section for m in (others if section == "methods" else methods)):
            name = "other methods" if section == "methods" else name
            handles.append(handle(marker, colour, name, "-" if section == "reweighting" else "none"))
    return handles


def _name_outside(axes: Axes, outside: Sequence[_Point]) -> list[Bbox]:
    """Arrows at the border towards the points beyond it, with their numbers; where these stand, in pixels."""
    taken: list[Bbox] = []
    for point in outside:
        text = f"{point.text}\n({point.x.mean:+.2f}, {point.y.mean:+.2f})"
        x = min(max(point.x.mean, axes.get_xlim()[0]), axes.get_xlim()[1])
        y = min(max(point.y.mean, axes.get_ylim()[0]), axes.get_ylim()[1])
        place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        right, above = place[0] > 0.5, place[1] > 0.5
        arrow = {"arrowstyle": "->", "color": point.colour, "linewidth": 1.4}
        offset = (-38 if right else 38, (-34 if above else 34) - 40 * len(taken) * (1 if above else -1))
        note = axes.annotate(
            plain(text), tuple(place), offset, xycoords="axes fraction", textcoords="offset points",
            ha="right" if right else "left", va="center", fontsize=8, color=TEXT, arrowprops=arrow,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
        taken.append(note.get_window_extent().padded(2))
    return taken
