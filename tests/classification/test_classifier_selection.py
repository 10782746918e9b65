"""The promise, tested, of a classifier: the path between two, average precision as a held measure, the command."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_classification import LABELS, PRIVILEGED, classifier, rows
from sklearn.metrics import average_precision_score
from test_classifier_model import dinov2, with_backbone  # noqa: F401  # a fixture

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, Partition
from fairpo_trl.classification import run as run_module
from fairpo_trl.classification.branch import freeze_held_labels
from fairpo_trl.classification.interpolation import interpolate_classifier
from fairpo_trl.classification.metrics.held_precision import GROUP, HeldPrecision
from fairpo_trl.classification.run_options import LabelArguments
from fairpo_trl.classification.select import ClassifierTest, select_classifier
from fairpo_trl.evaluation.selection import assess
from fairpo_trl.hub.compose import compose_card
from fairpo_trl.reporting.selection_results import SelectionResults


PARTITION = Partition.by_name(LABELS, PRIVILEGED)


def moved(model: MultiLabelClassifier, seed: int = 5, size: float = 0.5) -> MultiLabelClassifier:
    """A copy whose trained weights have moved."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    return other


def logits(model: MultiLabelClassifier, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits.double()


FEATURES = torch.from_numpy(rows(30).features).double()


# ---- the path ----


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 1.5])
def test_the_weights_of_a_linear_head_and_so_its_logits_lie_on_a_line(scale):
    reference = classifier(seed=0)
    trained = moved(reference)
    found = interpolate_classifier(reference, trained, scale)
    first, last = (logits(model, features=FEATURES) for model in (reference, trained))
    torch.testing.assert_close(logits(found, features=FEATURES), first + scale * (last - first), atol=1e-6, rtol=0)
    for name, weight in found.stored_state().items():
        start, end = reference.stored_state()[name], trained.stored_state()[name]
        torch.testing.assert_close(weight, start + scale * (end - start), atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"trainable": "last_blocks", "blocks": 1}, {"trainable": "lora", "blocks": 2}])
def test_an_adapted_backbone_lies_on_the_line_too_and_the_model_loads_as_a_plain_folder(options, dinov2, tmp_path):  # noqa: F811
    reference = with_backbone(dinov2, **options)
    trained = moved(reference, size=0.05)

    def adapted(model: MultiLabelClassifier) -> dict[str, torch.Tensor]:
        """What is added to each frozen weight by LoRA, and every whole weight."""
        state = model.stored_state()
        ratio = model.config.lora_alpha / model.config.lora_r
        found = {name: weight for name, weight in state.items() if ".lora_" not in name}
        for name, factor in state.items():
            if ".lora_A." in name:
                found[name.partition(".lora_A.")[0]] = ratio * state[name.replace("lora_A", "lora_B")] @ factor
        return found

    for scale in (0.5, 1.0, 1.5):
        found = interpolate_classifier(reference, trained, scale)
        first, last = adapted(reference), adapted(trained)
        for name, weight in adapted(found).items():
            expected = first[name] + scale * (last[name] - first[name])
            torch.testing.assert_close(weight, expected, atol=1e-6, rtol=0, msg=name)
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        here = logits(found, pixel_values=pixels)
        if scale == 1.0:
            torch.testing.assert_close(here, logits(trained, pixel_values=pixels), atol=0, rtol=0)
        else:
            assert (here - logits(trained, pixel_values=pixels)).abs().max() > 1e-3
        found.save_pretrained(tmp_path / str(scale))
        loaded = MultiLabelClassifier.from_pretrained(tmp_path / str(scale))
        torch.testing.assert_close(logits(loaded, pixel_values=pixels), here, atol=0, rtol=0)


@pytest.mark.parametrize("head", ["linear", "label_mlp", "shared_mlp"])
def test_of_a_branch_beside_a_frozen_head_the_logits_are_scaled(head):
    reference = classifier(seed=0, head=head)
    trained = copy.deepcopy(reference)
    freeze_held_labels(trained, PRIVILEGED)
    trained = moved(trained.double())
    found = logits(interpolate_classifier(reference, trained, 0.5), features=FEATURES)
    first, last = (logits(model, features=FEATURES) for model in (reference, trained))
    torch.testing.assert_close(found, first + 0.5 * (last - first), atol=1e-6, rtol=0)
    held = [i for i, name in enumerate(LABELS) if name not in PRIVILEGED]
    assert torch.equal(found[:, held], first[:, held])


