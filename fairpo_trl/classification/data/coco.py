"""MS-COCO 2014 and 2017 as multi-label data, from the official annotation files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fairpo_trl.classification.data.columns import MissingImages, find_layout, split_of_files
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits, first_few
from fairpo_trl.core.messages import require_known, unknown_names_message


LabelOrder = Literal["id", "alphabetical"]

COCO_LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 labels in the order of their ids, which lie between 1 and 90."""

_TREE = """\
DIR/
  annotations/
    instances_train{year}.json
    instances_val{year}.json
  train{year}/                      (or images/train{year}/)
    {train} ...
  val{year}/                        (or images/val{year}/)
    {val} ..."""
_FILES = {
    "2014": {"train": "COCO_train2014_000000000009.jpg", "val": "COCO_val2014_000000000042.jpg"},
    "2017": {"train": "000000000009.jpg", "val": "000000000139.jpg"},
}
"""How images are called, by year."""


def load_coco_2014(
    data_dir: str | Path,
    *,
    keep_unlabeled: bool = False,
    missing_images: MissingImages = "raise",
    label_order: LabelOrder = "id",
) -> dict[str, MultiLabelSplit]:
    """
    Loads MS-COCO 2014: a label is present if any object of that category is annotated, crowds and boxes without area
    included (their number is in the notes).

    train2014 (82,783 images, 82,081 of them with a label) is `"train"` and val2014 (40,504 / 40,137) is `"test"`, the
    split the field reports on; carve a validation part from train with [`MultiLabelSplit.carve_validation`].
    Categories are matched by name, never by their position. Ids are `train2014/<file>` and `val2014/<file>` in
    both layouts.

    Args:
        data_dir (`str` or `Path`):
            Folder with `annotations/` and the images in `train2014/` and `val2014/`, or in `images/` below them.
        keep_unlabeled (`bool`, *optional*, defaults to `False`):
            Whether to keep images without any label. The field drops them; the number is in the notes.
        missing_images (`str`, *optional*, defaults to `"raise"`):
            `"raise"`, or `"skip"` with the number in the notes.
        label_order (`str`, *optional*, defaults to `"id"`):
            Column order of the labels: by category `"id"` (`COCO_LABELS`) or `"alphabetical"`.

    Raises:
        FileNotFoundError: If the folder is incomplete (names everything missing) or an annotated image is missing.
        ValueError: If an annotation file contradicts itself: unknown categories, repeated images, annotations of
            images that are not listed.
    """
    return _load("2014", data_dir, keep_unlabeled, missing_images, label_order)


def load_coco_2017(
    data_dir: str | Path,
    *,
    keep_unlabeled: bool = False,
    missing_images: MissingImages = "raise",
    label_order: LabelOrder = "id",
) -> dict[str, MultiLabelSplit]:
    """
    Loads MS-COCO 2017 as [`load_coco_2014`] does: the same photographs and labels, divided otherwise (118,287 and
    5,000 images) and named by their number alone. train2017 is `"train"`, val2017 is `"test"`; figures of the two
    years do not compare.
    """
    return _load("2017", data_dir, keep_unlabeled, missing_images, label_order)


def _load(
    year: str, data_dir: str | Path, keep_unlabeled: bool, missing_images: MissingImages, label_order: LabelOrder
) -> dict[str, MultiLabelSplit]:
    require_known("label_order", [label_order], get_args(LabelOrder))
    root, tree = Path(data_dir).expanduser(), _TREE.format(year=year, **_FILES[year])
    wanted: list[tuple[str, ...]] = [(f"annotations/instances_{part}{year}.json",) for part in ("train", "val")]
    wanted += [(f"{part}{year}", f"images/{part}{year}") for part in ("train", "val")]
    train_file, val_file, train_folder, val_folder = find_layout(root, wanted, dataset=f"COCO {year}", tree=tree)
    names = COCO_LABELS if label_order == "id" else tuple(sorted(COCO_LABELS))
    splits = {
        name: _load_split(name, file, folder, names, keep_unlabeled, missing_images)
        for name, file, folder in (("train", train_file, train_folder), ("test", val_file, val_folder))
    }
    check_splits(splits)
    return splits


