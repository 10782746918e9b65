"""`fairpo classification`: trains a multi-label image classifier."""

from __future__ import annotations

from dataclasses import fields

from transformers import TrainingArguments

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.load import load_splits, title_of
from fairpo_trl.classification.run import run
from fairpo_trl.classification.run_options import ClassificationArguments, LabelArguments
from fairpo_trl.commands.generation import TRAINING
from fairpo_trl.commands.parsing import CommandParser


def make_parser(
    kind: type[ClassificationArguments] = ClassificationArguments, command: str = "fairpo classification"
) -> CommandParser:
    """Parser of a run, called as `command`; `kind` has the options beside those of the trainer."""
    training = {entry.name for entry in fields(TrainingArguments)}
    shared = [entry.name for entry in fields(LabelArguments)]
    return CommandParser(
        (kind, MultiLabelFairPOConfig),
        command=command,
        summary="Trains a multi-label image classifier: privileged labels get better, the others do not get worse.",
        examples=(
            f"{command} --dataset table --data_dir labels.csv --image_root images --output_dir out",
            f"{command} --dataset coco --data_dir COCO --config my.yaml",
        ),
        topics={
            "data": [entry.name for entry in fields(kind) if entry.name not in shared] + ["data_dir"],
            "run": [name for name in shared if name != "data_dir"],
            "fairpo": [entry.name for entry in fields(MultiLabelFairPOConfig) if entry.name not in training],
            "training": TRAINING,
        },
    )


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    script_args, training_args = make_parser().parse(arguments)
    run(load_splits(script_args), script_args, training_args, title_of(script_args))
