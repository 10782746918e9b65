"""The promise, tested, of a classifier: the boldest between the reference and the trained one that is not worse."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.dataset import SplitDataset, compute_logits
from fairpo_trl.classification.interpolation import interpolate_classifier
from fairpo_trl.classification.metrics.held_precision import GROUP, HeldBy, HeldPrecision
from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.classification.run_options import LabelArguments
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.selection import SCALES, Candidate, assess, check_scales, select_in_order
from fairpo_trl.evaluation.statement import IMAGES, statement
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.reporting.selection_report import PICTURE, candidates_block
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.reporting.writers import write_selection


SELECTION = "selection"
"""Folder of the test in that of a run."""


@dataclass(frozen=True)
class ClassifierTest:
    """
    How a classifier is tested.

    Attributes:
        held (`str`, *optional*, defaults to `"labels"`): Every held label by itself, all of which must pass, or the
            `mean` over them.
        margin (`float`, *optional*, defaults to `1.0`): Points of average precision that each may fall by.
        level (`float`, *optional*, defaults to `0.05`): Chance, at most, that a margin is broken by what passes.
        scales (`Sequence[float]`, *optional*): The path, rising.
        aside_share (`float`, *optional*, defaults to `0.3`): Share of the images that decides nothing.
        resamples (`int`, *optional*, defaults to `1000`): Of the bootstrap over series.
        seed (`int`, *optional*, defaults to `0`): Of the bootstrap, and of what is set aside.
    """

    held: HeldBy = "labels"
    margin: float = 1.0
    level: float = 0.05
    scales: Sequence[float] = SCALES
    aside_share: float = 0.3
    resamples: int = 1000
    seed: int = 0


def select_classifier(
    trained: MultiLabelClassifier,
    reference: MultiLabelClassifier,
    test: MultiLabelSplit,
    partition: Partition,
    output: str | os.PathLike[str],
    options: ClassifierTest | None = None,
    *,
    title: str = "classifier",
    batch_size: int = 256,
    command: str = "",
) -> SelectionResults:
    """
    Tests the classifiers between two, writes `selection.json`, its report and picture, and saves the chosen one.

    Images that decide and images that are set aside share no series. With every held label a measure of its own, each
    is tested at the level itself, since all must pass (intersection-union test); candidates come from the safest, and
    testing stops at the first that fails (fixed-sequence test): no further correction is due.

    Args:
        trained ([`MultiLabelClassifier`]):
            After training.
        reference ([`MultiLabelClassifier`]):
            What it was trained from, on the same device.
        test ([`~fairpo_trl.classification.data.split.MultiLabelSplit`]):
            Images or features that neither was trained on.
        partition ([`~fairpo_trl.Partition`]):
            Who should have gained, and who is held.
        output (`str` or `os.PathLike`):
            Folder of the results; the classifier is in `chosen` there, if one was chosen.
        options ([`ClassifierTest`], *optional*):
            How it is tested.
        title (`str`, *optional*):
            Names the data.
        batch_size (`int`, *optional*, defaults to `256`):
            Images computed at once.
        command (`str`, *optional*):
            The command line, for the report.

    Returns:
        [`~fairpo_trl.reporting.selection_results.SelectionResults`]

    Raises:
        ValueError: If the scales do not rise, there is no path between the two, or nothing can be tested.
    """
    started, options = time.time(), options or ClassifierTest()
    check_scales(options.scales)
    deciding, aside = test, None
    if options.aside_share:
        deciding, aside = test.carve_validation(options.aside_share, seed=options.seed)
    transform = trained.backbone.transform if trained.backbone else None

    def logits(model: MultiLabelClassifier, part: MultiLabelSplit) -> Any:
        return compute_logits(model, SplitDataset(part, transform), batch_size, device).numpy()

    device = next(trained.parameters()).device

    def against_reference(part: MultiLabelSplit) -> HeldPrecision:
        return HeldPrecision(
            part.labels, logits(reference, part), partition, series=part.series, held=options.held,
            margin=options.margin, resamples=options.resamples, seed=options.seed,
        )  # fmt: skip

    def measure(scale: float, precision: HeldPrecision, part: MultiLabelSplit) -> Candidate:
        return precision.candidate(_name(scale), logits(interpolate_classifier(reference, trained, scale), part))

    found = against_reference(deciding)
    how: dict[str, Any] = {"level": options.level, "bound": "bootstrap", "seed": options.seed}
    selection = select_in_order(
        [functools.partial(measure, scale, found, deciding) for scale in options.scales],
        measure_all=deciding.features is not None,  # for the picture, where it costs nothing
        **how,
    )
    scale_of = {_name(scale): float(scale) for scale in options.scales}
    on_others = None
    if selection.chosen is not None and aside is not None:
        on_others = assess(measure(scale_of[selection.chosen], against_reference(aside), aside), **how)
    sizes = {"images": len(deciding), "images set aside": len(aside) if aside else 0}
    results = SelectionResults(
        kind="multi-label classifier",
        model=f"classifier of {title}",
        reference="its reference",
        data=f"{len(deciding)} test images of {title}",
        selection=selection,
        statement=statement(selection, on_others, IMAGES, untested=found.untested),
        scales={test.name: scale_of[test.name] for test in selection.candidates},
        test=on_others,
        privileged=list(partition.privileged),
        judges={GROUP if options.held == "mean" else "each held label": "average precision, bootstrap over series"},
        settings={**sizes, "held": options.held, "resamples": options.resamples, "seed": options.seed},
        seconds=time.time() - started,
        command=command,
    )

    def save(folder: Path) -> None:
        chosen = interpolate_classifier(reference, trained, scale_of[str(selection.chosen)])
        chosen.to(torch.device("cpu")).save_pretrained(folder)

    write_selection(results, output, save)
    return results


def select_after_training(
    trainer: Any, reference: MultiLabelClassifier, test: MultiLabelSplit, script_args: LabelArguments, title: str
) -> SelectionResults:
    """
    [`select_classifier`] on what a run has saved: whatever engine trained it, it is a plain model there.

    Args:
        trainer ([`~fairpo_trl.MultiLabelFairPOTrainer`]):
            After training and saving.
        reference, test, title:
            As in [`select_classifier`].
        script_args ([`~fairpo_trl.classification.run_options.LabelArguments`]):
            Margin, level and the like.
    """
    args = trainer.args
    options = ClassifierTest(
        held=script_args.held,
        margin=script_args.margin,
        level=script_args.level,
        scales=script_args.scales or SCALES,
        aside_share=script_args.aside_share,
        seed=args.seed,
    )
    return select_classifier(
        MultiLabelClassifier.from_pretrained(args.output_dir).to(args.device),
        reference,
        test,
        trainer.partition,
        Path(args.output_dir) / SELECTION,
        options,
        title=title,
        batch_size=args.per_device_eval_batch_size,
        command=public_command(sys.argv),
    )


def selection_table(results: SelectionResults, folder: str) -> dict[str, Any]:
    """
    A selection as a further table of the results of a run, with its verdict as note and its picture.

    Args:
        results ([`~fairpo_trl.reporting.selection_results.SelectionResults`]):
            What was found.
        folder (`str`):
            Where it is, relative to the report.
    """
    block = candidates_block(results.selection, results.kind)
    return {
        "title": "The promise, tested: classifiers from the safest",
        "header": list(block.header),
        "rows": [list(row) for row in block.rows()],
        "texts": block.texts,
        "note": results.statement,
        "picture": f"{folder}/{PICTURE}",
    }


def _name(scale: float) -> str:
    return f"scale {scale:g}"
