"""The recipes without an official tree: the shipped openclipart images, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairpo_trl import MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.run import run
from fairpo_trl.classification.run_options import ClassificationArguments

from .dinov2 import dinov2_path
from .load import check_features, load_openclipart


CONFIG = Path(__file__).resolve().parents[1] / "classification" / "openclipart.yaml"


@dataclass
class DemoArguments(ClassificationArguments):
    """The options of `fairpo classification`, and how the shipped set is checked."""

    live_images: int = field(
        default=100,
        metadata={"help": "Without --data_dir: images whose features are extracted again, to check the shipped ones."},
    )


def shipped_unless_given(arguments: Sequence[str]) -> list[str]:
    """The arguments; with neither `--config` nor `--data_dir` those of the shipped set before them."""
    if {"--config", "--data_dir", "-h", "--help"} & set(arguments):
        return list(arguments)
    return ["--config", str(CONFIG), *arguments]


def run_openclipart(
    script_args: DemoArguments, training_args: MultiLabelFairPOConfig, instead_of: str
) -> MultiLabelFairPOTrainer:
    """
    Runs a recipe on the shipped set.

    Args:
        script_args, training_args:
            As parsed.
        instead_of (`str`):
            The data set the recipe is named after, whose images cannot be had without `--data_dir`.
    """
    if training_args.process_index == 0:
        print(
            f"No --data_dir: the images of {instead_of} cannot be shipped. This runs the recipe on openclipart "
            "instead (real drawings with human keywords, public domain); its numbers say nothing about "
            f"{instead_of}."
        )
    splits = load_openclipart()
    folder, origin = dinov2_path()
    backbone = load_backbone(f"hf:{folder}", pooling="cls_mean")
    if training_args.process_index == 0:
        print(f"Backbone: {origin}")
        if script_args.live_images > 0:
            worst = check_features(backbone, n=script_args.live_images)
            print(
                f"Extracted {script_args.live_images} images again: the shipped features are theirs (largest relative "
                f"distance {worst:.1e})."
            )
    return run(splits, script_args, training_args, "openclipart", backbone)
