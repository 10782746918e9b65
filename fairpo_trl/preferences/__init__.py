"""Preference data: published sets, own pairs or ratings -> canonical rows, and a check of them. No trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.preferences.check import PreferenceReport, check_preferences
    from fairpo_trl.preferences.formats import Reading, read_pairs
    from fairpo_trl.preferences.load import load_preferences, split_by_prompt
    from fairpo_trl.preferences.own import mix
    from fairpo_trl.preferences.ratings import pairs_from_ratings
    from fairpo_trl.preferences.rows import REASONS, Converted
    from fairpo_trl.preferences.show import plot_conflicts, print_report
    from fairpo_trl.preferences.sources import SOURCES

__all__ = [
    "REASONS",
    "SOURCES",
    "Converted",
    "PreferenceReport",
    "Reading",
    "check_preferences",
    "load_preferences",
    "mix",
    "pairs_from_ratings",
    "plot_conflicts",
    "print_report",
    "read_pairs",
    "split_by_prompt",
]

# Names load on first use: the trainer needs the rules of a pair alone, not tables, plots and converters.
__getattr__ = lazily(
    __name__,
    {
        "check": "PreferenceReport check_preferences",
        "formats": "Reading read_pairs",
        "load": "load_preferences split_by_prompt",
        "own": "mix",
        "ratings": "pairs_from_ratings",
        "rows": "REASONS Converted",
        "show": "plot_conflicts print_report",
        "sources": "SOURCES",
    },
)
