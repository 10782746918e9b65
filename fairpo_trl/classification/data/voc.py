"""Pascal VOC as multi-label data: XML files of objects, as the challenge and most annotation tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fairpo_trl.classification.data.columns import MissingImages, split_of_files
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits
from fairpo_trl.core.messages import shortened, unknown_names_message


_TREE = """\
DIR/                              (VOCdevkit/VOC2007, or an export: both folders may be one)
  Annotations/
    000005.xml ...
  JPEGImages/
    000005.jpg ...
  ImageSets/Main/                 (optional: without it all images are train)
    train.txt, val.txt, trainval.txt, test.txt"""


def load_voc(
    data_dir: str | Path,
    *,
    label_names: Sequence[str] | None = None,
    keep_unlabeled: bool = True,
    missing_images: MissingImages = "raise",
) -> dict[str, MultiLabelSplit]:
    """
    Loads a folder in the format of Pascal VOC: a label is present if an object of that name is annotated.

    With lists in `ImageSets/Main`, `test` is test.txt and `train` trainval.txt (or train.txt); without a test.txt,
    `train` is train.txt and `test` val.txt, as is usual for VOC 2012. A label whose only objects in an image are
    marked difficult is unknown there, as the challenge leaves them out. Ids are the names of the images.

    Args:
        data_dir (`str` or `Path`):
            Folder with `Annotations/` and `JPEGImages/`, or with both kinds of files in it.
        label_names, keep_unlabeled, missing_images:
            As in [`~fairpo_trl.classification.data.tables.load_table`].

    Raises:
        FileNotFoundError: If the folder is incomplete, or an image or a listed annotation is missing.
        ValueError: If an annotation is no XML of that form, or names an unknown label.
    """
    root = Path(data_dir).expanduser()
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    images = root / "JPEGImages" if (root / "JPEGImages").is_dir() else root
    found = sorted(folder.glob("*.xml")) if folder.is_dir() else []
    if not found:
        raise FileNotFoundError(f"{str(root)!r} holds no annotations of Pascal VOC. Expected layout:\n{_TREE}")
    parts = {}
    for name, stems in _lists(root, [path.stem for path in found]).items():
        parts[name] = [_objects(folder / f"{stem}.xml") for stem in stems]
    every = sorted({label for rows in parts.values() for _, objects in rows for label in objects})
    names = tuple(every if label_names is None else label_names)
    unknown = [label for label in every if label not in names]
    if unknown or not names:
        raise ValueError(
            unknown_names_message("label of the annotations", unknown, names or ["none: no object at all"])
        )
    splits = {}
    for name, rows in parts.items():
        labels = np.zeros((len(rows), len(names)), dtype=np.int8)
        for row, (_, objects) in enumerate(rows):
            for label, easy in objects.items():
                labels[row, names.index(label)] = 1 if easy else -1
        splits[name] = split_of_files(
            name,
            names,
            labels,
            images,
            [file for file, _ in rows],
            listed=name,
            keep_unlabeled=keep_unlabeled,
            missing_images=missing_images,
            counted={"labels of difficult objects alone, unknown": int((labels == -1).sum())},
        )
    check_splits(splits)
    return splits


def _lists(root: Path, stems: list[str]) -> dict[str, list[str]]:
    """Split -> names of its annotations."""
    lists = root / "ImageSets" / "Main"
    if not lists.is_dir():
        return {"train": stems}
    trains = ("trainval.txt", "train.txt") if (lists / "test.txt").is_file() else ("train.txt", "trainval.txt")
    splits = {}
    for split, files in (("train", trains), ("test", ("test.txt", "val.txt"))):
        path = next((lists / file for file in files if (lists / file).is_file()), None)
        if path is not None:
            splits[split] = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = set(stems)
    for split, listed in splits.items():
        lacking = [stem for stem in listed if stem not in known]
        if lacking:
            raise FileNotFoundError(
                f"ImageSets/Main lists {len(lacking)} images of {split} without an annotation, the first "
                f"{lacking[0]!r}."
            )
    if not splits:
        raise FileNotFoundError(f"{str(lists)!r} has no train.txt, trainval.txt, val.txt or test.txt.")
    return splits


def _objects(path: Path) -> tuple[str, dict[str, bool]]:
    """File name of the image, and label -> whether an object of it is not difficult."""
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # what could grow on reading
        raise ValueError(f"{path.name} declares entities, which annotations do not need: it is not read.")
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path.name} is not whole XML ({error}).") from error
    file = (tree.findtext("filename") or "").strip()
    if tree.tag != "annotation" or not file:
        raise ValueError(f"{path.name} is no annotation of Pascal VOC: it needs <annotation> with <filename>.")
    objects: dict[str, bool] = {}
    for entry in tree.findall("object"):
        label = (entry.findtext("name") or "").strip()
        if not label:
            raise ValueError(
                f"{path.name} has an <object> without a <name>: {shortened(ElementTree.tostring(entry)[:80])}."
            )
        easy = (entry.findtext("difficult") or "0").strip() != "1"
        objects[label] = objects.get(label, False) or easy
    return file, objects
