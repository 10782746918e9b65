"""Build the multi-label clip-art set data/openclipart.parquet from two Debian packages of the Open Clip Art Library.

    apt-get download openclipart-png openclipart-svg             # 156 MB; version 0.18, public domain
    PYTHONPATH=recipes python -m openclipart.build_images --deb_dir DIR

Takes two minutes. The same packages give the same pictures, labels and split; what was dropped and why is printed and
written to data/build_report.json.
"""

import argparse
import hashlib
import io
import json
import posixpath
import re
from collections import Counter
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.progress import track

from openclipart.labels import RULES, labels_of
from openclipart.pictures import (
    NEAR,
    NEAR_OUTLINE,
    Unusable,
    near_duplicates,
    same_outline,
    signature,
    small_copy,
    webp_bytes,
)
from openclipart.series import best_split, make_series, privileged_labels
from openclipart.sources import PACKAGES, Picture, read_pictures


DATA_DIR = Path(__file__).with_name("data")
PARQUET = DATA_DIR / "openclipart.parquet"
REPORT = DATA_DIR / "build_report.json"

DROPPED_FOLDERS = {
    "shapes/stars": "1,378 stars that a program drew from random numbers",
    "computer/icons/flat-theme": "icon theme without keywords of its own",
    "computer/icons/lemon-theme": "icon theme without keywords of its own",
    "special/gradients": "samples of colour gradients (118 equal empty pictures)",
}
BROKEN = (
    # The renderer's notice "Linked Image Not Found" covers the drawing.
    "animals/birds/duck_yellow_ii_kurt_cagl_ animals/birds/penguin/tux_didier_fabert_01 "
    "people/stylized_yoga_person_ger_01 people/stylized_yoga_person_ger_02 people/stylized_yoga_person_ger_03 "
    "people/stylized_yoga_person_ger_04 people/stylized_yoga_person_ger_05 people/stylized_yoga_person_ger_06 "
    "recreation/religion/creation_day_7_number_ge_01 recreation/religion/creation_day_7_number_ge_04 "
    "signs_and_symbols/weather/tsunami_warning_sign_bob_01 "
    # Traced photographs of clouds that fell into black specks.
    "signs_and_symbols/clouds_jon_phillips_04 signs_and_symbols/clouds_jon_phillips_05 "
    "signs_and_symbols/clouds_jon_phillips_06"
).split()

EQUAL = {"shape": 0.998, "colour": 0.006}
"""The same drawing exported twice: merged, with the labels of both."""

MAX_SERIES = 60
"""At most so many pictures of one series: the four packs of cards would be 216 of 3,400."""

MIN_IMAGES = 36
"""A label stays with at least this many images: enough for 15 test positives and more to train on."""

MIN_POSITIVES = 15
"""Each privileged label has at least this many test images, and each label this many training images."""


def usable_copies(pictures: list[Picture], dropped: Counter) -> list[tuple[Picture, Image.Image]]:
    """The pictures that are neither dropped by a rule nor unusable, with their small copies."""
    copies = []
    for picture in track(pictures, "Making small copies", console=Console(stderr=True)):
        folders = [f for f in DROPPED_FOLDERS if any(re.match(f, folder) for folder in picture.folders)]
        if folders and all(any(re.match(f, folder) for f in folders) for folder in picture.folders):
            dropped[f"{folders[0]}: {DROPPED_FOLDERS[folders[0]]}"] += 1
            continue
        if picture.path in BROKEN:
            dropped["broken rendering, by hand"] += 1
            continue
        try:
            copies.append((picture, small_copy(picture.png)))
        except Unusable as reason:
            dropped[str(reason)] += 1
        picture.png = b""
    return copies


def merge_equal(copies: list, labels: list[list[str]], dropped: Counter) -> tuple[list, list[list[str]]]:
    """Join pictures exported twice; the first stays and takes the labels of all."""
    signatures = [signature(image) for _, image in copies]
    target = list(range(len(copies)))
    for one, two in near_duplicates(signatures, **EQUAL):
        target[two] = min(target[two], target[one])
    merged = {number: set(present) for number, present in enumerate(labels)}
    for number, first in enumerate(target):
        merged[first] |= set(labels[number])
    kept = [number for number in range(len(copies)) if target[number] == number]
    dropped["equal drawing exported twice (merged)"] += len(copies) - len(kept)
    return (
        [copies[number] for number in kept],
        [[name for name in RULES if name in merged[number]] for number in kept],
    )


def thin_series(series: list[str], keys: list[str]) -> list[int]:
    """At most `MAX_SERIES` of each series, chosen by the hash of the path: the same ones each time."""
    kept: Counter[str] = Counter()
    numbers = []
    for number in sorted(range(len(series)), key=lambda n: hashlib.sha256(keys[n].encode()).hexdigest()):
        if kept[series[number]] < MAX_SERIES:
            kept[series[number]] += 1
            numbers.append(number)
    return sorted(numbers)


