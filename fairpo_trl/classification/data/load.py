"""The splits that the options of a run name, whatever form they have on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset, load_from_disk

from fairpo_trl.classification.data.coco import load_coco_2014, load_coco_2017
from fairpo_trl.classification.data.hf_datasets import from_dataset
from fairpo_trl.classification.data.label_studio import load_label_studio
from fairpo_trl.classification.data.nus_wide import load_nus_wide
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.classification.data.voc import load_voc
from fairpo_trl.classification.run_options import ClassificationArguments
from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.files import local_path


TITLES = {"coco": "MS-COCO 2014", "coco2017": "MS-COCO 2017", "nus_wide": "NUS-WIDE"}
"""What the official trees are called in tables and files."""


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
        return from_dataset(
            found,
            image_column=args.image_column,
            labels_column=args.labels_column,
            label_names=args.labels,
            **options,
        )
    if not args.data_dir:
        raise ValueError(f"`--dataset {args.dataset}` needs `--data_dir`: where its files are.")
    if args.dataset in ("coco", "coco2017"):
        load_coco = load_coco_2014 if args.dataset == "coco" else load_coco_2017
        return load_coco(args.data_dir, label_order=args.label_order, **options)
    if args.dataset == "nus_wide":
        return load_nus_wide(args.data_dir, **options)
    if args.dataset == "voc":
        return load_voc(args.data_dir, label_names=args.labels, **options)
    if args.dataset == "label_studio":
        return load_label_studio(args.data_dir, image_root=args.image_root, label_names=args.labels, **options)
    columns = {
        "labels_column": args.labels_column,
        "label_names": args.labels,
        "label_columns": "all" if args.label_columns == ["all"] else args.label_columns,
        "separator": args.separator,
        "absent": args.absent_value,
        "unknown": args.unknown_value,
        **options,
    }
    if args.dataset == "features":
        return load_features(args.data_dir, **columns)
    return load_table(
        args.data_dir,
        image_root=args.image_root,
        path_column=args.path_column,
        one_label_per_row=args.one_label_per_row,
        **columns,
    )


def title_of(args: ClassificationArguments) -> str:
    """What the data is called in tables and files."""
    return TITLES.get(args.dataset) or args.dataset_name or Path(str(args.data_dir)).stem


_TREES = ("coco", "coco2017", "nus_wide", "voc")
_ONLY_WITH: dict[str, tuple[str, ...]] = {
    "data_dir": (*_TREES, "table", "features", "label_studio"),
    "dataset_name": ("datasets",),
    "dataset_config": ("datasets",),
    "missing_images": (*_TREES, "table", "label_studio"),
    "label_order": ("coco", "coco2017"),
    "image_root": ("table", "label_studio"),
    "image_column": ("datasets",),
    "labels_column": ("table", "features", "datasets"),
    "labels": ("table", "features", "datasets", "voc", "label_studio"),
    "path_column": ("table",),
    "label_columns": ("table", "features"),
    "separator": ("table", "features"),
    "absent_value": ("table", "features"),
    "unknown_value": ("table", "features"),
    "one_label_per_row": ("table",),
}


def _refuse_unused(args: ClassificationArguments) -> None:
    """Options that would have no effect on this data set."""
    for name, kinds in _ONLY_WITH.items():
        default = next(entry.default for entry in fields(args) if entry.name == name)
        if getattr(args, name) != default and args.dataset not in kinds:
            raise ValueError(f"`{name}` has no effect with `--dataset {args.dataset}` (only with {', '.join(kinds)}).")


def _load_dataset(args: ClassificationArguments) -> Any:
    path = local_path(str(args.dataset_name))
    if path is not None:
        check_data_folder(path)
    if path is not None and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        return load_from_disk(str(path))
    load: Callable[..., DatasetDict] = load_dataset
    return load(str(path or args.dataset_name), name=args.dataset_config)
