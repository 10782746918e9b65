"""How numbers are written in every table and plot, and what counts as better or worse."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fairpo_trl.reporting.documents import Interval


ABSENT = "–"
"""Written where something was not measured."""

Sign: TypeAlias = Literal["better", "worse", "same"]
SIGNS: dict[Sign, str] = {"better": "▲", "worse": "▼", "same": "≈"}
VERDICTS: dict[Sign, str] = {"better": "▲ better", "worse": "▼ worse", "same": "≈ unclear"}

Unit: TypeAlias = Literal["share", "percent", "points", "count", "decimal", "fine"]
"""`share`: .73; `percent`: a share as 73.1; `points`: a difference of shares as 1.20; `fine`: four digits."""

_FORMATS: dict[Unit, tuple[float, int, bool]] = {  # factor, digits, whether the zero before the point is left out
    "share": (1, 2, True),
    "percent": (100, 1, False),
    "points": (100, 2, True),
    "count": (1, 0, False),
    "decimal": (1, 2, False),
    "fine": (1, 4, False),
}


def number(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """A number as text (`unit` says how, see [`Unit`]), or a dash if it is absent; never a negative zero."""
    if value is None:
        return ABSENT
    factor, digits, bare = _FORMATS[unit]
    text = f"{abs(factor * value):.{digits}f}"
    sign = "" if not text.strip("0.") else "-" if value < 0 else "+" if signed else ""
    return sign + (text[1:] if bare and text.startswith("0.") else text)


def share(value: float | None) -> str:
    """A share with two digits and no leading zero (`.73`), or a dash if absent."""
    return number(value, "share")


def percent(value: float | None) -> str:
    """A share in per cent with one digit (`68.4`), or a dash if absent."""
    return number(value, "percent")


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with a sign (`+1.23`, `-.40`), or a dash if absent."""
    return number(value, "points", signed=True)


def verdict(difference: Interval | None) -> Sign | None:
    """Whether the interval of a difference lies above zero, below zero, or holds it; `None` without an interval."""
    if difference is None or difference.ends is None:
        return None
    low, high = difference.ends
    return "better" if low > 0 else "worse" if high < 0 else "same"


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `12 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def role_text(role: str | None) -> str:
    """The word for a role in prose: `held` for `non_privileged`, any other name as it is; nothing for no role."""
    return "held" if role == "non_privileged" else role or ""


def judge_text(judge: str) -> str:
    """A judge's name in prose."""
    return judge.replace("_", " ")


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