def build(deb_dir: Path) -> tuple[pa.Table, dict]:
    """The table of the set, and the report."""
    pictures, counts = read_pictures(deb_dir)
    dropped: Counter[str] = Counter()
    copies = usable_copies(pictures, dropped)
    copies, labels = merge_equal(copies, [labels_of(picture) for picture, _ in copies], dropped)
    # Near-duplicates are looked for in what is shipped, so that anyone can look for them again in the file.
    shipped = [webp_bytes(image) for _, image in copies]
    signatures = [signature(Image.open(io.BytesIO(webp))) for webp in shipped]
    pairs = near_duplicates(signatures, **NEAR)
    pairs += same_outline(signatures, [posixpath.dirname(picture.path) for picture, _ in copies], NEAR_OUTLINE)
    series = make_series([picture for picture, _ in copies], pairs)
    numbers = thin_series(series, [picture.path for picture, _ in copies])
    dropped[f"beyond {MAX_SERIES} pictures of one series"] += len(copies) - len(numbers)

    # A label whose pictures all belong to one or two series cannot be in both splits: it goes as well.
    total = Counter(label for n in numbers for label in labels[n])
    spread = {label: len({series[n] for n in numbers if label in labels[n]}) for label in total}
    names = [name for name in RULES if total[name] >= MIN_IMAGES and spread[name] >= 5]
    labels = [[name for name in present if name in names] for present in labels]
    unlabelled = [n for n in numbers if not labels[n]]
    dropped["no label left"] += len(unlabelled)
    numbers = [n for n in numbers if labels[n]]

    split = best_split([series[n] for n in numbers], [labels[n] for n in numbers], MIN_POSITIVES)
    rows = [
        {
            "id": copies[n][0].path,
            "image": {"bytes": shipped[n], "path": f"{copies[n][0].path}.webp"},
            "labels": labels[n],
            "split": split[series[n]],
            "series": series[n],
            "title": copies[n][0].title,
            "author": copies[n][0].author,
        }
        for n in numbers
    ]
    return to_table(rows, names), make_report(rows, names, total, spread, counts, dropped)


def to_table(rows: list[dict], names: list[str]) -> pa.Table:
    """Train before test, each in the order of ids; the label names are in the schema's metadata."""
    rows.sort(key=lambda row: (row["split"] != "train", row["id"]))
    digest = content_hash(rows, names)
    for row in rows:
        row["source"] = f"openclipart-png 0.18: /usr/share/openclipart/png/{row['id']}.png"
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = ("id", "split", "series", "source", "title", "author")
    fields = {**{name: pa.string() for name in text}, "image": image, "labels": pa.list_(pa.string())}
    order = ("id", "image", "labels", "split", "series", "source", "title", "author")
    # `huggingface` is how the library `datasets` learns that the column holds pictures.
    features = {"info": {"features": {name: {"dtype": "string", "_type": "Value"} for name in text}}}
    features["info"]["features"] |= {
        "image": {"_type": "Image"},
        "labels": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    }
    metadata = {
        "label_names": json.dumps(names),
        "content_hash": digest,
        "licence": "public domain (Creative Commons Public Domain Dedication)",
        "huggingface": json.dumps(features),
    }
    schema = pa.schema([(name, fields[name]) for name in order], metadata=metadata)
    return pa.Table.from_pylist(rows, schema=schema)


def content_hash(rows: list[dict], names: list[str]) -> str:
    """SHA-256 over label names and, per row, id, labels, split, series and the bytes of the picture."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for row in rows:
        digest.update(json.dumps([row["id"], row["labels"], row["split"], row["series"]]).encode())
        digest.update(hashlib.sha256(row["image"]["bytes"]).digest())
    return digest.hexdigest()


def make_report(
    rows: list[dict], names: list[str], total: Counter, spread: dict, counts: dict, dropped: Counter
) -> dict:
    """Everything the data sheet states, in numbers."""
    count = {
        split: Counter(label for row in rows if row["split"] == split for label in row["labels"])
        for split in ("train", "test")
    }
    per_image = [len(row["labels"]) for row in rows]
    ordered = sorted(names, key=lambda name: -(count["train"][name] + count["test"][name]))
    return {
        "packages": {kind: {"file": pattern, "sha256": digest} for kind, (pattern, digest) in PACKAGES.items()},
        "pillow": PIL.__version__,
        "sources": counts,
        "dropped_pictures": dict(dropped),
        "dropped_labels": {
            name: {"images": total[name], "series": spread.get(name, 0)} for name in RULES if name not in names
        },
        "content_hash": content_hash(rows, names),
        "images": {split: sum(row["split"] == split for row in rows) for split in count},
        "series": {split: len({row["series"] for row in rows if row["split"] == split}) for split in count},
        "labels": len(names),
        "labels_per_image": {
            "mean": round(float(np.mean(per_image)), 3),
            **dict(sorted(Counter(map(str, per_image)).items())),
        },
        "privileged": privileged_labels(count["train"], names),
        "images_per_label": {name: {split: count[split][name] for split in count} for name in ordered},
    }


def check(report: dict) -> None:
    """Stop before anything is written if the split is not what it promises."""
    for name, images in report["images_per_label"].items():
        if images["train"] < MIN_POSITIVES or images["test"] < (MIN_POSITIVES if name in report["privileged"] else 5):
            raise ValueError(f"Label {name!r} has too few images for a split: {images}. Raise MIN_IMAGES.")


def main(deb_dir: Path) -> None:
    table, report = build(deb_dir)
    check(report)
    DATA_DIR.mkdir(exist_ok=True)
    pq.write_table(table, PARQUET, compression="zstd", write_page_index=False)
    report["parquet_megabytes"] = round(PARQUET.stat().st_size / 1e6, 2)
    REPORT.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console = Console(width=119)
    console.print_json(json.dumps({key: value for key, value in report.items() if key != "packages"}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deb_dir", type=Path, required=True, help="folder with the two .deb files")
    main(parser.parse_args().deb_dir)
