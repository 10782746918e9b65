"""
Trains a multi-label image classifier with FairPO on NUS-WIDE: rare concepts get better, the others do not get worse.

    python recipes/nuswide_fairpo.py                                     (no tree: the shipped openclipart set)
    accelerate launch recipes/nuswide_fairpo.py --config recipes/classification/vit-b16-augreg.yaml --data_dir NUS

`NUS` is the official tree (`Groundtruth/TrainTestLabels`, `ConceptsList`, `ImageList`, `Flickr`); photos that have
vanished since are skipped and counted. Baselines share this code path: `--method bce_continued`, `reweighted`, ...
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fairpo_trl import MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification.data.nus_wide import load_nus_wide


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from multilabel import LabelArguments, parse_recipe, run  # noqa: E402


@dataclass
class NusWideArguments(LabelArguments):
    """The shared arguments, and what is particular to NUS-WIDE."""

    keep_unlabeled: bool = field(default=True, metadata={"help": "Keep rows without any of the 81 concepts."})
    missing_images: str = field(
        default="skip", metadata={"help": "What a missing image file does.", "choices": ["raise", "skip"]}
    )


def main(script_args: NusWideArguments, training_args: MultiLabelFairPOConfig) -> MultiLabelFairPOTrainer:
    """Loads the splits and runs the recipe."""
    if script_args.data_dir is None:
        from openclipart.demo import run_openclipart

        return run_openclipart(script_args, training_args, instead_of="NUS-WIDE")
    splits = load_nus_wide(
        script_args.data_dir,
        keep_unlabeled=script_args.keep_unlabeled,
        missing_images=script_args.missing_images,  # type: ignore[arg-type]
    )
    return run(splits, script_args, training_args, "NUS-WIDE")


def parse(arguments: list[str] | None = None) -> tuple[NusWideArguments, MultiLabelFairPOConfig]:
    """YAML with `--config`; every option also on the command line. Without arguments: the openclipart demo."""
    return parse_recipe(NusWideArguments, arguments)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(*parse())
