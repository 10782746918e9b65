"""The classification half in Markdown. Text that came from data can never become markup."""

import os
from collections.abc import Mapping
from pathlib import Path

from fairpo_trl.reporting.comparison_blocks import (
    confused_block,
    detail_block,
    fell_block,
    heads,
    main_block,
    per_label_block,
)
from fairpo_trl.reporting.html.labels import write_label_html_report
from fairpo_trl.reporting.label_blocks import (
    Block,
    calibration_block,
    data_rows,
    further_blocks,
    groups_block,
    measure_text,
    moved_block,
    promises,
    starred,
    top_text,
)
from fairpo_trl.reporting.label_plots import plot_label_deltas, plot_samples
from fairpo_trl.reporting.label_results import (
    LabelComparison,
    LabelResults,
    check_label_comparison,
    check_label_results,
    difference,
    read_label_results,
    write_label_results,
)
from fairpo_trl.reporting.markdown import escape, pipe_table
from fairpo_trl.reporting.numbers import duration
from fairpo_trl.reporting.plots import plot_weights
from fairpo_trl.reporting.results import without_local_paths


def block_markdown(block: Block) -> str:
    """A block as a table of Markdown under its title; sections begin with a row of their name."""
    rows: list[list[str]] = []
    for name, cells in block.sections:
        if name:
            rows.append([f"*{escape(name)}*", *[""] * (len(block.header) - 1)])
        rows += [[escape(cell) for cell in row] for row in cells]
    header = [escape(_one_line(name)) for name in block.header]
    table = pipe_table(header, rows, numbers_from=block.texts)
    return "\n\n".join(part for part in (f"## {escape(block.title)}", table, escape(block.note)) if part)


def render_label_markdown(results: LabelResults, images: Mapping[str, str] | None = None) -> str:
    """The report of a run as text.

    Args:
        results: The run.
        images: Description -> path of a PNG relative to the report, in the order to be shown.

    Returns:
        Markdown with a final line break.

    Raises:
        ValueError: See `check_label_results`.
    """
    check_label_results(results)
    parts = [f"# {escape(results['title'])}", _about(results), block_markdown(groups_block(results))]
    parts += ["\n".join(f"- {escape(sentence)}" for sentence in promises(results))]
    parts += [image_markdown(text, path) for text, path in (images or {}).items()]
    parts += [block_markdown(block) for block in (moved_block(results, None), *further_blocks(results))]
    if block := calibration_block(results):
        parts += [block_markdown(block)]
    if results.get("samples"):
        rows = [
            [
                escape(sample["id"]),
                ", ".join(escape(starred(results, name)) for name in sample["true"]) or "none",
                *("<br>".join(map(escape, top_text(results, top, sample["true"])))
                  for top in (sample["reference"], sample["trained"])),
            ]
            for sample in results["samples"]
        ]  # fmt: skip
        parts += ["## Best labels per image", pipe_table(["image", "true", "reference", "trained"], rows)]
        parts += [escape("✓: a true label; * privileged. Probabilities in per cent.")]
    parts += [f"- {escape(note)}" for note in results.get("notes", [])]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_label_report(results: LabelResults, folder: str | os.PathLike[str]) -> Path:
    """Write `results.json`, the plots, `report.md` and the page `report.html` of a run into one folder.

    Args:
        results: The run; images of its samples lie in the folder already.
        folder: Created if needed.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: See `check_label_results`.
        FileNotFoundError: The image of a sample is not in the folder.
    """
    folder = Path(folder)
    results = read_label_results(write_label_results(results, folder / "results.json"))  # without local paths
    images = {}
    by_label = results["comparison"]["by_label"]
    deltas = {name: found for name in results["partition"] if (found := difference(by_label[name]))}
    if deltas:
        words = measure_text(results).words
        path = plot_label_deltas(
            deltas, results["partition"], folder / "label_deltas.png", results["title"], measure=words
        )
        images[f"Change of {words} per label"] = path.name
    if results.get("weights_history"):
        images["Group weights over training"] = plot_weights(results, folder / "weights.png").name
    if results.get("samples"):
        images["Images with the best labels of both models"] = plot_samples(results, folder / "samples.png").name
    report = folder / "report.md"
    report.write_text(render_label_markdown(results, images), encoding="utf-8")
    write_label_html_report(results, folder / "report.html")
    return report


def render_comparison_markdown(comparison: LabelComparison, images: Mapping[str, str] | None = None) -> str:
    """The comparison of many methods as text.

    Args:
        comparison: Many methods.
        images: Description -> path of a PNG relative to the report, in the order to be shown.

    Returns:
        Markdown with a final line break.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    check_label_comparison(comparison)
    parts = [f"# {escape(comparison['title'])}", _about(comparison)]
    parts += ["\n".join(f"- {escape(note)}" for note in comparison.get("notes", []))]
    parts += [image_markdown(text, path) for text, path in (images or {}).items()]
    for head in heads(comparison):
        blocks = (
            main_block(comparison, head),
            detail_block(comparison, head),
            fell_block(comparison, head),
            per_label_block(comparison, head),
        )
        parts += [block_markdown(block) for block in blocks if block is not None]
    if block := confused_block(comparison):
        parts += [block_markdown(block)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(document: LabelResults | LabelComparison) -> str:
    rows = [[escape(name), escape(text)] for name, text in data_rows(document)]
    if "method" in document:
        rows.append(["method", escape(document["method"])])  # type: ignore[typeddict-item]
    if "seeds" in document:
        rows.append(["seeds", ", ".join(map(str, document["seeds"]))])  # type: ignore[typeddict-item]
    if document.get("settings"):
        rows.append(["settings", ", ".join(escape(f"{k} = {value}") for k, value in document["settings"].items())])
    if "hardware" in document:
        rows.append(["hardware", escape(document["hardware"])])
    if "seconds" in document:
        rows.append(["time", duration(document["seconds"])])
    if "command" in document:
        rows.append(["command", escape(without_local_paths(document["command"]))])
    return pipe_table(["", ""], rows)


def image_markdown(text: str, path: str) -> str:
    """An image with its description; `path` is relative to the document."""
    return f"![{escape(text)}]({path.replace(' ', '%20')})"


def _one_line(name: str) -> str:
    """A name of a column without the line breaks a terminal wants; a hyphen before one belongs to it."""
    return name.replace("-\n", "").replace("\n", " ")
