"""The HTML report of multi-label runs: of the classifier, and of a language model that writes label sets."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fairpo_trl.reporting.html.charts import DotColumn, ends, history, mark, scale
from fairpo_trl.reporting.html.page import write_page
from fairpo_trl.reporting.html.verdict import label_verdict
from fairpo_trl.reporting.label_blocks import (
    calibration_block,
    data_rows,
    further_blocks,
    groups_block,
    label_deltas,
    moved_block,
    promises,
)
from fairpo_trl.reporting.label_plots import sample_image
from fairpo_trl.reporting.label_results import (
    LabelResults,
    LabelSample,
    check_label_results,
    difference,
    public_document,
)
from fairpo_trl.reporting.numbers import delta, duration, verdict
from fairpo_trl.reporting.results import Delta, Role


@dataclass(frozen=True)
class Guess:
    """A label with its probability; `right` if it is a true one of the image."""

    name: str
    role: Role
    right: bool
    percent: float


@dataclass(frozen=True)
class Picture:
    """An image as a data address (`None` without a file), its true labels and the best ones of both models."""

    id: str
    source: str | None
    true: tuple[tuple[str, Role], ...]
    guesses: tuple[tuple[str, tuple[Guess, ...]], ...]


def write_label_html_report(results: LabelResults, path: str | os.PathLike[str]) -> Path:
    """Write one self-contained page of a run.

    Args:
        results: The run; the images of its samples lie in the folder of the page.
        path: The page; its folder is created if needed.

    Returns:
        The path.

    Raises:
        ValueError: See `check_label_results`; or the file of a sample is no image.
        FileNotFoundError: The image of a sample is not in the folder.
    """
    check_label_results(results)
    results = cast(LabelResults, public_document(results))
    path = Path(path)
    found = {name: difference(row) for name, row in label_deltas(results).items()}
    rows = moved_block(results, None)
    measured = [(row[0], value) for row in rows.rows() if (value := found[row[0]])]
    level = results["comparison"]["level"]
    by_chance = (1 - level) / 2 * sum(results["partition"][name] == "non_privileged" for name, _ in measured)
    weights = history(
        "Group weights during training", "weight", results.get("weights_history", []), results["partition"], None
    )
    return write_page(
        "labels.html",
        path,
        kind="label sets" if results.get("measure") == "F1" else "multi-label classifier",
        title=results["title"],
        verdict=label_verdict(results),
        promises=promises(results),
        groups=groups_block(results),
        labels=rows,
        dots=_dots(measured, results),
        rows=[{"role": results["partition"][name], "kind": verdict(value) or ""} for name, value in measured],
        unmeasured=[name for name, value in found.items() if value is None],
        level=f"{100 * level:.0f}",
        by_chance=f"{by_chance:.1f}" if by_chance >= 0.1 else "",
        calibration=calibration_block(results),
        tables=further_blocks(results),
        histories=[weights] if weights else [],
        pictures=[_picture(sample, results, path.parent) for sample in results.get("samples", [])],
        about=_about(results),
        settings=[(name, str(value)) for name, value in results.get("settings", {}).items()],
        command=results.get("command", ""),
        notes=results.get("notes", []),
    )


def _dots(measured: Sequence[tuple[str, Delta]], results: LabelResults) -> DotColumn | None:
    if not measured:
        return None
    axis = scale(ends([value for _, value in measured]), neutral=0.0, signed=True, factor=100)
    marks = tuple(mark(axis, value, results["partition"][name], delta(value)) for name, value in measured)
    return DotColumn("worse ← → better", axis, marks)


def _picture(sample: LabelSample, results: LabelResults, folder: Path) -> Picture:
    roles = results["partition"]
    image, source = sample_image(sample, folder), None
    if image is not None:
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    true = sorted(sample["true"], key=lambda name: roles[name] != "privileged")
    guesses = tuple(
        (model, tuple(Guess(name, roles[name], name in true, round(100 * p, 1)) for name, p in top))
        for model, top in (("reference", sample["reference"]), ("trained", sample["trained"]))
    )
    return Picture(sample["id"], source, tuple((name, roles[name]) for name in true), guesses)


def _about(results: LabelResults) -> list[tuple[str, str]]:
    rows = [*data_rows(results), ("method", results["method"])]
    if "seeds" in results:
        rows.append(("seeds", ", ".join(map(str, results["seeds"]))))
    if "hardware" in results:
        rows.append(("hardware", results["hardware"]))
    if "seconds" in results:
        rows.append(("time", duration(results["seconds"])))
    return rows
