"""Small data folders in the exact published layouts of COCO 2014 and NUS-WIDE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


# Ids and names of the published file; ten ids between 1 and 90 are not used.
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")

NUS_CONCEPTS = [f"concept{i:02d}" for i in range(79)] + ["airport", "zebra"]  # not sorted, so order is tested


def write_image(path: Path, size: tuple[int, int] = (8, 6), color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def coco_content(part: str, labels: Mapping[int, Sequence[str]]) -> dict:
    """The instances file of one part: image id -> names of its objects."""
    id_of = dict(zip(COCO_NAMES, COCO_IDS, strict=True))
    objects = [(image, name) for image, names in labels.items() for name in names]
    return {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": image, "file_name": f"COCO_{part}2014_{image:012d}.jpg", "width": 8, "height": 6, "license": 1}
            for image in labels
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": id_of[name],
                "bbox": [0.0, 0.0, 4.0, 3.0],
                "area": 12.0,
                "iscrowd": 0,
                "segmentation": [[0.0, 0.0, 4.0, 0.0, 4.0, 3.0]],
            }
            for number, (image, name) in enumerate(objects, start=1)
        ],
        "categories": [
            {"supercategory": "thing", "id": id_, "name": name} for id_, name in zip(COCO_IDS, COCO_NAMES, strict=True)
        ],
    }


def write_coco(
    root: Path, train: Mapping[int, Sequence[str]], val: Mapping[int, Sequence[str]], images_in: str = ""
) -> Path:
    """COCO 2014 below `root`; `images_in="images"` for the other place of the image folders."""
    for part, labels in (("train", train), ("val", val)):
        edit_coco(root, part, coco_content(part, labels))
        for image in labels:
            write_image(root / images_in / f"{part}2014" / f"COCO_{part}2014_{image:012d}.jpg")
    return root


def edit_coco(root: Path, part: str, content: dict) -> None:
    file = root / "annotations" / f"instances_{part}2014.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def write_nus_wide(
    root: Path, train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]], line_end: str = "\n"
) -> Path:
    """NUS-WIDE below `root`: image such as `actor\\0001_1.jpg` -> names of its concepts, in order."""
    (root / "ConceptsList").mkdir(parents=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text("\n".join(NUS_CONCEPTS) + "\n")
    labels_folder = root / "Groundtruth" / "TrainTestLabels"
    labels_folder.mkdir(parents=True)
    (root / "Groundtruth" / "AllLabels").mkdir()
    (root / "ImageList").mkdir()
    (root / "NUS_WID_Tags").mkdir()
    everything = {**train, **test}
    (root / "ImageList" / "Imagelist.txt").write_text("\n".join(everything) + "\n")
    for concept in NUS_CONCEPTS:
        values = "".join(f"{int(concept in names)}\n" for names in everything.values())
        (root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt").write_text(values)
    for part, rows in (("Train", train), ("Test", test)):
        (root / "ImageList" / f"{part}Imagelist.txt").write_bytes("".join(f + line_end for f in rows).encode())
        tags = np.ones((len(rows), 81), dtype=int)  # everything: whoever reads these is found out
        np.savetxt(root / "NUS_WID_Tags" / f"{part}_Tags81.txt", tags, fmt="%d")
        for concept in NUS_CONCEPTS:
            values = "".join(f"{int(concept in names)}{line_end}" for names in rows.values())
            (labels_folder / f"Labels_{concept}_{part}.txt").write_bytes(values.encode())
        for file in rows:
            write_image(root / "Flickr" / file.replace("\\", "/"))
    return root
