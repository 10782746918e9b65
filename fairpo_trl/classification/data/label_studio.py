"""Tasks of Label Studio as multi-label data: choices, or the labels of boxes and other regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from fairpo_trl.classification.data.columns import MissingImages, SplitName, with_images
from fairpo_trl.classification.data.label_cells import matrix_of_names
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.core.messages import shortened, unknown_names_message
from fairpo_trl.tables import read_rows


def load_label_studio(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    label_names: Sequence[str] | None = None,
    keep_unlabeled: bool = True,
    missing_images: MissingImages = "raise",
) -> dict[str, MultiLabelSplit]:
    """
    Loads an export of Label Studio in its format "JSON".

    A task has `data` (the image: `image`, or the only value that names one; perhaps `split`: train, validation or
    test) and `annotations`. A label is present if at least half of the annotations that were not cancelled chose it
    (`choices`) or drew a region of it (`rectanglelabels`, `polygonlabels`, `brushlabels`, ...). Tasks that nobody
    annotated are left out and counted; predictions are not read.

    Args:
        path (`str` or `Path`):
            The JSON file.
        image_root (`str` or `Path`, *optional*):
            Folder of the images; `None` is that of the file. An uploaded image lies there under the name it has at the
            end of its address, one of local storage under its path behind `?d=`.
        label_names, keep_unlabeled, missing_images:
            As in [`~fairpo_trl.classification.data.tables.load_table`].

    Returns:
        `dict[str, MultiLabelSplit]`: the splits that occur, train first.

    Raises:
        FileNotFoundError: If the file or an image is missing.
        ValueError: If a task is of another form; names the task, counted from 1.
    """
    path = Path(path).expanduser()
    rows = read_rows(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}: the export of Label Studio is read from its format JSON.")
    columns: dict[str, list[Any]] = {"path": [], "labels": [], "split": []}
    skipped = 0
    for number, task in enumerate(rows, start=1):
        where = f"{path.name}, task {number}"
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, Mapping) or not isinstance(annotations, list):
            raise ValueError(f"{where} has no `data` and `annotations`: export the project in the format JSON.")
        done = [entry for entry in annotations if isinstance(entry, Mapping) and not entry.get("was_cancelled")]
        if not done:
            skipped += 1
            continue
        votes = Counter(label for entry in done for label in _labels(entry.get("result") or [], where))
        columns["path"].append(_file(data, where))
        columns["labels"].append([label for label, count in votes.items() if 2 * count >= len(done)])
        columns["split"].append(data.get("split", "train"))
        if columns["split"][-1] not in get_args(SplitName):
            raise ValueError(f"{where}: {unknown_names_message('split', [columns['split'][-1]], get_args(SplitName))}")
    if not columns["path"]:
        raise ValueError(f"{path.name}: none of the {len(rows)} tasks is annotated.")
    root = path.parent if image_root is None else Path(image_root).expanduser()
    names, labels = matrix_of_names(columns["labels"], label_names, path.name, "labels")
    splits = with_images(columns, path.name, root, names, labels, keep_unlabeled, missing_images)
    if skipped:
        first = next(iter(splits.values()))
        object.__setattr__(first, "notes", {**first.notes, "tasks without an annotation, left out": skipped})
    return splits


def _labels(result: Any, where: str) -> set[str]:
    """The labels that one person chose or drew."""
    labels: set[str] = set()
    for entry in result if isinstance(result, list) else []:
        value = entry.get("value") if isinstance(entry, Mapping) else None
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: an entry of `result` has no `value`, got {shortened(entry)}.")
        for kind, names in value.items():
            if (kind == "choices" or kind.endswith("labels")) and isinstance(names, list):
                labels |= {str(name).strip() for name in names}
    return labels


def _file(data: Mapping[str, Any], where: str) -> str:
    """The image's path relative to the folder of images."""
    texts = {name: value for name, value in data.items() if isinstance(value, str) and name != "split"}
    address = texts.get("image") or (next(iter(texts.values())) if len(texts) == 1 else None)
    if address is None:
        raise ValueError(f"{where}: no value of `data` is the image; name it `image` (there are {list(texts)}).")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    file = PurePosixPath(local[0]) if local else PurePosixPath(unquote(parts.path)).name
    return str(file)
