"""The card of a classifier, and what a push of one uploads: only the requests to the Hub are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers_classification import LABELS, PRIVILEGED, classifier, multilabel, rows
from huggingface_hub import ModelCard
from test_push_to_hub import TOKEN, FakeHub, assert_nothing_private

from fairpo_trl import MultiLabelClassifier
from fairpo_trl.classification.metrics.comparison import compare_with_reference
from fairpo_trl.classification.metrics.group_report import evaluate_groups


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(monkeypatch)


def trained(tmp_path: Path, **options):
    out = tmp_path / "home-of-alice" / "label-fairpo"
    trainer = multilabel(
        out, model=classifier(1, dtype=torch.float32), ref_model=classifier(0, dtype=torch.float32), **options
    )
    trainer.train()
    test = rows(40, seed=7, name="test", unknown=0.0)
    logits = trainer.predict(test).predictions
    with torch.no_grad():
        reference = classifier(0, dtype=torch.float32)(features=torch.from_numpy(test.features)).logits.numpy()
    return trainer, {
        "evaluation": evaluate_groups(test.labels, logits, trainer.partition),
        "comparison": compare_with_reference(test.labels, logits, reference, trainer.partition, resamples=50),
    }


def test_the_card_holds_roles_results_and_no_path(tmp_path):
    trainer, reported = trained(tmp_path)
    trainer.create_model_card(dataset="some-org/pictures", license="apache-2.0", **reported)
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    assert card.data.pipeline_tag == "image-classification" and card.data.license == "apache-2.0"
    assert card.data.datasets == ["some-org/pictures"] and {"fairpo", "multi-label"} <= set(card.data.tags)
    metrics = {(result.metric_type, result.metric_name): result.metric_value for result in card.data.eval_results}
    by_group = reported["evaluation"].by_group
    assert metrics["map", "mAP (privileged)"] == pytest.approx(by_group["map"]["privileged"], abs=1e-6)
    assert metrics["exact_match", "exact match (held)"] == pytest.approx(
        by_group["exact_match"]["non_privileged"], 1e-5
    )
    for label in LABELS:
        role = "privileged" if label in PRIVILEGED else "held"
        assert f"| {label} | {role} |" in card.text
    delta = reported["comparison"].by_group.loc["privileged"]
    assert (
        f"privileged {100 * delta['delta']:+.2f} [{100 * delta['low']:+.2f}, {100 * delta['high']:+.2f}]" in card.text
    )
    assert str(tmp_path) not in card.text and "home-of-alice" not in card.text


def test_a_label_cannot_write_html_into_the_card(tmp_path):
    trainer, reported = trained(tmp_path)
    names = list(trainer.partition.names)
    trainer.create_model_card(dataset='<script>alert("x")</script>', **reported)
    text = (Path(trainer.args.output_dir) / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in text.partition("---\n\n")[2] and names[0] in text


def test_a_push_uploads_the_classifier_and_nothing_of_the_machine(tmp_path, hub):
    trainer, reported = trained(tmp_path, hub_token=TOKEN, hub_private_repo=True)
    trainer.model.config.backbone = {
        "spec": f"hf:{tmp_path}/home-of-alice/dinov2",
        "name": f"{tmp_path}/home-of-alice/dinov2",
        "weights_hash": "0" * 64,
        "pooling": "cls",
        "requested_image_size": None,
    }
    assert trainer.push_to_hub(dataset="some-org/pictures", **reported) == "commit"
    (upload,) = hub.uploads
    files = upload["files"]
    assert {"model.safetensors", "config.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith(".bin") or "optimizer" in name]
    assert_nothing_private(files, tmp_path)
    config = json.loads(files["config.json"])
    assert config["label_names"] == list(LABELS) and config["backbone"]["spec"] == "hf:dinov2"
    assert hub.created[0]["private"] is True
    card = ModelCard(files["README.md"].decode())
    assert '"some-user/label-fairpo"' in card.text and "dinov2" in card.text


def test_a_pushed_classifier_predicts_what_it_did(tmp_path, hub):
    trainer, reported = trained(tmp_path)
    trainer.push_to_hub(**reported)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name, content in hub.uploads[0]["files"].items():
        (folder / name).write_bytes(content)
    features = torch.from_numpy(rows(5, seed=3).features)
    loaded = MultiLabelClassifier.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(loaded(features=features).logits, trainer.model(features=features).logits)
