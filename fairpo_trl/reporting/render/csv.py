"""The comparison of methods as CSV, for other programs. No cell of text is a formula."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fairpo_trl.reporting.comparison_results import LabelComparison
from fairpo_trl.reporting.label_results import GROUPS, METRICS


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: such a beginning gets an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def comparison_csv(comparison: LabelComparison) -> str:
    """One line per method and head. Metrics and their differences are shares from 0 to 1; what is absent is empty."""
    rows: list[dict[str, Any]] = []
    for method in comparison.methods:
        row: dict[str, Any] = {
            "section": method.section,
            "head": csv_text(method.head),
            "method": csv_text(method.name),
            "label": csv_text(method.label),
            "seeds": method.seeds,
            "seconds": method.seconds,
        }
        for group in GROUPS:
            for metric in METRICS:
                row[f"{group}_{metric}"] = method.groups.get(group, {}).get(metric)
                row[f"{group}_{metric}_seed_sd"] = method.seed_sd.get(group, {}).get(metric)
        for against, deltas in (("reference", method.delta_reference), ("continued", method.delta_continued)):
            for group in GROUPS:
                for part in ("mean", "low", "high", "seed_sd"):
                    row[f"{group}_map_delta_{against}_{part}"] = getattr(deltas.get(group), part, None)
        row |= {f"hinge_{part}": getattr(method.hinge, part, None) for part in ("pairs", "labels")}
        row["confusion"] = method.confusion
        row |= {f"map_{band}": method.bands.get(band) for band in ("head", "mid", "tail")}
        row["held_labels_fell"] = _names(method.fell)
        row["held_labels_fell_surely"] = _names(method.fell_surely)
        row |= {
            f"{group}_slides_protocol_map_not_comparable": method.groups.get(group, {}).get("paper_map")
            for group in GROUPS
        }
        rows.append(row)
    baselines: list[dict[str, Any]] = [
        {"section": "trivial", "method": csv_text(name), "label": csv_text(name)}
        | {f"{group}_{metric}": values.get(metric) for group, values in groups.items() for metric in METRICS}
        for name, groups in comparison.trivial.items()
    ]
    return _csv([*baselines, *rows], list(rows[0]) if rows else ["section", "method"])


def labels_csv(comparison: LabelComparison) -> str:
    """One line per method, head and label: its change of average precision against the reference, as a share."""
    rows = []
    for method in comparison.methods:
        for label, found in comparison.per_label.get(method.key, {}).items():
            rows.append(
                {
                    "head": csv_text(method.head),
                    "method": csv_text(method.name),
                    "label": csv_text(label),
                    "role": comparison.partition[label],
                    "positives_in_train": comparison.label_counts[label],
                    "ap_delta": found.mean,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return _csv(rows, ["head", "method", "label", "role", "positives_in_train", "ap_delta", "low", "high"])


def _csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _names(names: list[str] | None) -> str | None:
    return None if names is None else csv_text("; ".join(names))
