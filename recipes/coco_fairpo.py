"""
Trains a multi-label image classifier with FairPO on MS-COCO 2014: rare labels get better, the others do not get worse.

    python recipes/coco_fairpo.py                                        (no tree: the shipped openclipart set)
    accelerate launch recipes/coco_fairpo.py --config recipes/classification/vit-b16-augreg.yaml --data_dir COCO

`COCO` is the official tree (`annotations/instances_{train,val}2014.json`, `{train,val}2014/*.jpg`). Features of the
frozen backbone are extracted once and cached. Baselines share this code path: `--method bce_continued`, `reweighted`,
`group_dro`, `focal`, ... The run itself is `fairpo_trl.classification.run.run`, which this calls.
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
class CocoArguments(DemoArguments):
    """The options of `fairpo classification`, for one data set."""

    dataset: str = field(default="coco", metadata={"help": "MS-COCO 2014.", "choices": ["coco"]})


def main(script_args: CocoArguments, training_args: MultiLabelFairPOConfig) -> MultiLabelFairPOTrainer:
    """Loads the splits and runs the recipe."""
    if script_args.data_dir is None:
        return run_openclipart(script_args, training_args, instead_of="MS-COCO 2014")
    return run(load_splits(script_args), script_args, training_args, "MS-COCO 2014")


def parse(arguments: list[str]) -> tuple[CocoArguments, MultiLabelFairPOConfig]:
    """YAML with `--config`; every option also on the command line. With neither config nor tree: openclipart."""
    parser = make_parser(CocoArguments, "python recipes/coco_fairpo.py")
    script_args, training_args = parser.parse(shipped_unless_given(arguments))
    return script_args, training_args


if __name__ == "__main__":
    exit_clearly(lambda arguments: main(*parse(arguments)), sys.argv[1:])
