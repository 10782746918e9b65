"""Reads results and shows them: files, terminal tables, plots, Markdown. Knows neither trainers nor torch."""

from fairpo_trl.reporting.markdown import render_markdown, write_report
from fairpo_trl.reporting.plots import ComparisonPoint, plot_comparison, plot_margins, plot_weights, plot_win_rates
from fairpo_trl.reporting.results import Results, check_results, read_results, write_results
from fairpo_trl.reporting.tables import print_results


__all__ = [
    "ComparisonPoint",
    "Results",
    "check_results",
    "plot_comparison",
    "plot_margins",
    "plot_weights",
    "plot_win_rates",
    "print_results",
    "read_results",
    "render_markdown",
    "write_report",
    "write_results",
]
