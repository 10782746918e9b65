"""Charts as positions in per cent, which the templates draw as inline SVG that keeps its text size at any width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from fairpo_trl.reporting.blocks import MOST_NAMED, Block, Lines, roles_of_lines
from fairpo_trl.reporting.cells import Change, Mean, difference, pieces, text_of
from fairpo_trl.reporting.documents import Interval, Role
from fairpo_trl.reporting.numbers import role_text, share


COLOURS = 7
"""Colours of the style sheet, `s0` to `s6`."""

MOST_STEPS, MOST_FIGURES = 300, 12_000
"""Steps of a history that are drawn and listed, and figures in all; of more steps, even ones from first to last."""


class Scale(NamedTuple):
    """An axis: `ticks` are (position, text), `neutral` is the position of "as good as the reference"."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    neutral: float | None

    def at(self, value: float) -> float:
        """Position of a value in per cent of the axis, from its low end."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


class Mark(NamedTuple):
    """A point with its interval on one axis, as positions."""

    at: float
    low: float | None
    high: float | None
    role: Role


class DotColumn(NamedTuple):
    """A column that draws what another says: one mark per row (`None`: not measured), and that row's verdict."""

    title: str
    scale: Scale
    marks: tuple[Mark | None, ...]
    kinds: tuple[str, ...]


class Line(NamedTuple):
    """One line: class of its colour, whether it is dashed (held), its SVG points and its last value."""

    name: str
    colour: str
    dashed: bool
    points: str
    last: str


