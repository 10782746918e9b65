"""NUS-WIDE as multi-label data, from the official lists and ground truth of its 81 concepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.classification.data.columns import MissingImages, find_layout, split_of_files
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits


_CONCEPTS = 81
_TREE = """\
DIR/
  ConceptsList/Concepts81.txt     (or Concepts81.txt)
  Groundtruth/TrainTestLabels/
    Labels_<concept>_Train.txt    one 0 or 1 a line; a file for each of the 81 concepts
    Labels_<concept>_Test.txt
  ImageList/
    TrainImagelist.txt            161,789 lines such as actor\\0001_2124494179.jpg
    TestImagelist.txt             107,859 lines
  Flickr/
    actor/0001_2124494179.jpg ..."""
_TAGS = (
    "The files *_Tags81.txt of NUS_WID_Tags hold what users typed, not the ground truth: they are never read as "
    "labels."
)


def load_nus_wide(
    data_dir: str | Path, *, keep_unlabeled: bool = True, missing_images: MissingImages = "skip"
) -> dict[str, MultiLabelSplit]:
    """
    Loads NUS-WIDE with its official split: 161,789 rows for `"train"` and 107,859 for `"test"`.

    Row i of an image list belongs to row i of every label file of its part, so all counts have to agree. Labels are in
    the order of Concepts81.txt. Ids are `Flickr/<folder>/<file>`. Carve a validation part from train with
    [`MultiLabelSplit.carve_validation`].

    Args:
        data_dir (`str` or `Path`):
            Folder with `ConceptsList/`, `Groundtruth/`, `ImageList/` and `Flickr/`.
        keep_unlabeled (`bool`, *optional*, defaults to `True`):
            Whether to keep rows without any of the 81 concepts, which are many: they belong to the official split.
            Their number is in the notes.
        missing_images (`str`, *optional*, defaults to `"skip"`):
            `"skip"` with the number in the notes, because photos have vanished from Flickr, or `"raise"`.

    Raises:
        FileNotFoundError: If the folder is incomplete (names everything missing), or an image is missing with
            `missing_images="raise"`.
        ValueError: If counts do not agree (gives both), or a label file holds anything but one 0 or 1 a line.
    """
    root = Path(data_dir).expanduser()
    concepts_places = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
    concepts_file = next((root / place for place in concepts_places if (root / place).is_file()), None)
    concepts = _lines(concepts_file) if concepts_file else []
    for name in concepts:
        if "/" in name or "\\" in name:
            raise ValueError(f"Concepts81.txt: {name!r} is no concept; a name that is a path could leave the folder.")
    if concepts_file and len(concepts) != _CONCEPTS:
        raise ValueError(f"{concepts_file.name} has {len(concepts)} concepts instead of {_CONCEPTS}.")

    labels_folder = "Groundtruth/TrainTestLabels"
    wanted = [concepts_places, ("ImageList/TrainImagelist.txt",), ("ImageList/TestImagelist.txt",), ("Flickr",)]
    if (root / labels_folder).is_dir():
        wanted += [(f"{labels_folder}/Labels_{name}_{part}.txt",) for part in ("Train", "Test") for name in concepts]
    else:
        wanted.append((labels_folder,))
    tags = (root / "NUS_WID_Tags").exists() or any(root.glob("*_Tags81.txt"))
    tags = tags or any((root / labels_folder).glob("*_Tags81.txt"))
    find_layout(root, wanted, dataset="NUS-WIDE", tree=_TREE, remark=_TAGS if tags else "")

    splits = {
        name: _load_split(root, name, part, tuple(concepts), keep_unlabeled, missing_images)
        for name, part in (("train", "Train"), ("test", "Test"))
    }
    check_splits(splits)
    return splits


def _load_split(
    root: Path,
    name: str,
    part: str,
    concepts: tuple[str, ...],
    keep_unlabeled: bool,
    missing_images: MissingImages,
) -> MultiLabelSplit:
    list_file = root / "ImageList" / f"{part}Imagelist.txt"
    files = [line.replace("\\", "/") for line in _lines(list_file)]
    labels = np.empty((len(files), len(concepts)), dtype=np.int8)
    for column, concept in enumerate(concepts):
        label_file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
        values = _read_labels(label_file)
        if len(values) != len(files):
            raise ValueError(
                f"{label_file.name} has {len(values)} rows but {list_file.name} has {len(files)}; row i of one "
                "belongs to row i of the other, so both must be complete and of one release."
            )
        labels[:, column] = values

    return split_of_files(
        name,
        concepts,
        labels,
        root / "Flickr",
        files,
        listed=list_file.name,
        keep_unlabeled=keep_unlabeled,
        missing_images=missing_images,
        prefix="Flickr/",
    )


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """`[rows]` of 0 and 1 from a file with one digit a line."""
    content = path.read_bytes().translate(None, b"\r \t").rstrip(b"\n") + b"\n"
    raw = np.frombuffer(content, dtype=np.uint8)
    digit = (raw == ord("0")) | (raw == ord("1"))
    if len(raw) % 2 == 0 and digit[0::2].all() and (raw[1::2] == ord("\n")).all():
        return raw[0::2] - ord("0")

    # Not one value on each line: say what it is.
    line = np.cumsum(raw == ord("\n"))[digit]  # number of the line each digit is on
    several = np.flatnonzero(np.diff(line) == 0)
    if len(several):
        raise ValueError(
            f"{path.name} has several values on line {line[several[0]] + 1}; a label file has one 0 or 1 a line. It "
            f"looks like a tag file. {_TAGS}"
        )
    other = np.flatnonzero(~digit & (raw != ord("\n")))
    if len(other):
        number = int((raw[: other[0]] == ord("\n")).sum()) + 1
        raise ValueError(f"{path.name}, line {number}: {chr(raw[other[0]])!r} where 0 or 1 should be.")
    return raw[digit] - ord("0")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8 ({error}).") from error
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines
