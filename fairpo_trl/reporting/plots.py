"""Plots of a run or of a selection, as PNG files (no display needed)."""

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fairpo_trl.reporting.blocks import MOST_NAMED, roles_of_lines
from fairpo_trl.reporting.documents import ROLES, Interval, Role
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
    sample_image,
    save_figure,
    save_titled,
)
from fairpo_trl.reporting.label_results import LabelResults, LabelSample
from fairpo_trl.reporting.numbers import judge_text, role_text
from fairpo_trl.reporting.results import Results
from fairpo_trl.reporting.selection_results import SelectionResults


_LONGEST_NAME = 24
_SAMPLE_COLUMNS = 2


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


def plot_label_deltas(
    deltas: Mapping[str, Interval],
    partition: Mapping[str, Role],
    path: str | os.PathLike[str],
    title: str,
    subtitle: str = "",
    measure: str = "average precision",
) -> Path:
    """
    Change of average precision (or of another measure) of every label with its interval, best first.

    Args:
        deltas (`Mapping[str, Interval]`):
            Label -> change, as a share.
        partition (`Mapping[str, Role]`):
            Label -> role.
        path (`str` or `os.PathLike`):
            The PNG to write.
        title, subtitle (`str`):
            Name the data and, for example, the method.
        measure (`str`, *optional*, defaults to `"average precision"`):
            What the changes are changes of.

    Raises:
        ValueError: If there is no label.
    """
    if not deltas:
        raise ValueError("There are no changes per label to plot.")
    names = sorted(deltas, key=lambda name: (-deltas[name].mean, name))
    figure, axes = new_figure(7.5, 1.6 + 0.19 * len(names))
    axes.axvline(0, color=BAND, linewidth=1, zorder=1)
    for y, name in enumerate(names):
        draw_point(axes, deltas[name].times(100), None, y, partition[name], markersize=4.5)
    name_rows(axes, [_short(name) for name in names], [partition[name] for name in names], fontsize=8)
    axes.set_xlabel(f"change of {measure} against the reference (points; bars: 95 % interval)")
    for role in ROLES:
        if found := [deltas[name].mean for name in names if partition[name] == role]:
            up, mean = sum(value > 0 for value in found), 100 * sum(found) / len(found)
            counted = f"{role_text(role)}: {up} of {len(found)} gained, mean {mean:+.2f}"
            axes.plot([], [], linestyle="none", label=counted, **role_marker(role))
    legend_above(axes, 2)
    heading = f"Change of {measure} per label{f': {subtitle}' if subtitle else ''}"
    return save_titled(figure, axes, heading, title, path, pad=24)