def _load_split(
    name: str,
    file: Path,
    folder: Path,
    label_names: tuple[str, ...],
    keep_unlabeled: bool,
    missing_images: MissingImages,
) -> MultiLabelSplit:
    try:
        content = json.loads(file.read_bytes())
        categories = [(item["id"], item["name"]) for item in content["categories"]]
        listed = [(item["id"], item["file_name"]) for item in content["images"]]
        objects = [(item["image_id"], item["category_id"]) for item in content["annotations"]]
        hash((*categories, *listed, *objects))  # ids and names are numbers and strings
        crowds = sum(item["iscrowd"] for item in content["annotations"])
        flat = sum(item["bbox"][2] * item["bbox"][3] <= 0 for item in content["annotations"])
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file.name} is not complete JSON ({error}): download or unpack it again.") from error
    except (KeyError, TypeError, IndexError) as error:
        what = (
            f"{error.args[0]!r} is missing from it"
            if isinstance(error, KeyError)
            else f"a value is of a wrong type ({error})"
        )
        raise ValueError(
            f"{file.name} is not a COCO instances file: {what}. It needs `images` (id, "
            "file_name), `annotations` (image_id, category_id, iscrowd, bbox) and `categories` (id, name)."
        ) from error

    column_of = _columns(categories, label_names, file.name)
    row_of = {image: row for row, (image, _) in enumerate(listed)}
    _refuse_repeated([image for image, _ in listed], "image id", file.name)
    _refuse_repeated([file_name for _, file_name in listed], "file name", file.name)
    rows = np.array([row_of.get(image, -1) for image, _ in objects], dtype=np.int64)
    columns = np.array([column_of.get(category, -1) for _, category in objects], dtype=np.int64)
    for what, index, key in (("images that are not listed", rows, 0), ("unknown category ids", columns, 1)):
        bad = np.flatnonzero(index < 0)
        if len(bad):
            ids = sorted({objects[i][key] for i in bad})
            raise ValueError(
                f"{file.name}: {len(bad)} annotations, the first in row {bad[0]}, belong to {what}: {first_few(ids)}. "
                "The file is damaged or was mixed from two."
            )

    labels = np.zeros((len(listed), len(label_names)), dtype=np.int8)
    labels[rows, columns] = 1
    return split_of_files(
        name,
        label_names,
        labels,
        folder,
        [file_name for _, file_name in listed],
        listed=file.name,
        keep_unlabeled=keep_unlabeled,
        missing_images=missing_images,
        counted={
            "crowd objects, counted as labels": int(crowds),
            "boxes without area, counted as labels": int(flat),
            "image folder": f"images/{folder.name}" if folder.parent.name == "images" else folder.name,
        },
        prefix=f"{folder.name}/",
    )


def _columns(categories: list[tuple[int, str]], label_names: tuple[str, ...], file: str) -> dict[int, int]:
    """Category id -> column, by name."""
    _refuse_repeated([category for category, _ in categories], "category id", file)
    _refuse_repeated([name for _, name in categories], "category name", file)
    unknown = [name for _, name in categories if name not in label_names]
    if unknown:
        raise ValueError(f"{file}: {unknown_names_message('category', unknown, label_names)}")
    absent = [name for name in label_names if name not in {name for _, name in categories}]
    if absent:
        raise ValueError(f"{file} lacks {len(absent)} of the 80 categories: {first_few(absent)}.")
    return {category: label_names.index(name) for category, name in categories}


def _refuse_repeated(values: list[Any], what: str, file: str) -> None:
    if len(set(values)) < len(values):
        repeated = [value for value, count in Counter(values).items() if count > 1]
        raise ValueError(f"{file}: {what} {first_few(repeated)} occurs more than once.")
