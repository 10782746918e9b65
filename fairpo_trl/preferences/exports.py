"""Exports of annotation tools, recognised by their columns: Argilla and Label Studio -> pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from fairpo_trl.preferences.converters import argilla, label_studio
from fairpo_trl.preferences.read import Rows, columns_of
from fairpo_trl.preferences.rows import REASONS, Converted


_EXPORTS = {
    "Argilla": (("fields", "responses"), argilla.convert),
    "Label Studio": (("data", "annotations"), label_studio.convert),
}
"""Tool -> columns of its records, and what makes pairs of them."""


def convert_export(rows: Rows, what: str, console: Console) -> Rows:
    """
    The pairs of an annotation tool's export, with a line of what came out; any other rows as they are.

    Raises:
        ValueError: If records cannot be read, or give no pair.
    """
    columns = columns_of(rows)
    for tool, (needed, convert) in _EXPORTS.items():
        if set(needed) <= set(columns):
            converted = convert(rows)
            print_converted(converted, f"{what}, an export of {tool}", console)
            if not converted.rows:
                raise ValueError(
                    f"{what}: none of the {len(rows)} records of {tool} gives a pair; the counts above say why."
                )
            return converted.rows
    return rows


def print_converted(converted: Converted, title: str, console: Console) -> None:
    """Says what was kept, and what was dropped for which reason."""
    kept = listed_counts(Counter(row["attribute"] for row in converted.rows))
    console.print(Text(f"{title}: {len(converted.rows):,} pairs ({kept})"))
    for reason, count in converted.dropped.most_common():
        console.print(Text(f"  dropped {count:,} {REASONS[reason]} ({reason})"))


def listed_counts(counts: Mapping[str, int]) -> str:
    """Names with their counts, at most eight of them."""
    shown = [f"{name} {count:,}" for name, count in counts.items()]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
