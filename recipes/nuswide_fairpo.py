"""
Trains a multi-label image classifier with FairPO on NUS-WIDE: rare concepts get better, the others do not get worse.

    python recipes/nuswide_fairpo.py                                     (no tree: the shipped openclipart set)
    accelerate launch recipes/nuswide_fairpo.py --config recipes/classification/vit-b16-augreg.yaml --data_dir NUS

`NUS` is the official tree (`Groundtruth/TrainTestLabels`, `ConceptsList`, `ImageList`, `Flickr`); photos that have
vanished since are skipped and counted. Baselines share this code path: `--method bce_continued`, `reweighted`, ...
The run itself is `fairpo_trl.classification.run.run`, which this calls.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from openclipart.demo import DemoArguments, run_openclipart, shipped_unless_given

from fairpo_trl import MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification.data.load import load_splits
from fairpo_trl.classification.run import run
from fairpo_trl.commands.classification import make_parser
from fairpo_trl.commands.errors import exit_clearly


@dataclass
class NusWideArguments(DemoArguments):
    """The options of `fairpo classification`, for one data set."""

    dataset: str = field(default="nus_wide", metadata={"help": "NUS-WIDE.", "choices": ["nus_wide"]})


def main(script_args: NusWideArguments, training_args: MultiLabelFairPOConfig) -> MultiLabelFairPOTrainer:
    """Loads the splits and runs the recipe."""
    if script_args.data_dir is None:
        return run_openclipart(script_args, training_args, instead_of="NUS-WIDE")
    return run(load_splits(script_args), script_args, training_args, "NUS-WIDE")


def parse(arguments: list[str]) -> tuple[NusWideArguments, MultiLabelFairPOConfig]:
    """YAML with `--config`; every option also on the command line. With neither config nor tree: openclipart."""
    parser = make_parser(NusWideArguments, "python recipes/nuswide_fairpo.py")
    script_args, training_args = parser.parse(shipped_unless_given(arguments))
    return script_args, training_args


if __name__ == "__main__":
    exit_clearly(lambda arguments: main(*parse(arguments)), sys.argv[1:])
