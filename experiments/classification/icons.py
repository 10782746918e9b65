"""
Makes a folder of features from the Tabler icons: 4,518 drawings with the tags of their publisher, for `demo_search`.

    npm pack @tabler/icons@3.52.0 && tar xzf tabler-icons-3.52.0.tgz       (1.3 MB, MIT licence; makes `package`)
    pip install resvg_py                                                   (draws SVG; nothing else needs it)
    python -m experiments.classification.icons --package package --output_dir FOLDER     (five minutes on a core)

Logos are left out, as trademarks. A label is a tag of `LEAST_IMAGES` icons or more, in `LEAST_SERIES` series. A series
are the icons that share the first word of their name (`arrow-up`, `arrow-down`): no split cuts one. How the publisher
came by the tags is not documented.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openclipart.dinov2 import dinov2_path
from PIL import Image

from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.cache import extract_features

from .folds import fold_of_rows


SIDE = 112
LEAST_IMAGES, LEAST_SERIES = 40, 10
TEST_FOLDS, FOLDS = 2, 5
"""Of five folds of series two are the test set: a label of 43 icons has 27 positives there, in the mean."""


def label_matrix(tags: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str], NDArray[np.int8]]:
    """
    Icons with a label, labels, and the matrix `[N, T]`.

    Args:
        tags (`Mapping[str, Sequence[str]]`):
            Of each icon.
    """
    named = {name: {str(tag).lower() for tag in of} for name, of in sorted(tags.items())}
    icons: dict[str, set[str]] = defaultdict(set)
    for name, of in named.items():
        for tag in of:
            icons[tag].add(name)
    labels = sorted(
        tag
        for tag, names in icons.items()
        if len(names) >= LEAST_IMAGES and len({series_of(name) for name in names}) >= LEAST_SERIES
    )
    kept = [name for name, of in named.items() if of & set(labels)]
    return kept, labels, np.array([[tag in named[name] for tag in labels] for name in kept], dtype=np.int8)


def series_of(name: str) -> str:
    """The first word of an icon's name."""
    return name.split("-")[0]


def drawn(path: Path) -> Image.Image:
    """An icon in black on white, in 16 greys."""
    import resvg_py

    svg = path.read_text(encoding="utf-8").replace("currentColor", "#000")
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, background="white"))
    return Image.open(io.BytesIO(png)).convert("L").quantize(16).convert("RGB")


def main() -> None:
    """Draws, extracts features, splits and writes `features.npy` and `labels.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="the unpacked package @tabler/icons")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    known = json.loads((args.package / "icons.json").read_text(encoding="utf-8"))
    folder = args.package / "icons" / "outline"
    tags = {
        name: icon["tags"]
        for name, icon in known.items()
        if series_of(name) != "brand" and (folder / f"{name}.svg").exists()
    }
    names, labels, matrix = label_matrix(tags)
    icons = MultiLabelSplit(
        name="icons",
        label_names=tuple(labels),
        labels=matrix,
        ids=tuple(names),
        images=[drawn(folder / f"{name}.svg") for name in names],
        series=tuple(map(series_of, names)),
    )
    backbone = load_backbone("hf:" + dinov2_path()[0], pooling="cls_mean", image_size=SIDE)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    icons = extract_features(icons, backbone, args.output_dir / "cache", batch_size=32, dtype="float16")
    np.save(args.output_dir / "features.npy", np.asarray(icons.features), allow_pickle=False)
    test = fold_of_rows(icons, FOLDS) < TEST_FOLDS
    with (args.output_dir / "labels.jsonl").open("w", encoding="utf-8") as file:
        for number, name in enumerate(names):
            present = [label for label, there in zip(labels, matrix[number], strict=True) if there]
            split = "test" if test[number] else "train"
            file.write(json.dumps({"id": name, "split": split, "series": series_of(name), "labels": present}) + "\n")
    print(f"{len(names)} icons, {len(labels)} labels, {test.sum()} icons in {args.output_dir} are for testing.")


if __name__ == "__main__":
    main()
