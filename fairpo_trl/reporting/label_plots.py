"""Pictures of the classification half: changes per label, and images with the best labels of both models."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from fairpo_trl.reporting.documents import ROLES, Interval, Role
from fairpo_trl.reporting.drawing import (
    BAND,
    HELD,
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
from fairpo_trl.reporting.numbers import role_text


_LONGEST_NAME = 24
_SAMPLE_COLUMNS = 2


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

    Returns:
        `Path`: the path.

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

    Returns:
        `Path`: the path.

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
