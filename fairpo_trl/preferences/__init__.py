"""Preference data: published sets, own pairs or ratings -> canonical rows, and a check of them. No trainer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from fairpo_trl.preferences.check import PreferenceReport, check_preferences
    from fairpo_trl.preferences.formats import Reading, read_pairs
    from fairpo_trl.preferences.load import load_preferences
    from fairpo_trl.preferences.own import mix
    from fairpo_trl.preferences.ratings import pairs_from_ratings
    from fairpo_trl.preferences.rows import REASONS, Converted
    from fairpo_trl.preferences.show import plot_conflicts, print_report
    from fairpo_trl.preferences.sources import SOURCES
    from fairpo_trl.preferences.splits import split_by_prompt

# Names load on first use: the trainer needs the rules of a pair alone, not tables, plots and converters.
_MODULE_OF = {
    "PreferenceReport": "check",
    "check_preferences": "check",
    "Reading": "formats",
    "read_pairs": "formats",
    "load_preferences": "load",
    "mix": "own",
    "pairs_from_ratings": "ratings",
    "REASONS": "rows",
    "Converted": "rows",
    "plot_conflicts": "show",
    "print_report": "show",
    "SOURCES": "sources",
    "split_by_prompt": "splits",
}

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


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
