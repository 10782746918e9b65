"""All files of the comparison of methods: JSON, Markdown, CSV, LaTeX and pictures."""

import os
import re
from pathlib import Path

from fairpo_trl.reporting.comparison_blocks import heads
from fairpo_trl.reporting.label_exports import comparison_csv, comparison_latex, labels_csv
from fairpo_trl.reporting.label_markdown import render_comparison_markdown
from fairpo_trl.reporting.label_plots import plot_label_deltas
from fairpo_trl.reporting.label_results import (
    LabelComparison,
    method_key,
    read_label_comparison,
    write_label_comparison_json,
)
from fairpo_trl.reporting.pareto_plot import plot_pareto


def write_label_comparison(comparison: LabelComparison, folder: str | os.PathLike[str]) -> Path:
    """Write `comparison.{json,md,csv,tex}`, `comparison_labels.csv` and the pictures into one folder.

    Per head there is a Pareto plot of the methods, one of ablations and variants if it has any, and for its FairPO
    methods one of the changes per label.

    Args:
        comparison: Many methods.
        folder: Created if needed.

    Returns:
        The path of `comparison.md`.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    folder = Path(folder)
    comparison = read_label_comparison(write_label_comparison_json(comparison, folder / "comparison.json"))
    images = {}
    for head in heads(comparison):
        about = comparison["heads"][head]
        for ablations in (False, True):
            if any(
                method["head"] == head
                and (method["section"] in ("ablations", "variants")) == ablations
                and {"privileged", "non_privileged"} <= method.get("delta_reference", {}).keys()
                for method in comparison["methods"]
            ):
                path = folder / _file_name("pareto", head, *(["ablations"] if ablations else []))
                plot_pareto(comparison, path, head, ablations=ablations)
                images[
                    f"Privileged against held labels, {'ablations and variants' if ablations else 'methods'}, {about}"
                ] = path.name
        for method in comparison["methods"]:
            deltas = comparison.get("per_label", {}).get(method_key(method))
            if method["head"] == head and method["name"].startswith("fairpo") and deltas:
                path = folder / _file_name("label_deltas", method["name"], head)
                plot_label_deltas(
                    deltas, comparison["partition"], path, comparison["title"], f"{method['label']}, {about}"
                )
                images[f"Change of average precision per label, {method['label']}, {about}"] = path.name
    (folder / "comparison.csv").write_text(comparison_csv(comparison), encoding="utf-8")
    (folder / "comparison_labels.csv").write_text(labels_csv(comparison), encoding="utf-8")
    (folder / "comparison.tex").write_text(comparison_latex(comparison), encoding="utf-8")
    report = folder / "comparison.md"
    report.write_text(render_comparison_markdown(comparison, images), encoding="utf-8")
    return report


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"\W+", "_", part) for part in parts) + ".png"
