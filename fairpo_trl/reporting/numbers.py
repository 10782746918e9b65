"""How numbers are written in every table and plot, and what counts as better or worse."""

import re
from collections.abc import Mapping
from typing import Literal

from fairpo_trl.reporting.results import AttributeResult, Delta, Interval


ABSENT = "–"
"""Written where something was not measured."""

VERDICTS = {"better": "▲ better", "worse": "▼ worse", "same": "≈ unclear"}

GUARD_LABELS = {
    "completions": "completions",
    "mean_words": "words per completion",
    "repeating_share": "repeats a run of 4 words, %",
    "short_share": "3 words or fewer, %",
    "unended_share": "cut at the length limit, %",
    "distinct_share": "distinct texts, %",
    "mean_token_log_prob": "log-prob. per token under the reference, nats",
}


def share(value: float | None) -> str:
    """A share with two digits and no leading zero (`.73`), or a dash if absent."""
    return ABSENT if value is None else _two_digits(value)


def interval(value: Interval | None, *, signed: bool = False) -> str:
    """`.73 [.68, .78]`, without brackets if there is no interval; `signed` puts a plus before positive numbers."""
    if value is None:
        return ABSENT

    def number(x: float) -> str:
        text = share(x)
        return f"+{text}" if signed and x > 0 and text != ".00" else text

    if "low" not in value or "high" not in value:
        return number(value["mean"])
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def percent(value: float | None) -> str:
    """A share in per cent with one digit (`68.4`), or a dash if absent."""
    return ABSENT if value is None else f"{100 * value:.1f}"


def pair_cells(entry: AttributeResult) -> list[str]:
    """Held-out pairs of one attribute: count, accuracy of both models, share inside the hinge, final weight."""
    accuracy = entry.get("pair_accuracy")
    return [
        str(entry["pairs"]) if "pairs" in entry else ABSENT,
        share(accuracy.get("reference") if accuracy else None),
        share(accuracy["trained"] if accuracy else None),
        share(entry.get("inside_hinge")),
        share(entry.get("final_weight")),
    ]


def win_rate_cells(entry: AttributeResult, judge: str, equal_length: bool) -> list[str]:
    """Win rates of an attribute by a judge: reference against itself, trained, perhaps at equal length, difference."""
    rates = entry.get("win_rate", {}).get(judge)
    at_length = [interval(entry.get("length_controlled", {}).get(judge))] if equal_length else []
    return [
        interval(rates.get("reference_vs_itself") if rates else None),
        interval(rates["trained"] if rates else None),
        *at_length,
        interval(rates.get("difference") if rates else None, signed=True),
    ]


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with a sign (`+1.23`, `-.40`), or a dash if absent."""
    if value is None:
        return ABSENT
    text = _two_digits(100 * value)
    return text if text == ".00" or value < 0 else f"+{text}"


def delta(value: Delta | None) -> str:
    """`+1.23 ±.30 [+.40, +2.05] ▲` in points: spread over seeds, interval and the verdict's sign where there are."""
    if value is None:
        return ABSENT
    text = points(value["mean"])
    if (spread := value.get("seed_sd")) is not None:
        text += f" ±{_two_digits(100 * spread)}"
    if "low" in value and "high" in value:
        text += f" [{points(value['low'])}, {points(value['high'])}]"
    found = verdict(value)
    return f"{text} {VERDICTS[found][0]}" if found else text


def verdict(difference: Interval | None) -> Literal["better", "worse", "same"] | None:
    """Whether the interval of a difference lies above zero, below zero, or holds it; `None` without an interval."""
    if difference is None or "low" not in difference or "high" not in difference:
        return None
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "same"


def verdict_text(difference: Interval | None) -> str:
    """The verdict in words with a sign, readable without colour."""
    found = verdict(difference)
    return VERDICTS[found] if found else ABSENT


def guard(name: str, values: Mapping[str, float]) -> str:
    """One guard as text: shares in per cent, counts as integers, the rest with two digits; a dash if absent."""
    if name not in values:
        return ABSENT
    value = values[name]
    if name.endswith("_share"):
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if name == "completions" else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `12 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def role_text(role: str) -> str:
    """`privileged` or `held`."""
    return "held" if role == "non_privileged" else role


def _two_digits(value: float) -> str:
    text = f"{value:.2f}"
    if text == "-0.00":
        return ".00"
    return re.sub(r"^(-?)0\.", r"\1.", text)
