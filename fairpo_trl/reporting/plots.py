"""Plots of a run, as PNG files (no display needed)."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fairpo_trl.reporting.blocks import MOST_NAMED, roles_of_lines
from fairpo_trl.reporting.documents import ROLES, Role
from fairpo_trl.reporting.drawing import (
    BAND,
    HELD,
    LINES,
    PRIVILEGED,
    TEXT,
    draw_point,
    legend_above,
    name_rows,
    new_figure,
    plain,
    role_marker,
    save_titled,
)
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.numbers import judge_text, role_text
from fairpo_trl.reporting.results import Results


def plot_weights(results: Results | LabelResults, path: str | os.PathLike[str]) -> Path:
    """
    Group weights over optimizer steps.

    Args:
        results (`Results` or `LabelResults`):
            A run with `weights_history`.
        path (`str` or `os.PathLike`):
            The PNG to write.

    Returns:
        `Path`: the path.

    Raises:
        ValueError: If there is no weights history.
    """
    figure, axes = new_figure(7.5, 4.2)
    _history(axes, results.weights_history, results.partition, "weights_history")
    axes.set_ylim(-0.03, max(1.03, 1.03 * axes.get_ylim()[1]))  # multipliers can exceed 1
    axes.set_ylabel("group weight")
    return save_titled(figure, axes, "Group weights during training", results.title, path)


def plot_margins(results: Results, path: str | os.PathLike[str]) -> Path:
    """
    Margin of every attribute (log-ratio difference of the pair against the reference, nats) over optimizer steps.

    As [`plot_weights`], of a run with `margins_history`.
    """
    figure, axes = new_figure(7.5, 4.2)
    axes.axhline(0, color=BAND, linewidth=1)
    _history(axes, results.margins_history, results.partition, "margins_history")
    axes.set_ylabel("margin over the reference (nats)")
    return save_titled(figure, axes, "Margins of the pairs, by attribute", results.title, path)


def plot_win_rates(results: Results, path: str | os.PathLike[str], judge: str | None = None) -> Path:
    """
    Win rate of every attribute against the reference with its interval, beside the reference against itself.

    Args:
        results ([`Results`]):
            A run.
        path (`str` or `os.PathLike`):
            The PNG to write.
        judge (`str`, *optional*):
            Whose scores, by default the first judge's.

    Returns:
        `Path`: the path.

    Raises:
        ValueError: If no attribute has win rates of this judge.
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
    name_rows(axes, [entry.attribute for entry in entries], [entry.role for entry in entries], fontsize=9)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.4), max(high, 0.6))
    axes.set_xlabel(f"win rate against the reference, judged by the {judge_text(judge)} (bars: 95 % interval)")
    for role in dict.fromkeys(entry.role for entry in entries):
        axes.plot([], [], linestyle="none", label=f"trained, {role_text(role)}", **role_marker(role))
    if any(entry.win_rate[judge].reference_vs_itself for entry in entries):
        axes.barh([0], [0], color=BAND, alpha=0.3, label="reference vs itself, 95 %")
    legend_above(axes, 3)
    counts = {entry.win_rate[judge].trained.n for entry in entries}
    prompts = f", {counts.pop()} held-out prompts" if len(counts) == 1 and None not in counts else ""
    axes.margins(x=0.02)
    return save_titled(figure, axes, f"Win rate per attribute{prompts}", results.title, path, pad=24)


def _history(axes: Axes, history: Sequence[Mapping[str, float]], partition: Mapping[str, Role], part: str) -> None:
    """One line per name, privileged ones first, named right of the axes; of many names, by their role alone."""
    if not history:
        raise ValueError(f"The results have no {part} to plot.")
    roles = roles_of_lines(history, partition)
    counts = Counter(role or "" for role in roles.values())
    many, seen = len(roles) > MOST_NAMED, set[str]()
    last: dict[str, float] = {}
    for (name, found), colour in zip(roles.items(), cycle(LINES), strict=False):
        points = [(point["step"], point[name]) for point in history if name in point]
        last[name] = max(points)[1]
        role, privileged = found or "", found == "privileged"
        label = role_text(name) if name in ROLES or not role else f"{name} ({role_text(role)})"
        if many:
            label = "_" if role in seen else f"{role_text(role)} ({counts[role]} groups)"
            colour = PRIVILEGED if privileged else HELD
        seen.add(role)
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle="-" if privileged else "--",
            linewidth=(1.4 if privileged else 0.9) if many else (2.2 if privileged else 1.6),
            alpha=0.75 if many else 1.0,
            marker="o" if len(points) == 1 else None,
            label=plain(label),
        )
    if many:
        highest = sorted(last, key=lambda name: -last[name])[:3]
        axes.annotate(
            "highest at the end:\n" + "\n".join(f"{plain(name)} {last[name]:.2f}" for name in highest),
            (1.0, 0.32), (8, 0), xycoords="axes fraction", textcoords="offset points", va="top",
            fontsize=9, color=TEXT,
        )  # fmt: skip
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
