"""All files of a report: JSON, Markdown, the page, CSV, LaTeX and pictures; and the same in the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fairpo_trl.files import write_text
from fairpo_trl.reporting.comparison_report import comparison_report, detail_block, main_block
from fairpo_trl.reporting.comparison_results import LabelComparison
from fairpo_trl.reporting.generation_report import generation_report
from fairpo_trl.reporting.label_plots import plot_label_deltas, plot_samples
from fairpo_trl.reporting.label_report import MEASURES, label_report
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.numbers import judge_text
from fairpo_trl.reporting.pareto_plot import plot_pareto
from fairpo_trl.reporting.plots import plot_margins, plot_weights, plot_win_rates
from fairpo_trl.reporting.render.csv import comparison_csv, labels_csv
from fairpo_trl.reporting.render.html import Point, write_page
from fairpo_trl.reporting.render.latex import blocks_latex
from fairpo_trl.reporting.render.markdown import report_markdown
from fairpo_trl.reporting.render.terminal import print_report
from fairpo_trl.reporting.results import Results
from fairpo_trl.reporting.verdict import changes, mean_interval, worst


def print_results(results: Results, console: Console | None = None, samples: int = 3) -> None:
    """Prints all tables of a language model; see [`print_report`]."""
    print_report(generation_report(results), console, samples)


def print_label_results(results: LabelResults, console: Console | None = None, samples: int = 3) -> None:
    """Prints all tables of a multi-label run; see [`print_report`]."""
    print_report(label_report(results, brief=True), console, samples)


def print_label_comparison(comparison: LabelComparison, console: Console | None = None, held_labels: int = 10) -> None:
    """Prints the tables of a comparison, with the `held_labels` held labels that fell most; see [`print_report`]."""
    print_report(comparison_report(comparison, brief=True, held_labels=held_labels), console)


def write_report(results: Results, folder: str | os.PathLike[str]) -> Path:
    """
    Writes `results.json`, its plots, `report.md` and the page `report.html` into one folder.

    Args:
        results ([`Results`]):
            A run; what it lacks is left out of the report.
        folder (`str` or `os.PathLike`):
            Created if needed.

    Returns:
        `Path`: the path of `report.md`.
    """
    folder = Path(folder)
    results.write(folder / "results.json")
    images = {}
    for judge in results.judge_names():
        path = plot_win_rates(results, folder / _file_name("win_rates", judge), judge)
        images[f"Win rates of all attributes, judged by the {judge_text(judge)}"] = path.name
    if results.weights_history:
        images["Group weights over training"] = plot_weights(results, folder / "weights.png").name
    if results.margins_history:
        images["Margins of the pairs over training"] = plot_margins(results, folder / "margins.png").name
    report = folder / "report.md"
    write_text(report, report_markdown(generation_report(results), images))
    write_html_report([results], folder / "report.html")
    return report


def write_html_report(documents: Sequence[Results], path: str | os.PathLike[str]) -> Path:
    """
    Writes one self-contained page for one or several candidate models.

    Args:
        documents (`Sequence[Results]`):
            The results of each candidate; with several a switch chooses between them.
        path (`str` or `os.PathLike`):
            The page; its folder is created if needed.

    Returns:
        `Path`: the path.

    Raises:
        ValueError: If there is no document.
        OSError: If the page cannot be written.
    """
    if not documents:
        raise ValueError("There are no results to report: pass at least one document.")
    references = dict.fromkeys(document.reference_name for document in documents)
    title = f"{len(documents)} models against {', '.join(references)}" if len(documents) > 1 else ""
    points: list[Point] = []
    for document in documents:
        gained = list(changes(document, "privileged").values())
        held = changes(document, "non_privileged")
        gain, mean, low = mean_interval(gained), mean_interval(list(held.values())), worst(held)
        if gain and mean and low:
            points.append((document.name or document.title, gain, mean, low[1]))
    return write_page([generation_report(document) for document in documents], path, points, title)


def write_label_report(results: LabelResults, folder: str | os.PathLike[str]) -> Path:
    """
    Writes `results.json`, the plots, `report.md` and the page `report.html` of a run into one folder.

    Args:
        results ([`LabelResults`]):
            The run; images of its samples lie in the folder already.
        folder (`str` or `os.PathLike`):
            Created if needed.

    Returns:
        `Path`: the path of `report.md`.

    Raises:
        FileNotFoundError: If the image of a sample is not in the folder.
        ValueError: If the file of a sample is no image.
    """
    folder = Path(folder)
    results.write(folder / "results.json")
    images = {}
    if deltas := results.changes():
        words = MEASURES[results.measure].words
        path = plot_label_deltas(deltas, results.partition, folder / "label_deltas.png", results.title, measure=words)
        images[f"Change of {words} per label"] = path.name
    if results.weights_history:
        images["Group weights over training"] = plot_weights(results, folder / "weights.png").name
    if results.samples:
        images["Images with the best labels of both models"] = plot_samples(results, folder / "samples.png").name
    report = folder / "report.md"
    write_text(report, report_markdown(label_report(results), images))
    write_label_html_report(results, folder / "report.html")
    return report


def write_label_html_report(results: LabelResults, path: str | os.PathLike[str]) -> Path:
    """Writes one self-contained page of a multi-label run; see [`write_page`]."""
    return write_page([label_report(results)], path)


def write_label_comparison(comparison: LabelComparison, folder: str | os.PathLike[str]) -> Path:
    """
    Writes `comparison.{json,md,csv,tex}`, `comparison_labels.csv` and the pictures into one folder.

    Per head there is a Pareto plot of the methods, one of ablations and variants if it has any, and for its FairPO
    methods one of the changes per label.

    Args:
        comparison ([`LabelComparison`]):
            Many methods.
        folder (`str` or `os.PathLike`):
            Created if needed.

    Returns:
        `Path`: the path of `comparison.md`.
    """
    folder = Path(folder)
    comparison.write(folder / "comparison.json")
    images = {}
    for head in comparison.used_heads():
        about, methods = comparison.heads[head], comparison.of_head(head)
        for ablations in (False, True):
            if any(
                (method.section in ("ablations", "variants")) == ablations
                and {"privileged", "non_privileged"} <= method.delta_reference.keys()
                for method in methods
            ):
                path = folder / _file_name("pareto", head, *(["ablations"] if ablations else []))
                plot_pareto(comparison, path, head, ablations=ablations)
                what = "ablations and variants" if ablations else "methods"
                images[f"Privileged against held labels, {what}, {about}"] = path.name
        for method in comparison.methods:
            deltas = comparison.per_label.get(method.key)
            if method.head == head and method.name.startswith("fairpo") and deltas:
                path = folder / _file_name("label_deltas", method.name, head)
                plot_label_deltas(deltas, comparison.partition, path, comparison.title, f"{method.label}, {about}")
                images[f"Change of average precision per label, {method.label}, {about}"] = path.name
    heads = comparison.used_heads()
    blocks = [block for head in heads for block in (main_block(comparison, head), detail_block(comparison, head))]
    write_text(folder / "comparison.csv", comparison_csv(comparison))
    write_text(folder / "comparison_labels.csv", labels_csv(comparison))
    write_text(folder / "comparison.tex", blocks_latex(blocks, comparison.title))
    report = folder / "comparison.md"
    write_text(report, report_markdown(comparison_report(comparison), images))
    return report


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"\W+", "_", part) for part in parts) + ".png"
