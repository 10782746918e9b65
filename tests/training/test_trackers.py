"""What reaches a tracker, read back from TensorBoard's own event files: tidy names, finite, one value a step."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers_classification import LABELS, PRIVILEGED, multilabel, rows
from helpers_trainer import NAMES, data, fairpo
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from fairpo_trl.classification.data.split import MultiLabelSplit


RUN = {"report_to": "tensorboard", "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1}


def scalars(logs: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) as the files hold them, nothing reduced."""
    found: dict[str, list[tuple[int, float]]] = {}
    files = list(logs.rglob("events.out.tfevents.*"))
    assert files
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tensor.float_val:
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def assert_tidy(found: dict[str, list[tuple[int, float]]]) -> None:
    for tag, values in found.items():
        assert re.fullmatch(r"(train|eval)(/[^/\s][^/]*)+", tag), tag
        assert all(math.isfinite(value) for _, value in values), tag
        if tag == "train/epoch":  # the clock, which transformers adds to every entry
            values = sorted(set(values))
        steps = Counter(step for step, _ in values)
        assert max(steps.values()) == 1, f"{tag} has several values at one step: {steps}"


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("generation")
    trainer = fairpo(out, data(16), eval_dataset=data(9, seed=5), **RUN)
    trainer.train()
    return trainer, scalars(out)


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("classification")
    trainer = multilabel(out, eval_dataset=rows(20, seed=5, name="validation"), num_train_epochs=2, **RUN)
    trainer.train()
    return trainer, scalars(out)


def test_every_attribute_and_role_has_its_curves(generation):
    trainer, found = generation
    assert_tidy(found)
    for mode in ("train", "eval"):
        for metric in ("accuracy", "margin", "loss", "inside_hinge"):
            assert {f"{mode}/{metric}/attribute/{name}" for name in NAMES} <= set(found)
            assert {f"{mode}/{metric}/role/{role}" for role in ("privileged", "non_privileged")} <= set(found)
        assert {f"{mode}/accuracy/worst_attribute", f"{mode}/margin/worst_attribute", f"{mode}/loss"} <= set(found)
    for kind in ("weight", "group_loss", "scaled_group_loss"):
        assert {f"train/{kind}/privileged", f"train/{kind}/non_privileged"} <= set(found)
    assert [step for step, _ in found["train/weight/privileged"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["eval/accuracy/worst_attribute"]] == [2, 4]
    last = trainer.group_metrics["eval"].by_group
    for name in NAMES:
        assert found[f"eval/accuracy/attribute/{name}"][-1] == (4, pytest.approx(last.loc[name, "accuracy"], abs=1e-6))


def test_every_label_and_role_has_its_curves(classification):
    trainer, found = classification
    assert_tidy(found)
    roles = ("privileged", "non_privileged")
    for metric in ("bce", "loss"):
        assert {f"{mode}/{metric}/role/{role}" for mode in ("train", "eval") for role in roles} <= set(found)
    for metric in ("map", "sample_f1", "accuracy", "exact_match"):
        assert {f"eval/{metric}/{group}" for group in ("all", *roles)} <= set(found)
    assert {f"train/{kind}/{role}" for kind in ("weight", "group_loss", "scaled_group_loss") for role in roles} <= set(
        found
    )
    assert {f"eval/ap/label/{name}" for name in LABELS} <= set(found)
    last = trainer.evaluations["eval"].by_label["ap"]
    steps = [step for step, _ in found["eval/map/all"]]
    assert steps == [2, 4, 6]
    for name in LABELS:
        assert found[f"eval/ap/label/{name}"][-1] == (6, pytest.approx(last[name], abs=1e-6))
    privileged = np.mean([found[f"eval/ap/label/{name}"][-1][1] for name in PRIVILEGED])
    assert found["eval/map/privileged"][-1][1] == pytest.approx(privileged, abs=1e-6)


def test_what_did_not_occur_has_no_curve(tmp_path):
    missing = rows(20, seed=5, name="validation", unknown=0.0)
    labels = missing.labels.copy()
    labels[:, LABELS.index("drum")] = 0  # no positive: its average precision means nothing
    split = MultiLabelSplit(
        name="validation", label_names=LABELS, labels=labels, ids=missing.ids, images=None,
        features=missing.features, series=None, notes={},
    )  # fmt: skip
    multilabel(tmp_path / "labels", eval_dataset=split, **RUN).train()
    found = scalars(tmp_path / "labels")
    assert_tidy(found)
    assert "eval/ap/label/drum" not in found and "eval/ap/label/flute" in found

    fairpo(tmp_path / "pairs", data(16), eval_dataset=data(8, seed=5, attributes=("concise", "polite")), **RUN).train()
    found = scalars(tmp_path / "pairs")
    assert_tidy(found)
    assert "eval/accuracy/attribute/factual" not in found and "train/accuracy/attribute/factual" in found


def test_names_with_blanks_and_signs_stay_apart(tmp_path):
    names = ("to the point", "to_the_point", "höflich (sehr)")
    fairpo(
        tmp_path, data(12, attributes=names), privileged_attributes=[names[0]], **{**RUN, "eval_strategy": "no"}
    ).train()
    found = scalars(tmp_path)
    assert {f"train/accuracy/attribute/{name}" for name in names} <= set(found)
    assert max(Counter(step for step, _ in found[f"train/loss/attribute/{names[0]}"]).values()) == 1