class History(NamedTuple):
    """
    Lines over optimizer steps.

    `rows` are the figures behind them, without those of `left_out` steps. If there are too many lines to be `named`,
    `highest` are the three that end highest.
    """

    title: str
    unit: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    named: bool
    highest: tuple[Line, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int


class PlanePoint(NamedTuple):
    """A point of a plane with both intervals, as positions; `letter` stands beside it, `name` in the legend."""

    letter: str
    name: str
    colour: str
    x: Mark
    y: Mark
    text: str


class Plane(NamedTuple):
    """Two axes with "as good as the reference" in both."""

    title: str
    x: Scale
    y: Scale
    x_title: str
    y_title: str
    points: tuple[PlanePoint, ...]


def scale(
    values: Sequence[float], *, neutral: float | None = None, most: int = 5, signed: bool = False, factor: float = 1.0
) -> Scale:
    """
    An axis that holds all values (at least one) and the neutral one, which is as good as the reference.

    There are at most `most` spaces between ticks, which stand at round numbers; `factor` is what their texts are
    multiplied by: 100 for points.
    """
    known = [*values, *([] if neutral is None else [neutral])]
    low, high = min(known), max(known)
    margin = 0.04 * (high - low) if high - low > 1e-9 else 0.1
    low, high = low - margin, high + margin
    ticks = [t for t in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= t <= high]
    rounded = [round(factor * tick, 9) + 0.0 for tick in ticks]  # + 0.0: no negative zero
    digits = max((len(f"{tick:.9f}".rstrip("0").partition(".")[2]) for tick in rounded), default=0)
    texts = [f"{tick:{'+' if signed else ''}.{digits}f}" if tick else "0" for tick in rounded]
    bare = Scale(low, high, (), None)
    return Scale(
        low,
        high,
        tuple((bare.at(tick), re.sub(r"^([+-]?)0\.", r"\1.", text)) for tick, text in zip(ticks, texts, strict=True)),
        None if neutral is None else bare.at(neutral),
    )


def ends(values: Sequence[Interval | None]) -> list[float]:
    """All means and ends of intervals."""
    return [number for value in values if value is not None for number in (value.mean, *(value.ends or ()))]


def mark(axis: Scale, value: Interval | None, role: Role) -> Mark | None:
    """A value as a mark on an axis; `None` if there is no value."""
    if value is None:
        return None
    low, high = map(axis.at, value.ends) if value.ends else (None, None)
    return Mark(axis.at(value.mean), low, high, role)


def drawn_column(block: Block) -> DotColumn | None:
    """What a block's drawn column says, as marks; `None` if it has none, or nothing in it was measured."""
    if block.drawn is None:
        return None
    cells = [row[block.drawn] for row in block.rows()]
    values = [c.change if isinstance(c, Change) else c.mean if isinstance(c, Mean) else None for c in cells]
    if not ends(values):
        return None
    differences = any(isinstance(cell, Change) for cell in cells)
    in_points = any(isinstance(cell, Change) and cell.unit == "points" for cell in cells)
    axis = scale(
        ends(values), neutral=0.0 if differences else 0.5, signed=differences, factor=100.0 if in_points else 1.0
    )
    marks = tuple(mark(axis, value, role) for value, role in zip(values, block.roles, strict=True))
    kinds = tuple(pieces(cell).kind or "" for cell in cells)
    return DotColumn("worse ← → better", axis, marks, kinds)


def history(shown: Lines) -> History:
    """Lines of all names over the steps, privileged ones first."""
    roles = roles_of_lines(shown.entries, shown.partition)
    kept = _thinned(shown.entries, min(MOST_STEPS, max(2, MOST_FIGURES // len(roles))))
    x = scale([entry["step"] for entry in kept], most=6)
    y = scale([v for entry in kept for name, v in entry.items() if name != "step"], neutral=shown.neutral, most=6)
    named = len(roles) <= MOST_NAMED
    lines, last_values = [], []
    for i, (name, role) in enumerate(roles.items()):
        privileged = role == "privileged"
        found = [entry for entry in kept if name in entry]
        last_values.append(found[-1][name])
        at = [(x.at(entry["step"]), 100 - y.at(entry[name])) for entry in found]
        if len(at) == 1:  # a single step: only a line of some length can be seen
            at = [(at[0][0] - 1, at[0][1]), (at[0][0] + 1, at[0][1])]
        lines.append(
            Line(
                role_text(name),
                f"s{i % COLOURS}" if named else ("privileged" if privileged else "held"),
                not privileged,
                " ".join(f"{a:.2f},{b:.2f}" for a, b in at),
                share(found[-1][name]),
            )
        )
    rows = tuple((f"{entry['step']:g}", *(share(entry.get(name)) for name in roles)) for entry in kept)
    header = ("step", *map(role_text, roles))
    highest = [] if named else sorted(range(len(lines)), key=lambda i: -last_values[i])[:3]
    return History(
        shown.title, shown.unit, x, y, tuple(lines), named, tuple(lines[i] for i in highest), header, rows,
        len(shown.entries) - len(kept),
    )  # fmt: skip


def plane(
    title: str,
    axes: tuple[str, str],
    points: Sequence[tuple[str, Interval, Interval]],
    all_values: Sequence[tuple[Interval, Interval]],
) -> Plane:
    """Points of (name, x, y) with 0 as good as the reference; `all_values` are what panels side by side share."""
    x = scale(ends([value for value, _ in all_values]), neutral=0.0, most=6, signed=True)
    y = scale(ends([value for _, value in all_values]), neutral=0.0, most=6, signed=True)
    found = []
    for i, (name, across, up) in enumerate(points):
        across_mark, up_mark = mark(x, across, "privileged"), mark(y, up, "non_privileged")
        assert across_mark is not None and up_mark is not None
        letter = ascii_uppercase[i % 26] + (str(i // 26 + 1) if i >= 26 else "")
        said = f"{name}: {axes[0]} {text_of(difference(across))}, {axes[1]} {text_of(difference(up))}"
        found.append(PlanePoint(letter, name, f"s{i % COLOURS}", across_mark, up_mark, said))
    return Plane(title, x, y, *axes, tuple(found))


def _thinned(entries: Sequence[Mapping[str, float]], most: int) -> list[Mapping[str, float]]:
    if len(entries) <= most:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most)]
