"""Plots of a run and of comparisons between runs, as PNG files (no display needed)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from fairpo_trl.reporting.documents import ROLES, Interval, Role
from fairpo_trl.reporting.drawing import (
    BAND,
    HELD,
    LINES,
    PRIVILEGED,
    TEXT,
    draw_point,
    new_figure,
    plain,
    role_marker,
    save_figure,
    save_titled,
    style_axes,
)
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.numbers import judge_text, role_text
from fairpo_trl.reporting.results import Results


_MOST_NAMED = 12
"""With more lines than this a legend no longer helps."""

_CURVES = (("-", "D"), ("--", "v"), (":", "<"), ("-.", ">"))


@dataclass(frozen=True)
class ComparisonPoint:
    """One method (or one stopping point of a curve) in a comparison.

    Attributes:
        label: Short text beside the point, for example a method's name or a number of steps.
        privileged: Mean win rate of the privileged attributes against the reference.
        mean_held: Mean win rate of the held attributes.
        worst_held: Lowest win rate among the held attributes.
    """

    label: str
    privileged: Interval
    mean_held: Interval
    worst_held: Interval


def plot_weights(results: Results | LabelResults, path: str | os.PathLike[str]) -> Path:
    """Group weights over optimizer steps.

    Args:
        results: A run with `weights_history`.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        ValueError: There is no weights history.
    """
    figure, axes = new_figure(7.5, 4.2)
    _history(axes, results.weights_history, _roles(results.partition), "weights_history")
    axes.set_ylim(-0.03, max(1.03, 1.03 * axes.get_ylim()[1]))  # multipliers can exceed 1
    axes.set_ylabel("group weight")
    return save_titled(figure, axes, "Group weights during training", results.title, path)


def plot_margins(results: Results, path: str | os.PathLike[str]) -> Path:
    """Margin of every attribute (log-ratio difference of the pair against the reference, nats) over optimizer steps.

    Args:
        results: A run with `margins_history`.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        ValueError: There is no margins history.
    """
    figure, axes = new_figure(7.5, 4.2)
    axes.axhline(0, color=BAND, linewidth=1)
    _history(axes, results.margins_history, _roles(results.partition), "margins_history")
    axes.set_ylabel("margin over the reference (nats)")
    return save_titled(figure, axes, "Margins of the pairs, by attribute", results.title, path)


def plot_win_rates(results: Results, path: str | os.PathLike[str], judge: str | None = None) -> Path:
    """Win rate of every attribute against the reference with its interval, beside the reference against itself.

    Args:
        results: A run.
        path: The PNG to write.
        judge: Whose scores, by default the first judge's.

    Returns:
        The path.

    Raises:
        ValueError: No attribute has win rates of this judge.
    """
    judge = judge or next(iter(results.judge_names()), "scorer")
    entries = [entry for entry in results.by_role() if judge in entry.win_rate]
    if not entries:
        raise ValueError(f"No attribute has win rates of the judge {judge!r}.")
    figure, axes = new_figure(7.5, 1.9 + 0.5 * len(entries))
    axes.axvline(0.5, color=BAND, linewidth=1, zorder=1)
    for y, entry in enumerate(entries):
        rates = entry.win_rate[judge]
        itself = rates.reference_vs_itself
        if itself and itself.ends:
            low, high = itself.ends
            axes.barh(y, high - low, left=low, height=0.56, color=BAND, alpha=0.3, linewidth=0)
        if itself:
            axes.plot([itself.mean] * 2, [y - 0.28, y + 0.28], color=BAND, linewidth=1.5)
        draw_point(axes, rates.trained, None, y, entry.role)
    axes.set_yticks(range(len(entries)), [entry.attribute for entry in entries])
    for label, entry in zip(axes.get_yticklabels(), entries, strict=True):
        label.set_fontweight("bold" if entry.role == "privileged" else "normal")
        label.set_parse_math(False)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.4), max(high, 0.6))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"win rate against the reference, judged by the {judge_text(judge)} (bars: 95 % interval)")
    for role in dict.fromkeys(entry.role for entry in entries):
        axes.plot([], [], linestyle="none", label=f"trained, {role_text(role)}", **role_marker(role))
    if any(entry.win_rate[judge].reference_vs_itself for entry in entries):
        axes.barh([0], [0], color=BAND, alpha=0.3, label="reference vs itself, 95 %")
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.1)
    counts = {entry.win_rate[judge].trained.n for entry in entries}
    prompts = f", {counts.pop()} held-out prompts" if len(counts) == 1 and None not in counts else ""
    axes.margins(x=0.02)
    return save_titled(figure, axes, f"Win rate per attribute{prompts}", results.title, path, pad=24)


def plot_comparison(
    points: Sequence[ComparisonPoint],
    path: str | os.PathLike[str],
    *,
    curves: Mapping[str, Sequence[ComparisonPoint]] | None = None,
    title: str = "Privileged gain against what the held attributes keep",
    subtitle: str = "",
    differences: bool = False,
) -> Path:
    """Privileged win rate (x) against the mean and the worst held win rate (y), two panels.

    Args:
        points: Methods, each drawn with its intervals and its label.
        path: The PNG to write.
        curves: Points to be joined, by the curve's name: for example DPO stopped at several steps.
        title: What is compared.
        subtitle: A second line: model, number of prompts and seeds.
        differences: Whether the points are changes of a win rate, with 0 as good as the reference, rather than win
            rates, with 0.5 as good as it.

    Returns:
        The path.

    Raises:
        ValueError: There is nothing to draw.
    """
    curves = curves or {}
    if not points and not any(curves.values()):
        raise ValueError("There are no points to compare.")
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    panel_labels = []
    neutral, what = (0.0, "change of win rate") if differences else (0.5, "win rate against the reference")
    for axes, key, name in zip(panels, ("mean_held", "worst_held"), ("mean", "worst"), strict=True):
        style_axes(axes)
        axes.axhline(neutral, color=BAND, linewidth=1, zorder=1)
        axes.axvline(neutral, color=BAND, linewidth=1, zorder=1)
        anchors: list[tuple[float, float]] = []
        labels: list[str] = []
        for (label, curve), (line, shape) in zip(curves.items(), cycle(_CURVES), strict=False):
            x = [point.privileged.mean for point in curve]
            y = [getattr(point, key).mean for point in curve]
            axes.plot(
                x, y, line, color="#555555", marker=shape, markersize=4.5, linewidth=1.5, label=plain(label), zorder=2
            )
            anchors += zip(x, y, strict=True)
            labels += [point.label for point in curve]
        for point, colour, shape in zip(points, cycle(LINES), cycle("os^vP*X"), strict=False):
            label = plain(point.label)
            held: Interval = getattr(point, key)
            draw_point(axes, point.privileged, held, 0, "privileged", color=colour, marker=shape, label=label)
            anchors.append((point.privileged.mean, held.mean))
        axes.set_title(f"{name} over the held attributes", fontsize=10, loc="left", color=TEXT)
        axes.set_xlabel(f"privileged: {what}")
        axes.margins(0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        panel_labels.append((axes, anchors, labels))
    panels[0].set_ylabel(f"held: {what}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", frameon=False, fontsize=9, ncols=3)
    figure.suptitle(plain(f"{title}\n{subtitle}".strip()), x=0.01, ha="left", fontsize=12, color=TEXT)
    figure.draw_without_rendering()  # settles the layout: the labels are placed in pixels
    for placed in panel_labels:
        _place_labels(*placed)
    return save_figure(figure, path)


def _roles(partition: Mapping[str, Role]) -> dict[str, Role]:
    roles: dict[str, Role] = {"privileged": "privileged", "non_privileged": "non_privileged"}
    return roles | dict(partition)


def _history(axes: Axes, history: Sequence[Mapping[str, float]], roles: Mapping[str, Role], part: str) -> None:
    """One line per name, privileged ones first; the names stand right of the axes."""
    if not history:
        raise ValueError(f"The results have no {part} to plot.")
    names = list(dict.fromkeys(name for point in history for name in point if name != "step"))
    names.sort(key=lambda name: roles.get(name) != "privileged")
    if len(names) > _MOST_NAMED:
        _history_of_roles(axes, history, names, roles)
        return
    for name, colour in zip(names, cycle(LINES), strict=False):
        points = [(point["step"], point[name]) for point in history if name in point]
        privileged = roles.get(name) == "privileged"
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle="-" if privileged else "--",
            linewidth=2.2 if privileged else 1.6,
            marker="o" if len(points) == 1 else None,
            label=plain(
                role_text(name) if name in ROLES or name not in roles else f"{name} ({role_text(roles[name])})"
            ),
        )
    _steps_axis(axes)


def _history_of_roles(
    axes: Axes, history: Sequence[Mapping[str, float]], names: Sequence[str], roles: Mapping[str, Role]
) -> None:
    """One thin line per name, told apart by role alone; the three that end highest are named."""
    by_role: dict[str, list[str]] = {role: [name for name in names if roles.get(name) == role] for role in ROLES}
    for role, members in by_role.items():
        privileged = role == "privileged"
        for name in members:
            points = [(point["step"], point[name]) for point in history if name in point]
            axes.plot(
                *zip(*points, strict=True),
                color=PRIVILEGED if privileged else HELD,
                linestyle="-" if privileged else "--",
                linewidth=1.4 if privileged else 0.9,
                alpha=0.75,
                label=f"{role_text(role)} ({len(members)} groups)" if name == members[0] else None,
            )
    last = {name: max((p["step"], p[name]) for p in history if name in p) for name in names}
    highest = sorted(last, key=lambda name: -last[name][1])[:3]
    axes.annotate(
        "highest at the end:\n" + "\n".join(f"{plain(name)} {last[name][1]:.2f}" for name in highest),
        (1.0, 0.32),
        (8, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=TEXT,
    )
    _steps_axis(axes)


def _steps_axis(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _place_labels(axes: Axes, anchors: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Write a label beside each of the first points, at the first of several places free of labels and points."""
    pixels = axes.transData.transform(anchors)
    taken: list[Any] = []
    places = [(dx * r, dy * r) for r in (1, 1.5, 2.2) for dx, dy in ((0, 8), (0, -8), (-11, -6), (11, 6), (-11, 6))]
    for label, anchor in zip(labels, anchors, strict=False):
        for place in places:
            note = axes.annotate(
                plain(label),
                anchor,
                place,
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=8,
                color="#555555",
                zorder=4,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
            box = note.get_window_extent().padded(2)
            if place == places[-1] or not (
                any(box.overlaps(other) for other in taken) or any(box.contains(x, y) for x, y in pixels)
            ):
                taken.append(box)
                break
            note.remove()
