"""`fairpo classification`: trains a multi-label image classifier; what the image recipes run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset, load_from_disk
from transformers import TrainingArguments

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.coco import load_coco_2014
from fairpo_trl.classification.data.hf_datasets import from_dataset
from fairpo_trl.classification.data.nus_wide import load_nus_wide
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.commands.generation import TRAINING
from fairpo_trl.commands.label_arguments import ClassificationArguments, LabelArguments
from fairpo_trl.commands.label_run import run
from fairpo_trl.commands.parsing import CommandParser, in_recipe_or_command


TITLES = {"coco": "MS-COCO 2014", "nus_wide": "NUS-WIDE"}
"""What the official trees are called in tables and files."""


def make_parser(kind: type[ClassificationArguments] = ClassificationArguments) -> CommandParser:
    """Parser of the command and the recipes: YAML with `--config`, every option also on the command line."""
    training = {entry.name for entry in fields(TrainingArguments)}
    shared = [entry.name for entry in fields(LabelArguments)]
    command = in_recipe_or_command("classification")
    return CommandParser(
        (kind, MultiLabelFairPOConfig),
        command=command,
        summary="Trains a multi-label image classifier: privileged labels get better, the others do not get worse.",
        examples=(
            f"{command} --dataset table --data_dir labels.csv --image_root images --output_dir out",
            f"{command} --dataset coco --data_dir COCO --config recipes/classification/vit-b16-augreg.yaml",
        ),
        topics={
            "data": [entry.name for entry in fields(kind) if entry.name not in shared] + ["data_dir"],
            "run": [name for name in shared if name != "data_dir"],
            "fairpo": [entry.name for entry in fields(MultiLabelFairPOConfig) if entry.name not in training],
            "training": TRAINING,
        },
    )


def load_splits(args: ClassificationArguments) -> dict[str, MultiLabelSplit]:
    """
    The splits that the options name.

    Raises:
        FileNotFoundError: If a file or folder is missing; the message shows the expected layout.
        ValueError: If an option does not go with the data set, or the data is wrong.
    """
    _refuse_unused(args)
    options: dict[str, Any] = {}
    if args.keep_unlabeled is not None:
        options["keep_unlabeled"] = args.keep_unlabeled
    if args.missing_images is not None:
        options["missing_images"] = args.missing_images
    if args.dataset == "datasets":
        if not args.dataset_name:
            raise ValueError("`--dataset datasets` needs `--dataset_name`: a Hub id or a folder.")
        found = _load_dataset(args)
        return from_dataset(found, image_column=args.image_column, labels_column=args.labels_column, **options)
    if not args.data_dir:
        raise ValueError(f"`--dataset {args.dataset}` needs `--data_dir`: where its files are.")
    if args.dataset == "coco":
        return load_coco_2014(args.data_dir, label_order=args.label_order, **options)  # type: ignore[arg-type]
    if args.dataset == "nus_wide":
        return load_nus_wide(args.data_dir, **options)
    columns = {
        "labels_column": args.labels_column,
        "label_columns": args.label_columns,
        "separator": args.separator,
        **options,
    }
    if args.dataset == "features":
        return load_features(args.data_dir, **columns)
    return load_table(args.data_dir, image_root=args.image_root, **columns)


def title_of(args: ClassificationArguments) -> str:
    """What the data is called in tables and files."""
    return TITLES.get(args.dataset) or args.dataset_name or Path(str(args.data_dir)).stem


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    script_args, training_args = make_parser().parse(arguments)
    run(load_splits(script_args), script_args, training_args, title_of(script_args))


_ONLY_WITH: dict[str, tuple[str, ...]] = {
    "data_dir": ("coco", "nus_wide", "table", "features"),
    "dataset_name": ("datasets",),
    "dataset_config": ("datasets",),
    "missing_images": ("coco", "nus_wide", "table"),
    "label_order": ("coco",),
    "image_root": ("table",),
    "image_column": ("datasets",),
    "labels_column": ("table", "features", "datasets"),
    "label_columns": ("table", "features"),
    "separator": ("table", "features"),
}


def _refuse_unused(args: ClassificationArguments) -> None:
    """Options that would have no effect on this data set."""
    for name, kinds in _ONLY_WITH.items():
        default = next(entry.default for entry in fields(args) if entry.name == name)
        if getattr(args, name) != default and args.dataset not in kinds:
            raise ValueError(f"`{name}` has no effect with `--dataset {args.dataset}` (only with {', '.join(kinds)}).")


def _load_dataset(args: ClassificationArguments) -> Any:
    path = Path(str(args.dataset_name)).expanduser()
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return load_from_disk(str(path))
    load: Callable[..., DatasetDict] = load_dataset
    return load(str(path) if path.exists() else args.dataset_name, name=args.dataset_config)
