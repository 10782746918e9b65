"""Preference data: published sets, own pairs or ratings -> canonical rows, and a check of them. No trainer."""

from fairpo_trl.preferences.check import PreferenceReport, check_preferences
from fairpo_trl.preferences.load import load_preferences
from fairpo_trl.preferences.own import mix
from fairpo_trl.preferences.ratings import pairs_from_ratings
from fairpo_trl.preferences.rows import REASONS, Converted
from fairpo_trl.preferences.show import plot_conflicts, print_report
from fairpo_trl.preferences.sources import SOURCES
from fairpo_trl.preferences.splits import split_by_prompt


__all__ = [
    "REASONS",
    "SOURCES",
    "Converted",
    "PreferenceReport",
    "check_preferences",
    "load_preferences",
    "mix",
    "pairs_from_ratings",
    "plot_conflicts",
    "print_report",
    "split_by_prompt",
]
