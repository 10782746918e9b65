"""Methods that wrote texts against each other: what privileged attributes gained, and what the held ones keep."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.drawing import BAND, LINES, TEXT, draw_point, new_figure, plain, save_figure
from fairpo_trl.reporting.label_placement import Label, place_labels


_CURVES = (("-", "D"), ("--", "v"), (":", "<"), ("-.", ">"))


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
