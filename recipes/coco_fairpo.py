"""
Trains a multi-label image classifier with FairPO on MS-COCO 2014: rare labels get better, the others do not get worse.

    python recipes/coco_fairpo.py                                        (no tree: the shipped openclipart set)
    accelerate launch recipes/coco_fairpo.py --config recipes/classification/vit-b16-augreg.yaml --data_dir COCO

`COCO` is the official tree (`annotations/instances_{train,val}2014.json`, `{train,val}2014/*.jpg`). Features of the
frozen backbone are extracted once and cached. Baselines share this code path: `--method bce_continued`, `reweighted`,
`group_dro`, `focal`, ...
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fairpo_trl import MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification.data.coco import load_coco_2014


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from multilabel import LabelArguments, parse_recipe, run  # noqa: E402


@dataclass
class CocoArguments(LabelArguments):
    """The shared arguments, and what is particular to COCO."""

    keep_unlabeled: bool = field(default=False, metadata={"help": "Keep images without any label."})
    missing_images: str = field(
        default="raise", metadata={"help": "What a missing image file does.", "choices": ["raise", "skip"]}
    )
    label_order: str = field(
        default="id", metadata={"help": "Column order of the labels.", "choices": ["id", "alphabetical"]}
    )


def main(script_args: CocoArguments, training_args: MultiLabelFairPOConfig) -> MultiLabelFairPOTrainer:
    """Loads the splits and runs the recipe."""
    if script_args.data_dir is None:
        from openclipart.demo import run_openclipart

        return run_openclipart(script_args, training_args, instead_of="MS-COCO 2014")
    splits = load_coco_2014(
        script_args.data_dir,
        keep_unlabeled=script_args.keep_unlabeled,
        missing_images=script_args.missing_images,  # type: ignore[arg-type]
        label_order=script_args.label_order,  # type: ignore[arg-type]
    )
    return run(splits, script_args, training_args, "MS-COCO 2014")


def parse(arguments: list[str] | None = None) -> tuple[CocoArguments, MultiLabelFairPOConfig]:
    """YAML with `--config`; every option also on the command line. Without arguments: the openclipart demo."""
    return parse_recipe(CocoArguments, arguments)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(*parse())
