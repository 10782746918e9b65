"""All files of a report: JSON, Markdown, the page, CSV, LaTeX and pictures; and the same in the terminal."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from fairpo_trl.files import write_text
from fairpo_trl.reporting.blocks import Report
from fairpo_trl.reporting.comparison_plot import plot_pareto
from fairpo_trl.reporting.comparison_report import comparison_report, detail_block, main_block
from fairpo_trl.reporting.comparison_results import LabelComparison
from fairpo_trl.reporting.generation_report import generation_report
from fairpo_trl.reporting.label_report import MEASURES, label_report
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.numbers import judge_text
from fairpo_trl.reporting.plots import (
    plot_label_deltas,
    plot_margins,
    plot_samples,
    plot_selection,
    plot_weights,
    plot_win_rates,
)
from fairpo_trl.reporting.render.csv import comparison_csv, labels_csv
from fairpo_trl.reporting.render.html import Point, write_page
from fairpo_trl.reporting.render.latex import blocks_latex
from fairpo_trl.reporting.render.markdown import report_markdown
from fairpo_trl.reporting.render.terminal import print_report
from fairpo_trl.reporting.results import Results
from fairpo_trl.reporting.selection_report import PICTURE, card_of_chosen, selection_report
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.reporting.verdict import changes, mean_interval, worst


AnyDocument: TypeAlias = Results | LabelResults | LabelComparison | SelectionResults

_NAMES: dict[type, tuple[str, str]] = {LabelComparison: ("comparison",) * 2, SelectionResults: ("selection",) * 2}
"""Names of the document's file and of the report, where they are not `results` and `report`."""


def report_of(document: AnyDocument, brief: bool = False) -> Report:
    """What every medium shows of a document; `brief`: of labels only those that moved most, for a terminal."""
    if isinstance(document, Results):
        return generation_report(document)
    if isinstance(document, LabelResults):
        return label_report(document, brief)
    return comparison_report(document, brief) if isinstance(document, LabelComparison) else selection_report(document)


def print_results(document: AnyDocument, console: Console | None = None, samples: int = 3) -> None:
    """Prints the tables of a document; see [`print_report`]."""
    print_report(report_of(document, brief=True), console, samples)


def write_report(document: AnyDocument, folder: str | os.PathLike[str]) -> Path:
    """
    Writes a document, its pictures, its report as Markdown and as a page into one folder.

    They are called `results.json`, `report.md` and `report.html`; of a selection `selection.json`, `selection.md` and
    `selection.html`. A comparison of methods becomes `comparison.{json,md,csv,tex}` and `comparison_labels.csv`; per
    head it has a Pareto plot of the methods, one of ablations and variants if there are any, and for FairPO methods
    one of the changes per label.

    Args:
        document ([`Results`], [`LabelResults`], [`LabelComparison`] or [`SelectionResults`]):
            What it lacks is left out of the report; images of its samples lie in the folder already.
        folder (`str` or `os.PathLike`):
            Created if needed.

    Returns:
        `Path`: the path of the Markdown.

    Raises:
        FileNotFoundError: If the image of a sample is not in the folder.
        ValueError: If the file of a sample is no image.
    """
    folder = Path(folder)
    data, stem = _NAMES.get(type(document), ("results", "report"))
    document.write(folder / f"{data}.json")
    images = _draw(document, folder)
    report = folder / f"{stem}.md"
    write_text(report, report_markdown(report_of(document), images))
    if isinstance(document, LabelComparison):
        tables = [table(document, head) for head in document.used_heads() for table in (main_block, detail_block)]
        write_text(folder / "comparison.csv", comparison_csv(document))
        write_text(folder / "comparison_labels.csv", labels_csv(document))
        write_text(folder / "comparison.tex", blocks_latex(tables, document.title))
    else:
        write_html_report([document], report.with_suffix(".html"))
    return report


def write_selection(
    results: SelectionResults, folder: str | os.PathLike[str], save: Callable[[Path], object] | None
) -> Path | None:
    """
    Writes the report of a selection and, in `chosen` beside it, what was chosen with its card.

    Args:
        results ([`SelectionResults`]):
            What was found.
        folder (`str` or `os.PathLike`):
            Created if needed; the `chosen` of an earlier test is removed.
        save (`Callable[[Path], object]`, *optional*):
            Saves what was chosen in a folder; `None` if it cannot be saved.

    Returns:
        `Path`, *optional*: the folder `chosen`; `None` if it is the reference, or cannot be saved.
    """
    write_report(results, folder)
    chosen = Path(folder) / "chosen"
    shutil.rmtree(chosen, ignore_errors=True)  # of an earlier test with other margins
    if results.selection.chosen is None or save is None:
        return None
    save(chosen)
    library = "peft" if (chosen / "adapter_config.json").is_file() else "transformers"
    write_text(chosen / "README.md", card_of_chosen(results, library))
    return chosen


def write_html_report(documents: Sequence[AnyDocument], path: str | os.PathLike[str]) -> Path:
    """
    Writes one self-contained page for one or several candidate models.

    Args:
        documents (`Sequence`):
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
    generated = [document for document in documents if isinstance(document, Results)]
    references = dict.fromkeys(document.reference_name for document in generated)
    title = f"{len(documents)} models against {', '.join(references)}" if len(documents) > 1 else ""
    points: list[Point] = []
    for document in generated:
        gained = list(changes(document, "privileged").values())
        held = changes(document, "non_privileged")
        gain, mean, low = mean_interval(gained), mean_interval(list(held.values())), worst(held)
        if gain and mean and low:
            points.append((document.name or document.title, gain, mean, low[1]))
    return write_page([report_of(document) for document in documents], path, points, title)


def _draw(document: AnyDocument, folder: Path) -> dict[str, str]:
    """The pictures that stand below a report's first part, as description -> name in the folder; written there."""
    if isinstance(document, SelectionResults):
        plot_selection(document, folder / PICTURE)  # a part of the report itself
        return {}
    if isinstance(document, LabelComparison):
        return _draw_comparison(document, folder)
    paths: dict[str, Path] = {}
    if isinstance(document, Results):
        for judge in document.judge_names():
            path = plot_win_rates(document, folder / _file_name("win_rates", judge), judge)
            paths[f"Win rates of all attributes, judged by the {judge_text(judge)}"] = path
    elif deltas := document.changes():
        words, path = MEASURES[document.measure].words, folder / "label_deltas.png"
        plot_label_deltas(deltas, document.partition, path, document.title, measure=words)
        paths[f"Change of {words} per label"] = path
    if document.weights_history:
        paths["Group weights over training"] = plot_weights(document, folder / "weights.png")
    if isinstance(document, Results):
        if document.margins_history:
            paths["Margins of the pairs over training"] = plot_margins(document, folder / "margins.png")
    elif document.samples:
        paths["Images with the best labels of both models"] = plot_samples(document, folder / "samples.png")
    return {about: path.name for about, path in paths.items()}


def _draw_comparison(comparison: LabelComparison, folder: Path) -> dict[str, str]:
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
    return images


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"\W+", "_", part) for part in parts) + ".png"
