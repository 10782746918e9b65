"""Reads results and shows them: files, terminal tables, plots, Markdown. Knows neither trainers nor torch."""

from fairpo_trl.reporting.html import write_html_report, write_label_html_report
from fairpo_trl.reporting.label_markdown import write_label_report
from fairpo_trl.reporting.label_results import LabelComparison, LabelResults
from fairpo_trl.reporting.label_tables import print_label_comparison, print_label_results
from fairpo_trl.reporting.label_writers import write_label_comparison
from fairpo_trl.reporting.markdown import render_markdown, write_report
from fairpo_trl.reporting.plots import ComparisonPoint, plot_comparison, plot_margins, plot_weights, plot_win_rates
from fairpo_trl.reporting.results import Results, check_results, read_results, write_results
from fairpo_trl.reporting.tables import print_results


__all__ = [
    "ComparisonPoint",
    "LabelComparison",
    "LabelResults",
    "Results",
    "check_results",
    "plot_comparison",
    "plot_margins",
    "plot_weights",
    "plot_win_rates",
    "print_label_comparison",
    "print_label_results",
    "print_results",
    "read_results",
    "render_markdown",
    "write_html_report",
    "write_label_comparison",
    "write_label_html_report",
    "write_label_report",
    "write_report",
    "write_results",
]
