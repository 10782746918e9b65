"""Compute the features that ship with the clip-art set: DINOv2-S on every image, once.

    PYTHONPATH=recipes python -m openclipart.build_features                # writes the file beside the Parquet
    PYTHONPATH=recipes python -m openclipart.build_features --compare      # a linear probe of each pooling
    PYTHONPATH=recipes python -m openclipart.build_features --check 100    # compare with live features

About ten minutes on one core. Resumable: the features lie in the cache folder meanwhile. One pass gives the last four
class tokens and the mean of the patches; the poolings are cut out of it.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from demo.weights import cache_root
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.cache import extract_features, images_hash
from openclipart.dinov2 import dinov2_path
from openclipart.load import FEATURES, check_features, load_openclipart


POOLING = "cls_mean"
WIDE = "last4_cls_mean"
WIDTH = 384
PARTS = {
    "cls": slice(3 * WIDTH, 4 * WIDTH),
    "mean": slice(4 * WIDTH, 5 * WIDTH),
    "cls_mean": slice(3 * WIDTH, 5 * WIDTH),
    "last4_cls_mean": slice(0, 5 * WIDTH),
}
"""Where each pooling lies in the widest one. The class tokens come from the fourth last layer to the last."""


def joined(splits: dict[str, MultiLabelSplit]) -> MultiLabelSplit:
    """Both splits as one, by id: the cache stays valid when only labels or the split change."""
    train, test = splits["train"], splits["test"]
    images = [*train.images, *test.images]
    ids = [*train.ids, *test.ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return MultiLabelSplit(
        name="all",
        label_names=train.label_names,
        labels=np.concatenate([train.labels, test.labels])[order],
        ids=tuple(ids[number] for number in order),
        images=[images[number] for number in order],
    )


def probe_map(train: MultiLabelSplit, validation: MultiLabelSplit, part: slice, strength: float) -> float:
    """Mean average precision of one logistic regression per label, over labels with positives in both parts."""
    both = (train.labels.any(axis=0)) & (validation.labels.any(axis=0))
    classifier = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=strength, max_iter=300)))
    classifier.fit(train.features[:, part].astype(np.float32), train.labels[:, both])
    scores = classifier.decision_function(validation.features[:, part].astype(np.float32))
    return float(average_precision_score(validation.labels[:, both], scores, average="macro"))


def compare(train: MultiLabelSplit, console: Console) -> dict[str, float]:
    """The best probe of each pooling on a validation part of train; the test split is not looked at."""
    fitted, validation = train.carve_validation(0.25, seed=0)
    table = Table(title=f"Linear probe, mAP on {len(validation)} images carved from train")
    table.add_column("pooling")
    strengths = (0.01, 0.1, 1.0)
    for strength in strengths:
        table.add_column(f"C = {strength:g}", justify="right")
    best = {}
    for pooling, part in PARTS.items():
        values = [probe_map(fitted, validation, part, strength) for strength in strengths]
        best[pooling] = max(values)
        table.add_row(pooling, *(f"{value:.3f}" for value in values))
    console.print(table)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache_dir", type=Path, help="folder of the feature cache (default: in ~/.cache/fairpo_trl)")
    parser.add_argument("--device", default="cpu", help="where the backbone runs, for example cuda")
    parser.add_argument("--compare", action="store_true", help="print a linear probe of each pooling")
    parser.add_argument("--check", type=int, metavar="N", help="only compare the stored features with N live ones")
    arguments = parser.parse_args()
    console = Console(width=119)
    folder, source = dinov2_path()
    console.print(source)
    narrow = load_backbone(f"hf:{folder}", pooling=POOLING).to(arguments.device)
    if arguments.check:
        worst = check_features(narrow, arguments.check)
        console.print(
            f"{arguments.check} live features agree with the stored ones within {worst:.1e} of their length."
        )
        return
    wide = load_backbone(f"hf:{folder}", pooling=WIDE).to(arguments.device)
    cache = arguments.cache_dir or cache_root(None) / "openclipart-features"
    splits = load_openclipart(features=False)
    everything = extract_features(joined(splits), wide, cache, batch_size=16, dtype="float16")
    row = {name: number for number, name in enumerate(everything.ids)}
    metadata = {"backbone": json.dumps(narrow.identity), "source": source}
    arrays = {}
    for split, data in splits.items():
        splits[split] = data.with_features(np.asarray(everything.features)[[row[name] for name in data.ids]])
        arrays[split] = np.ascontiguousarray(splits[split].features[:, PARTS[POOLING]])
        metadata[f"images_hash_{split}"] = images_hash(data)
    if arguments.compare:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metadata["probe_validation_map"] = json.dumps(
                {pooling: round(value, 4) for pooling, value in compare(splits["train"], console).items()}
            )
    save_file(arrays, FEATURES, metadata=metadata)
    FEATURES.chmod(0o644)  # safetensors writes for the owner alone
    console.print(f"{FEATURES}: {FEATURES.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