def test_two_classifiers_without_a_path_are_refused():
    reference, wide = classifier(), classifier(head="shared_mlp")
    with pytest.raises(ValueError, match="at least 0, got -1"):
        interpolate_classifier(reference, moved(reference), -1)
    with pytest.raises(ValueError, match="no path between models of different shapes"):
        interpolate_classifier(reference, wide, 0.5)
    other = moved(reference)
    other.feature_mean.add_(1)
    with pytest.raises(ValueError, match="other statistics"):
        interpolate_classifier(reference, other, 0.5)
    other = moved(reference)
    other.config.label_names = list(reversed(LABELS))
    with pytest.raises(ValueError, match="other labels"):
        interpolate_classifier(reference, other, 0.5)


# ---- average precision as a held measure ----


def drawn_labels(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits of a reference and of a candidate that is much like it."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, len(LABELS))) < 0.2).astype(np.int8)
    reference = y * 2.0 + rng.normal(size=y.shape)
    return y, reference, reference + 0.3 * rng.normal(size=y.shape)


def test_a_difference_is_that_of_scikit_learns_average_precision_in_points():
    y, reference, candidate = drawn_labels()
    found = HeldPrecision(y, reference, PARTITION).candidate("a", candidate)
    ap = {
        name: 100
        * (average_precision_score(y[:, t], candidate[:, t]) - average_precision_score(y[:, t], reference[:, t]))
        for t, name in enumerate(LABELS)
    }
    assert set(found.held) == set(PARTITION.non_privileged)
    for name, held in found.held.items():
        assert held.differences.value == pytest.approx(ap[name])
        assert held.differences.examples == (y[:, LABELS.index(name)] == 1).sum()
    assert found.gain.value == pytest.approx(np.mean([ap[name] for name in PRIVILEGED]))
    mean = HeldPrecision(y, reference, PARTITION, held="mean").candidate("a", candidate)
    assert list(mean.held) == [GROUP]
    assert mean.held[GROUP].differences.value == pytest.approx(np.mean([ap[n] for n in PARTITION.non_privileged]))


def test_whole_series_are_resampled_the_same_for_both_models():
    y, reference, candidate = drawn_labels(40)
    twice = [np.concatenate([part, part]) for part in (y, reference, candidate)]
    series = [*range(40), *range(40)]
    once = HeldPrecision(y, reference, PARTITION).candidate("a", candidate)
    found = HeldPrecision(twice[0], twice[1], PARTITION, series=series).candidate("a", twice[2])
    for name in found.held:
        assert found.held[name].differences.examples == once.held[name].differences.examples
    # An image that is there twice says no more than once.
    np.testing.assert_allclose(found.gain.drawn, once.gain.drawn)
    same = HeldPrecision(y, reference, PARTITION).candidate("a", reference)
    assert not np.any(same.gain.drawn)


def test_ten_positives_without_a_loss_do_not_show_that_losses_are_rare():
    y = np.zeros((300, len(LABELS)), dtype=np.int8)
    for t in range(len(LABELS)):
        y[np.arange(t, t + 10 * len(LABELS), len(LABELS)), t] = 1
    scores = y * 6.0 + np.random.default_rng(0).normal(size=y.shape)
    found = assess(HeldPrecision(y, scores, PARTITION, margin=10).candidate("same", scores), bound="bootstrap")
    assert {held.mean for held in found.held} == {0.0}
    assert all(-40 < held.bound < -10 and not held.passed for held in found.held)  # rule of three: 26 points
    assert all(held.needed == held.needed_if_equal > 20 for held in found.held)


def test_labels_without_positives_are_named_and_nothing_to_hold_is_refused():
    y, reference, candidate = drawn_labels()
    held = [LABELS.index(name) for name in PARTITION.non_privileged]
    y[:, held[0]] = 0
    y[1:, held[1]] = 0
    found = HeldPrecision(y, reference, PARTITION)
    assert found.untested == [LABELS[t] for t in held[:2]]
    assert set(found.candidate("a", candidate).held) == {LABELS[t] for t in held[2:]}
    y[:, held] = 0
    with pytest.raises(ValueError, match="No held label has positives"):
        HeldPrecision(y, reference, PARTITION)


@pytest.mark.parametrize(("kind", "held"), [("shift", "labels"), ("rare losses", "labels"), ("rare losses", "mean")])
def test_a_violation_of_average_precision_passes_at_most_at_the_level(kind, held):
    # More settings and 4,000 runs: benchmarks/classifier_level.py.
    from benchmarks.classifier_level import violations

    runs = 150
    share = violations(kind, held, positives=20, runs=runs, resamples=100)
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


# ---- the test, and the command ----


def test_the_chosen_classifier_is_a_plain_folder_and_its_numbers_are_from_images_that_decided_nothing(tmp_path):
    test = rows(300, seed=3, name="test", unknown=0.0)
    truth = np.random.default_rng(99).normal(size=(5, len(LABELS)))
    reference = classifier(dtype=torch.float32)
    trained = copy.deepcopy(reference)
    with torch.no_grad():  # better at everything
        trained.head.out.weight.add_(torch.from_numpy(truth.T).float())
    options = ClassifierTest(held="mean", margin=1, scales=(0.5, 1.0), resamples=200)
    found = select_classifier(trained, reference, test, PARTITION, tmp_path, options, title="drawings")
    assert [entry.status for entry in found.selection.candidates] == ["passed", "passed"]
    assert found.selection.chosen == found.test.name == max(found.selection.candidates, key=lambda t: t.gain).name
    assert found.settings["images"] + found.settings["images set aside"] == 300
    assert SelectionResults.read(tmp_path / "selection.json") == found
    assert "On other series of images, which decided nothing" in found.statement
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "chosen")
    expected = interpolate_classifier(reference, trained, found.scales[found.selection.chosen])
    features = torch.from_numpy(test.features)
    assert torch.equal(logits(loaded, features=features), logits(expected, features=features))
    card = compose_card(tmp_path / "chosen", "classifier", "me/chosen")
    assert card.count("## What was tested") == 1 and "every safer candidate passed" in card
    page = (tmp_path / "selection.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page and "points of average precision" in page

    worse = copy.deepcopy(reference)
    with torch.no_grad():
        worse.head.out.weight.sub_(torch.from_numpy(truth.T).float())
    found = select_classifier(worse, trained, test, PARTITION, tmp_path, options)
    assert found.selection.chosen is None and not (tmp_path / "chosen").exists()
    assert "The reference is the answer" in found.statement and "series of images" in found.statement


def test_a_run_tests_what_it_trained_and_reports_it(tmp_path, capsys):
    splits = {name: rows(n, seed=seed, name=name) for name, n, seed in (("train", 200, 0), ("test", 150, 2))}
    script = LabelArguments(select=True, held="mean", margin=60.0, scales=[0.5, 1.0], patience=2, validation_share=0.3)
    training = MultiLabelFairPOConfig(
        output_dir=str(tmp_path), privileged_labels=list(PRIVILEGED), report_to="none", disable_tqdm=True,
        use_cpu=True, save_strategy="no", num_train_epochs=1, learning_rate=0.01, per_device_eval_batch_size=64,
    )  # fmt: skip
    run_module.run(splits, script, training, "drawings")
    selection = SelectionResults.read(tmp_path / "selection" / "selection.json")
    assert len(selection.selection.candidates) == 2
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (table,) = (table for table in results["tables"] if table["title"].startswith("The promise, tested"))
    assert table["note"] == selection.statement and len(table["rows"]) == 2
    for file in ("report.md", "report.html"):
        text = Path(tmp_path / file).read_text(encoding="utf-8")
        assert "The promise, tested" in text
    assert "![The promise, tested" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert selection.statement in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "`margin` must be between 0 and 100 points"),
        ({"level": 0.7}, "`level` must be between 0 and 0.5"),
        ({"aside_share": 1.0}, "`aside_share` must be at least 0 and below 1"),
        ({"scales": [1.0, 0.5]}, "rise from the safest"),
        ({"select": True, "start": "fresh"}, "nothing lies between the two"),
    ],
)
def test_what_cannot_be_tested_is_said_before_training(options, words):
    with pytest.raises(ValueError, match=words):
        LabelArguments(**options)