def plot_samples(results: LabelResults, path: str | os.PathLike[str]) -> Path:
    """
    A sheet of images, each with its true labels and the best labels of reference and trained model.

    Args:
        results ([`LabelResults`]):
            A run with `samples`; their images lie beside the picture that is written.
        path (`str` or `os.PathLike`):
            The PNG to write.

    Raises:
        ValueError: If there are no samples, or the file of one is no image.
        FileNotFoundError: If the image of a sample does not exist.
    """
    samples = results.samples
    if not samples:
        raise ValueError("The results have no samples to plot.")
    folder = Path(path).parent
    pictures = [sample_image(sample.image, sample.id, folder) for sample in samples]
    columns = min(_SAMPLE_COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    widths = {"width_ratios": [1, 2] * columns, "wspace": 0.02}
    figure, grid = new_figure(7.0 * columns, 2.5 * rows + 0.8, rows, 2 * columns, squeeze=False, gridspec_kw=widths)
    for axes in grid.flat:
        axes.axis("off")
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        left, right = grid[i // columns][2 * (i % columns)], grid[i // columns][2 * (i % columns) + 1]
        if picture is None:
            left.text(0.5, 0.5, "no image file", ha="center", va="center", color=BAND, transform=left.transAxes)
        else:
            left.imshow(picture)
        _sample_text(right, results, sample)
    title = plain(f"Best labels per image, probabilities in per cent\n{results.title}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=TEXT)
    signs = "✓ bold: true label    · not    * privileged"
    figure.text(0.99, 0.995, signs, ha="right", va="top", fontsize=10, color=TEXT)
    return save_figure(figure, path)


def plot_selection(results: SelectionResults, path: str | os.PathLike[str]) -> Path:
    """
    Draws gains above and bounds below, over scales or over the order of the candidates.

    The bounds are in units of their margins, so that one line stands for all of them: a candidate passes if all its
    bounds lie above -1. There is at least one candidate.
    """
    tests = results.selection.candidates
    scaled = all(test.name in results.scales for test in tests)
    places = [results.scales[test.name] for test in tests] if scaled else list(range(1, len(tests) + 1))
    figure, (above, below) = new_figure(7.5, 5.6, rows=2, sharex=True, height_ratios=(2, 3))

    above.axhline(0, color=BAND, linewidth=1)
    above.plot(places, [test.gain for test in tests], color=PRIVILEGED, marker="o", label="gain where it was chosen")
    chosen = next((i for i, test in enumerate(tests) if test.name == results.selection.chosen), None)
    if chosen is not None and results.test is not None:
        gain = results.test.gain
        above.errorbar(
            [places[chosen]],
            [gain],
            yerr=[[gain - results.test.gain_bound], [0]],
            color=TEXT,
            marker="D",
            capsize=4,
            label="of the chosen one, on other examples, with its lower bound",
        )
    unit = "" if results.kind == "language model" else ", points"
    above.set_ylabel(f"privileged gain{unit}", fontsize=9)
    above.legend(fontsize=8, frameon=False, loc="best")

    names = list(dict.fromkeys(held.measure for test in tests for held in test.held))
    for i, name in enumerate(names):
        found = [
            (x, held.bound / held.margin)
            for x, t in zip(places, tests, strict=True)
            for held in t.held
            if held.measure == name
        ]
        below.plot(
            [x for x, _ in found],
            [y for _, y in found],
            color=LINES[1:][i % (len(LINES) - 1)],
            linestyle=("--", ":", "-.")[i // (len(LINES) - 1) % 3],
            marker="s",
            markerfacecolor="white",
            label=plain(name),
        )
    below.axhline(-1, color=TEXT, linewidth=1.6)
    below.annotate(
        "minus the margin", (1, -1), xycoords=("axes fraction", "data"), xytext=(-2, -10), textcoords="offset points",
        ha="right", fontsize=8, color=TEXT,
    )  # fmt: skip
    below.axhline(0, color=BAND, linewidth=1)
    below.set_ylabel("lower bound / margin", fontsize=9)
    below.set_xlabel(
        "scale: 0 is the reference, 1 the trained model" if scaled else "candidate, from the safest", fontsize=9
    )
    # Below the axes: curves may be anywhere within.
    figure.legend(handles=below.lines[: len(names)], fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    below.set_xticks(places, [f"{x:g}" for x in places] if scaled else [plain(test.name) for test in tests])
    below.margins(x=0.06)
    bottom, top = below.get_ylim()
    below.set_ylim(min(bottom, -1 - 0.14 * (top + 1)), top)  # room for the words under the line
    half = 0.02 * (max(places) - min(places)) or 0.05
    for axes in (above, below):
        for x, test in zip(places, tests, strict=True):
            if test.name == results.selection.chosen:
                axes.axvspan(x - half, x + half, color="#F0E442", alpha=0.45, zorder=0)
            elif test.status == "untested":
                axes.axvspan(x - half, x + half, color="#EEEEEE", zorder=0)
    sure = f"{100 * (1 - results.selection.level):g} %"
    chosen_name = results.selection.chosen
    subtitle = f"{sure} bounds; handed over: " + (f"{chosen_name} (yellow)" if chosen_name else "the reference")
    if any(test.status == "untested" for test in tests):
        subtitle += "; grey: not tested"
    return save_titled(figure, above, f"{results.model} against {results.reference}", subtitle, path)


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


def _sample_text(axes: Axes, results: LabelResults, sample: LabelSample) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ordered = sorted(sample.true, key=lambda name: results.partition[name] != "privileged")
    true = [_starred(results, name) for name in ordered]
    shown = ", ".join(true[:5]) + (f", ... ({len(true)} in all)" if len(true) > 5 else "") if true else "none"
    lines = textwrap.wrap(f"true: {shown}", 62, max_lines=3, placeholder=" …")
    for i, line in enumerate(lines):
        axes.text(0, 0.99 - 0.085 * i, plain(line), fontsize=9.5, color=TEXT, va="top")
    top = 0.99 - 0.085 * len(lines) - 0.08
    for x, name, labels in ((0, "reference", sample.reference), (0.51, "trained", sample.trained)):
        axes.text(x, top, name, fontsize=9.5, color=TEXT, va="top", fontstyle="italic")
        for i, (label, probability) in enumerate(labels[:6]):
            right = label in sample.true
            colour = PRIVILEGED if results.partition[label] == "privileged" else HELD
            y = top - 0.1 * (i + 1) - 0.04
            axes.barh(y, 0.41 * probability, left=x, height=0.085, color=colour, alpha=0.22, linewidth=0)
            axes.text(
                x + 0.01, y, plain(f"{'✓' if right else '·'} {_starred(results, label)}"),
                fontsize=9, va="center", color=TEXT, fontweight="bold" if right else "normal",
            )  # fmt: skip
            axes.text(x + 0.47, y, f"{100 * probability:.0f}", fontsize=9, va="center", ha="right", color=TEXT)


def _short(name: str) -> str:
    name = "".join(c if c.isprintable() else "�" for c in name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _starred(results: LabelResults, name: str) -> str:
    return _short(name) + (" *" if results.partition[name] == "privileged" else "")
