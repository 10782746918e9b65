"""A check of preference data in the terminal, and its conflicts as a plot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from fairpo_trl.preferences.check import PreferenceReport
from fairpo_trl.preferences.rules import row_numbers
from fairpo_trl.reporting.blocks import Block, Row, Sentences, Shown
from fairpo_trl.reporting.cells import Value
from fairpo_trl.reporting.numbers import ABSENT, role_text, share
from fairpo_trl.reporting.render.terminal import print_part


_SKEWED = 0.65
"""Share of longer chosen responses from which length alone predicts an attribute noticeably (or below 1 - this)."""
_SHOWN = 24
"""Attributes in the matrix and its plot; with more of them the cells cannot be read."""


def print_report(report: PreferenceReport, console: Console | None = None) -> None:
    """
    Prints a report: a table of the attributes, the conflicts, and a line for everything else that was found.

    Args:
        report (`PreferenceReport`):
            Of [`check_preferences`].
        console (`Console`, *optional*):
            Where to print; a console on the standard output by default.
    """
    console = console or Console(highlight=False)
    for part in check_parts(report):
        print_part(part, console)
    for line, style in _findings(report):
        console.print(Text(line, style=style))


def check_html(report: PreferenceReport) -> str:
    """A report as a notebook shows it; see [`~fairpo_trl.reporting.render.notebook.parts_html`]."""
    from fairpo_trl.reporting.render.notebook import parts_html

    return parts_html([*check_parts(report), Sentences(tuple(line for line, _ in _findings(report)))])


def check_parts(report: PreferenceReport) -> tuple[Shown, ...]:
    """Counts, the table of the attributes, and their conflicts."""
    rows = ", ".join(f"{split} {count:,}" for split, count in report.splits.items())
    roles = "".join(f"; {role_text(role)} {count:,}" for role, count in sorted(report.roles.items(), reverse=True))
    parts: list[Shown] = [Sentences((f"Pairs: {rows}{roles}",))]
    if report.attributes:
        parts.append(_attribute_block(report))
    if report.conflicts:
        parts.append(_conflict_block(report))
        if len(report.attributes) > 2:
            parts.append(_matrix_block(report))
    return tuple(parts)


def plot_conflicts(report: PreferenceReport, path: str | os.PathLike[str]) -> Path:
    """
    The matrix of conflicts as a PNG: how often two attributes disagree where they rank the same responses.

    Args:
        report (`PreferenceReport`):
            Of [`check_preferences`].
        path (`str` or `os.PathLike`):
            The PNG to write; returned too.

    Raises:
        ValueError: If no two attributes rank the same responses to a prompt.
    """
    # Loaded here: a check without a plot starts at once.
    from matplotlib.ticker import PercentFormatter

    from fairpo_trl.reporting.drawing import BAND, TEXT, new_figure, plain, save_titled

    if not any(conflict.comparable for conflict in report.conflicts):
        raise ValueError("No two attributes rank the same responses to a prompt, so there are no conflicts to draw.")
    shown, names = _largest(report)
    matrix = report.conflict_matrix()[np.ix_(shown, shown)]
    comparable = {frozenset((c.first, c.second)): c.comparable for c in report.conflicts}
    size = 2.6 + 0.75 * len(names)
    figure, axes = new_figure(size + 1.2, size)
    axes.grid(visible=False)
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap="Blues", vmin=0, vmax=1)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            if np.isnan(matrix[i, j]):
                axes.text(j, i, ABSENT, ha="center", va="center", color=BAND)
                continue
            colour = "white" if matrix[i, j] > 0.6 else TEXT
            label = f"{_percent(matrix[i, j])}\nof {comparable[frozenset((first, second))]:,}"
            axes.text(j, i, label, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), [*map(plain, names)], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [*map(plain, names)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1))
    bar.ax.tick_params(colors=TEXT, labelsize=9)
    bar.outline.set_visible(False)
    more = len(report.attributes) - len(names)
    which = f"\n(the {len(names)} attributes with most pairs; {more} more)" if more else ""
    title = "Where attributes disagree: share of the prompts"
    return save_titled(figure, axes, title, f"on which both rank the same responses{which}", path, pad=10)


def _largest(report: PreferenceReport) -> tuple[list[int], list[str]]:
    """Positions and names of the attributes that are shown, in their order."""
    sizes = [sum(entry.pairs.values()) for entry in report.attributes]
    shown = sorted(sorted(range(len(sizes)), key=lambda index: -sizes[index])[:_SHOWN])
    return shown, [report.attributes[index].name for index in shown]


def _attribute_block(report: PreferenceReport) -> Block:
    rows: tuple[Row, ...] = tuple(
        (
            entry.name,
            *([role_text(entry.role)] if report.roles else []),
            *(f"{entry.pairs.get(split, 0):,}" for split in report.splits),
            f"{entry.prompts:,}",
            Value(entry.chosen_longer),
            f"{entry.chosen_length:,.0f} / {entry.rejected_length:,.0f}",
        )
        for entry in report.attributes
    )
    texts = ("attribute", "role") if report.roles else ("attribute",)
    numbers = (*report.splits, "prompts", "chosen\nlonger", "mean characters\nchosen / rejected")
    return Block("Attributes", (*texts, *numbers), (("", rows),), texts=len(texts))


def _conflict_block(report: PreferenceReport) -> Block:
    """The attributes that disagree most."""
    ranked = sorted(report.conflicts, key=lambda conflict: -conflict.share if conflict.comparable else 1)
    title = "Conflicts" if len(ranked) <= _SHOWN else f"Conflicts: the {_SHOWN} largest of {len(ranked):,}"
    header = ("attribute", "and", "shared\nprompts", "comparable", "disagree", "exact\nreverses")
    rows = tuple(
        (
            conflict.first,
            conflict.second,
            f"{conflict.shared:,}",
            f"{conflict.comparable:,}",
            f"{conflict.disagree:,} ({share(conflict.share)})" if conflict.comparable else ABSENT,
            f"{conflict.exact_reverses:,}",
        )
        for conflict in ranked[:_SHOWN]
    )
    return Block(title, header, (("", rows),), texts=2)


def _matrix_block(report: PreferenceReport) -> Block:
    """The matrix; columns are numbered to stay narrow."""
    shown, names = _largest(report)
    matrix = report.conflict_matrix()[np.ix_(shown, shown)]
    rows: tuple[Row, ...] = tuple(
        (f"{number} {name}", *(Value(None if np.isnan(value) else value) for value in line))
        for number, (name, line) in enumerate(zip(names, matrix, strict=True), start=1)
    )
    header = ("attribute", *map(str, range(1, len(names) + 1)))
    return Block("Share of the comparable prompts on which two attributes disagree", header, (("", rows),))


def _findings(report: PreferenceReport) -> Iterator[tuple[str, str]]:
    """What somebody should know before training, as (line, style)."""
    for entry in report.attributes:
        if not 1 - _SKEWED <= entry.chosen_longer <= _SKEWED:
            kind = "longer" if entry.chosen_longer > 0.5 else "shorter"
            often = _percent(max(entry.chosen_longer, 1 - entry.chosen_longer))
            yield f"Length: the chosen response of {entry.name!r} is the {kind} one in {often} of pairs.", "yellow"
        if turned := entry.reversed_prompts:
            yield f"Contradictions: {entry.name!r} prefers x to y and y to x on {turned:,} prompts.", "yellow"
    opposed = [
        f"{conflict.first!r} and {conflict.second!r} on {_percent(conflict.share)}"
        for conflict in sorted(report.conflicts, key=lambda conflict: -conflict.disagree)
        if conflict.comparable and conflict.share > 0.5
    ]
    if opposed:
        more = f", and {len(opposed) - 3} more" if len(opposed) > 3 else ""
        line = (
            f"Conflicts: {', '.join(opposed[:3])}{more} of the prompts that both rank: where two responses are ranked "
            "the other way round, no model can please both. `--pairing consistent` keeps, of ratings, the pairs whose "
            "winner is not worse elsewhere; `--attributes` leaves attributes out."
        )
        yield line, "yellow"
    for split, rows in report.duplicates.items():
        yield f"Repeated pairs: {row_numbers(rows)} of {split} repeat an earlier row.", "yellow"
    for overlap in report.overlaps:
        line = (
            f"Leakage: {overlap.prompts:,} prompts of {overlap.first} are in {overlap.second} too "
            f"({overlap.pairs:,} of its pairs), for example: {overlap.example[:80]!r}."
        )
        yield line, "red"
    if (measured := report.lengths) is not None:
        line = f"Tokens per pair: median {measured.median:,}, 95 % {measured.p95:,}, longest {measured.longest:,}."
        counts = {name: count for name, count in measured.cut.items() if count and measured.limit is not None}
        cut = ", ".join(f"{name} {n:,} ({_percent(n / measured.pairs[name])})" for name, n in counts.items())
        if measured.limit is not None:
            line += f" Cut at {measured.limit:,}: {cut or 'none'}."
        yield line, "yellow" if cut else ""
    for problem in report.refused:
        yield f"Refused by the trainer: {problem.message}", "red"
    if not report.refused and report.tokens_checked:
        yield "The trainer would accept these pairs.", "green"
    elif not report.refused:
        line = (
            "As text, the trainer would accept these pairs. With a tokenizer (`--model_name_or_path MODEL`, in Python "
            "`tokenizer=`) they are checked as tokens too."
        )
        yield line, "green"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"
