"""
Reads results and shows them: files, terminal tables, plots, Markdown, a page. Knows neither trainers nor torch.

A results document (`results.py`, `label_results.py`) becomes a [`Report`] of typed parts (`generation_report.py`,
`label_report.py`, `comparison_report.py`), which a renderer (`render/`) shows in its medium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.reporting.comparison_plot import ComparisonPoint, plot_comparison
    from fairpo_trl.reporting.comparison_results import LabelComparison
    from fairpo_trl.reporting.label_results import LabelResults
    from fairpo_trl.reporting.plots import plot_margins, plot_weights, plot_win_rates
    from fairpo_trl.reporting.results import Results
    from fairpo_trl.reporting.writers import print_results, write_html_report, write_report

__all__ = [
    "ComparisonPoint",
    "LabelComparison",
    "LabelResults",
    "Results",
    "plot_comparison",
    "plot_margins",
    "plot_weights",
    "plot_win_rates",
    "print_results",
    "write_html_report",
    "write_report",
]

# Loaded on first use: a number in words needs no plots.
__getattr__ = lazily(
    __name__,
    {
        "comparison_plot": "ComparisonPoint plot_comparison",
        "comparison_results": "LabelComparison",
        "label_results": "LabelResults",
        "plots": "plot_margins plot_weights plot_win_rates",
        "results": "Results",
        "writers": "print_results write_html_report write_report",
    },
)
