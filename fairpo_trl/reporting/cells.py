"""The cells of tables: a text, a number, a mean with its interval, a change, a verdict. Renderers dress them.

A cell keeps its number; how it is written is decided here, once, in pieces which a medium may set apart: what is long
stands below in a terminal, what is a verdict has a colour on a page. No renderer reads a text again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fairpo_trl.reporting.documents import Interval, Number
from fairpo_trl.reporting.numbers import ABSENT, SIGNS, VERDICTS, Sign, Unit, number, verdict


@dataclass(frozen=True)
class Pieces:
    """
    A cell in words.

    Attributes:
        text (`str`): The text or number.
        interval (`str`, *optional*): `[low, high]`.
        sign (`str`, *optional*): `▲`, `▼` or `≈`, where the cell shows it.
        kind (`str`, *optional*): Verdict on a change: `better`, `worse` or `same`.
    """

    text: str
    interval: str = ""
    sign: str = ""
    kind: Sign | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.text, self.interval, self.sign)))


@dataclass(frozen=True)
class Value:
    """A number without an interval; a dash if `value` is `None`."""

    value: Number | None
    unit: Unit = "share"
    signed: bool = False


@dataclass(frozen=True)
class Mean:
    """A mean with its interval."""

    mean: Interval | None
    unit: Unit = "share"


@dataclass(frozen=True)
class Change:
    """A difference from the reference with its interval; `arrow`: whether ▲, ▼ or ≈ stands behind it."""

    change: Interval | None
    unit: Unit = "points"
    arrow: bool = True


@dataclass(frozen=True)
class Outcome:
    """What the interval of a difference says, in words that are readable without colour."""

    of: Interval | None


Cell: TypeAlias = str | Value | Mean | Change | Outcome


def change_of(found: Mapping[str, float] | None) -> Change:
    """A change from its numbers by name (`mean`, `low`, `high`, `seed_sd`); a dash without them."""
    return Change(None if found is None else Interval.model_validate(found))


def difference(found: Interval | None) -> Change:
    """A difference of win rates, or of scores in a judge's own unit."""
    return Change(found, "share", arrow=False)


def pieces(cell: Cell) -> Pieces:
    """A cell in words."""
    if isinstance(cell, str):
        return Pieces(cell)
    if isinstance(cell, Value):
        return Pieces(number(cell.value, cell.unit, signed=cell.signed))
    if isinstance(cell, Outcome):
        found = verdict(cell.of)
        return Pieces(VERDICTS[found] if found else ABSENT, kind=found)
    measured = cell.mean if isinstance(cell, Mean) else cell.change
    if measured is None:
        return Pieces(ABSENT)
    signed = isinstance(cell, Change)
    text = number(measured.mean, cell.unit, signed=signed)
    if measured.seed_sd is not None:
        text += f" ±{number(measured.seed_sd, cell.unit)}"
    if measured.ends is None:
        return Pieces(text)
    low, high = (number(end, cell.unit, signed=signed) for end in measured.ends)
    kind = verdict(measured) if isinstance(cell, Change) else None
    sign = SIGNS[kind] if kind and isinstance(cell, Change) and cell.arrow else ""
    return Pieces(text, f"[{low}, {high}]", sign, kind)


def text_of(cell: Cell) -> str:
    """A cell on one line: `+1.23 ±.30 [+.40, +2.05] ▲`."""
    return str(pieces(cell))


def change_text(found: Mapping[str, float] | None) -> str:
    """A change from its numbers by name, on one line; see [`change_of`]."""
    return text_of(change_of(found))
