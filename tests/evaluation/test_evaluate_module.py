"""The module for `evaluate`: loads from its folder offline, equals scikit-learn, refuses bad input."""

from __future__ import annotations

from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss

import fairpo_trl


FOLDER = Path(fairpo_trl.__file__).parent / "classification" / "metrics" / "multilabel_by_group"
NAMES = ["a", "b", "c", "d"]
KWARGS = {"label_names": NAMES, "privileged": ["a", "c"]}
COLUMNS = {"all": [0, 1, 2, 3], "privileged": [0, 2], "non_privileged": [1, 3]}


@pytest.fixture
def metric(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.loading, "init_dynamic_modules", init_dynamic_modules_in(tmp_path / "modules"))
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path))


def init_dynamic_modules_in(folder):
    original = evaluate.loading.init_dynamic_modules
    return lambda *_: original(hf_modules_cache=folder)


def make(n=50):
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 4)) < [0.2, 0.5, 0.3, 0.4]).astype(np.int64)
    return labels, rng.normal(size=labels.shape) + 1.5 * labels - 0.5


def test_it_equals_sklearn(metric):
    labels, scores = make()
    results = metric.compute(predictions=scores, references=labels, **KWARGS)
    for group, columns in COLUMNS.items():
        y, z = labels[:, columns], scores[:, columns]
        assert results[f"{group}_map"] == pytest.approx(average_precision_score(y, z, average="macro"), abs=1e-9)
        f1 = f1_score(y, z >= 0, average="samples", zero_division=0)
        assert results[f"{group}_sample_f1"] == pytest.approx(f1, abs=1e-9)
        assert results[f"{group}_accuracy"] == pytest.approx(1 - hamming_loss(y, z >= 0), abs=1e-9)
        assert results[f"{group}_exact_match"] == pytest.approx(accuracy_score(y, z >= 0), abs=1e-9)
        assert results[f"{group}_accuracy_all_negative"] == pytest.approx(1 - y.mean(), abs=1e-9)
        assert results[f"{group}_map_label_prior"] == pytest.approx(y.mean(), abs=1e-9)
        assert results[f"{group}_labels_counted"] == len(columns)
    assert results["labels_without_positives"] == []


def test_batches_of_any_size_are_scored_as_one_split(metric):
    labels, scores = make()
    whole = metric.compute(predictions=scores.tolist(), references=labels.tolist(), **KWARGS)
    for size in (1, 7, 32):
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            metric.add_batch(predictions=scores[rows], references=labels[rows])
        assert metric.compute(**KWARGS) == whole


def test_labels_without_positives_and_unknown_references_are_reported(metric):
    labels, scores = make()
    labels[:, 0] = 0
    labels[:10, 1] = -1
    results = metric.compute(predictions=scores, references=labels, **KWARGS)
    assert results["labels_without_positives"] == ["a"]
    assert results["privileged_labels_counted"] == 1 and results["all_labels_counted"] == 3
    assert results["privileged_map"] == pytest.approx(average_precision_score(labels[:, 2], scores[:, 2]), abs=1e-9)
    known = [
        average_precision_score(labels[10:, 1], scores[10:, 1]),
        average_precision_score(labels[:, 3], scores[:, 3]),
    ]
    assert results["non_privileged_map"] == pytest.approx(np.mean(known), abs=1e-9)


def test_options_reach_the_metrics(metric):
    labels, scores = make()
    results = metric.compute(
        predictions=scores, references=labels, **KWARGS, thresholds=[9.0, 9, 9, 9], zero_division=1, samples="all"
    )
    assert results["all_accuracy"] == results["all_accuracy_all_negative"]
    assert results["all_sample_f1"] == pytest.approx((labels.sum(axis=1) == 0).mean())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(metric, value):
    labels, scores = make()
    scores[4, 2] = value
    with pytest.raises(ValueError, match="must be finite, got (nan|inf) at row 4, label 'c'"):
        metric.compute(predictions=scores, references=labels, **KWARGS)


def test_rows_and_names_that_do_not_fit_are_refused(metric):
    with pytest.raises(ValueError, match="Row 1 of `predictions` has 3 values, but there are 4 `label_names`"):
        metric.compute(predictions=[[0.1] * 4, [0.1] * 3], references=[[0] * 4] * 2, **KWARGS)
    with pytest.raises(ValueError, match="Row 0 of `references` has a missing value: use -1"):
        metric.compute(predictions=[[0.1] * 4], references=[[0, 1, None, 0]], **KWARGS)
    with pytest.raises(ValueError, match="got 2 at row 0, label 'b'"):
        metric.compute(predictions=[[5.0] * 4], references=[[0, 2, 0, 0]], **KWARGS)
    with pytest.raises(ValueError, match="Unknown privileged name: 'e'"):
        metric.compute(predictions=[[5.0] * 4], references=[[0] * 4], label_names=NAMES, privileged=["e"])


def test_the_example_of_the_module_is_right(metric):
    results = metric.compute(
        predictions=[[2.0, -1.0], [0.5, 0.3], [-1.0, -2.0]],
        references=[[1, 0], [0, 1], [1, 0]],
        label_names=["person", "toaster"],
        privileged=["toaster"],
    )
    assert round(results["non_privileged_map"], 3) == 0.833 and results["privileged_map"] == 1.0
    assert "(0.833, 1.0, [])" in metric.inputs_description
