"""Metrics of whole splits: against scikit-learn and numbers by hand, identities between them, and invariances."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss

from fairpo_trl.classification.metrics.definitions import (
    average_precision,
    element_accuracy,
    exact_match_ratio,
    mean_average_precision,
    sample_f1,
)
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.classification.metrics.paper_protocol import paper_protocol_map
from fairpo_trl.core.partition import Partition


NAMES = ("a", "b", "c", "d", "e", "f")
PARTITION = Partition.by_name(NAMES, ["a", "d"])
GROUPS = {"all": [0, 1, 2, 3, 4, 5], "privileged": [0, 3], "non_privileged": [1, 2, 4, 5]}


def make(n=60, seed=0, unknown=0.0, decimals=None):
    """Labels of six prevalences and scores that know something of them; rounded scores have ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 6)) < [0.1, 0.5, 0.3, 0.15, 0.7, 0.2]).astype(np.int8)
    labels[0], labels[1] = 1, 0  # both values of each label are there
    scores = rng.normal(size=labels.shape) + 1.5 * labels - 0.5
    labels[rng.random(labels.shape) < unknown] = -1
    return labels, scores if decimals is None else scores.round(decimals)


# ---- average precision ----


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_average_precision_is_that_of_sklearn_on_what_is_known(decimals, unknown, dtype):
    labels, scores = make(300, unknown=unknown, decimals=decimals)
    scores = scores.astype(dtype)
    known = labels >= 0
    expected = [average_precision_score(labels[known[:, t], t], scores[known[:, t], t]) for t in range(6)]
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-9)


def test_average_precision_by_hand():
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]])
    scores = np.array([[4.0, 1, 1], [3, 1, 2], [2, 0, 3], [1, 0, 4]])
    # Positives at ranks 1 and 3: (1/1 + 2/3) / 2. Two ties of one positive and one negative: (1/2 + 2/4) / 2.
    assert average_precision(labels, scores)[:2] == pytest.approx([5 / 6, 1 / 2])
    assert np.isnan(average_precision(labels, scores)[2])


def test_a_float32_sigmoid_changes_average_precision():
    labels = np.array([[1], [0], [1]])
    logits = np.array([[20.0], [19.0], [18.0]], dtype=np.float32)
    squashed = 1 / (1 + np.exp(-logits))
    assert (squashed == 1).all()  # three scores the model told apart are now one tie
    assert average_precision(labels, logits)[0] == pytest.approx(5 / 6, abs=1e-12)
    assert average_precision(labels, squashed)[0] == pytest.approx(2 / 3, abs=1e-12)
    # The case named in the documentation, .833 -> .583: the top two become a tie with a negative in it.
    logits = np.array([[19.0], [18.0], [0.0], [-1.0]], dtype=np.float32)
    labels = np.array([[1], [0], [1], [0]])
    squashed = 1 / (1 + np.exp(-logits))
    assert average_precision(labels, logits)[0] == pytest.approx(0.833, abs=5e-4)
    assert average_precision(labels, squashed)[0] == pytest.approx(0.583, abs=5e-4)


def test_a_label_without_positives_is_left_out_and_counted():
    assert mean_average_precision([0.5, np.nan, 1.0]) == (0.75, 2)
    mean, counted = mean_average_precision([np.nan])
    assert np.isnan(mean) and counted == 0
    labels, scores = make()
    labels[:, 0] = 0
    report = evaluate_groups(labels, scores, PARTITION)
    assert report.labels_without_positives == ("a",)
    assert report.by_group.loc["privileged", "labels_counted"] == 1
    assert report.by_group.loc["privileged", "map"] == report.by_label.loc["d", "ap"]
    assert "1 left out: a" in report.describe()


# ---- sample-F1, accuracy, exact match ----


@pytest.mark.parametrize(("zero_division", "expected", "counted"), [(0, 0.5, 4), (1, 0.75, 4), (np.nan, 2 / 3, 3)])
def test_sample_f1_under_each_convention(zero_division, expected, counted):
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=np.int8)
    predictions = np.array([[1, 0], [0, 0], [1, 1], [1, 0]], dtype=bool)
    value, count = sample_f1(labels, predictions, zero_division=zero_division)
    assert (value, count) == (pytest.approx(expected), counted)
    assert value == pytest.approx(f1_score(labels, predictions, average="samples", zero_division=zero_division))


def test_sample_filters_of_f1():
    labels = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0], [-1, -1, 1]], dtype=np.int8)
    predictions = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=bool)
    group = np.array([True, True, False])
    # Within the group: 2/3, 0 (a false positive), 0 (zero_division); in the last sample nothing is known.
    assert sample_f1(labels, predictions, group, samples="all") == (pytest.approx(2 / 9), 3)
    assert sample_f1(labels, predictions, group, samples="any_label") == (pytest.approx(1 / 3), 2)
    assert sample_f1(labels, predictions, group, samples="group_positive") == (pytest.approx(2 / 3), 1)
    value, counted = sample_f1(np.zeros((2, 2), np.int8), np.zeros((2, 2), bool), samples="any_label")
    assert np.isnan(value) and counted == 0


@pytest.mark.parametrize("thresholds", [None, 0.7, [-1.0, 0.0, 0.5, 1.0, 2.0, -0.3]])
@pytest.mark.parametrize("zero_division", [0, 1, np.nan])
def test_every_group_metric_is_that_of_sklearn(thresholds, zero_division):
    labels, scores = make(200)
    report = evaluate_groups(labels, scores, PARTITION, thresholds=thresholds, zero_division=zero_division)
    predictions = (scores >= np.broadcast_to(0.0 if thresholds is None else thresholds, 6)).astype(int)
    assert list(report.by_group.index) == list(GROUPS)
    for group, columns in GROUPS.items():
        y, p, row = labels[:, columns], predictions[:, columns], report.by_group.loc[group]
        assert row["map"] == pytest.approx(average_precision_score(y, scores[:, columns], average="macro"), abs=1e-9)
        f1 = f1_score(y, p, average="samples", zero_division=zero_division)
        assert row["sample_f1"] == pytest.approx(f1, abs=1e-9)
        assert row["accuracy"] == pytest.approx(1 - hamming_loss(y, p), abs=1e-9)
        assert row["exact_match"] == pytest.approx(accuracy_score(y, p), abs=1e-9)
    for t, name in enumerate(NAMES):
        row = report.by_label.loc[name]
        assert row["f1"] == pytest.approx(f1_score(labels[:, t], predictions[:, t]))
        assert row["accuracy"] == pytest.approx(accuracy_score(labels[:, t], predictions[:, t]))
        assert row["positives"] == labels[:, t].sum()


def test_unknown_entries_count_nowhere():
    labels = np.array([[1, -1], [0, 1], [-1, -1]], dtype=np.int8)
    predictions = np.array([[1, 1], [1, 1], [1, 1]], dtype=bool)
    assert element_accuracy(labels, predictions) == pytest.approx(2 / 3)
    assert exact_match_ratio(labels, predictions) == 1 / 2  # of the two samples with a known label
    assert sample_f1(labels, predictions) == (pytest.approx((1 + 2 / 3) / 2), 2)
    nothing = np.full((2, 2), -1, dtype=np.int8)
    assert np.isnan(element_accuracy(nothing, predictions[:2])) and np.isnan(
        exact_match_ratio(nothing, predictions[:2])
    )


def test_a_logit_of_exactly_the_threshold_is_predicted():
    report = evaluate_groups([[1], [0]], [[0.0], [-1e-9]], Partition.by_name(["a"], ["a"]))
    assert report.by_group.loc["all", "accuracy"] == 1


# ---- identities ----


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_identities_between_the_metrics(seed, sparsity):
    rng = np.random.default_rng(seed)
    labels = (rng.random((25, 6)) < rng.random(6) * (1 - sparsity)).astype(np.int8)
    scores = rng.normal(size=labels.shape).round(1) - 1
    groups = evaluate_groups(labels, scores, PARTITION).by_group
    parts = groups.loc[["privileged", "non_privileged"]]
    if (parts["labels_counted"] > 0).all():
        weighted = np.average(parts["map"], weights=parts["labels_counted"])
        assert groups.loc["all", "map"] == pytest.approx(weighted, abs=1e-12)
    assert groups.loc["all", "accuracy"] == pytest.approx(np.average(parts["accuracy"], weights=parts["labels"]))
    assert (groups["exact_match"] <= groups["accuracy"] + 1e-12).all()
    assert (groups["exact_match"] >= 1 - groups["labels"] * (1 - groups["accuracy"]) - 1e-12).all()
    assert groups.loc["all", "exact_match"] <= parts["exact_match"].min()


def test_trivial_predictors_by_hand():
    # Prevalence: a 1/4, b 3/4; the label prior predicts b everywhere.
    labels = np.array([[1, 1], [0, 1], [0, 1], [0, 0]])
    scores = np.array([[1.0, 2], [-1, 3], [-2, 4], [-3, -4]])
    groups = evaluate_groups(labels, scores, Partition.by_name(["a", "b"], ["a"])).by_group
    assert groups["map_all_negative"].to_dict() == {"all": 1 / 2, "privileged": 1 / 4, "non_privileged": 3 / 4}
    assert groups["map_label_prior"].equals(groups["map_all_negative"])
    assert groups["accuracy_all_negative"].to_dict() == {"all": 1 / 2, "privileged": 3 / 4, "non_privileged": 1 / 4}
    assert groups["accuracy_label_prior"].to_dict() == {"all": 3 / 4, "privileged": 3 / 4, "non_privileged": 3 / 4}
    assert groups["exact_match_all_negative"].to_dict() == {"all": 1 / 4, "privileged": 3 / 4, "non_privileged": 1 / 4}
    assert groups["exact_match_label_prior"].to_dict() == {"all": 1 / 2, "privileged": 3 / 4, "non_privileged": 3 / 4}
    assert groups["sample_f1_all_negative"].to_dict() == {"all": 0, "privileged": 0, "non_privileged": 0}
    assert groups["sample_f1_label_prior"]["all"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    assert (groups[["map", "accuracy", "exact_match"]] == 1).all(axis=None)


def test_average_precision_of_a_constant_score_is_the_prevalence():
    labels, scores = make(unknown=0.2)
    report = evaluate_groups(labels, np.full_like(scores, -3.0), PARTITION)
    assert report.by_label["ap"].to_numpy() == pytest.approx(report.by_label["prevalence"].to_numpy())
    assert report.by_group["map"].to_numpy() == pytest.approx(report.by_group["map_all_negative"].to_numpy())


# ---- invariances ----


def test_the_order_of_samples_changes_nothing():
    labels, scores = make(100, unknown=0.1, decimals=1)
    order = np.random.default_rng(1).permutation(100)
    a, b = (evaluate_groups(y, z, PARTITION) for y, z in ((labels, scores), (labels[order], scores[order])))
    np.testing.assert_allclose(a.by_group.to_numpy(float), b.by_group.to_numpy(float), rtol=0, atol=1e-12)
    assert a.by_label.equals(b.by_label)


def test_the_order_of_labels_changes_nothing():
    labels, scores = make(100, unknown=0.1, decimals=1)
    order = [4, 2, 0, 5, 3, 1]
    other = Partition.by_name([NAMES[i] for i in order], ["a", "d"])
    a, b = evaluate_groups(labels, scores, PARTITION), evaluate_groups(labels[:, order], scores[:, order], other)
    np.testing.assert_allclose(a.by_group.to_numpy(float), b.by_group.to_numpy(float), rtol=0, atol=1e-12)
    assert a.by_label.equals(b.by_label.loc[list(NAMES)])
    assert a.bands().drop(columns="map").equals(b.bands().drop(columns="map"))
    assert a.matched_gap().gap == pytest.approx(b.matched_gap().gap)


def test_a_monotone_transform_of_one_label_keeps_its_average_precision():
    labels, scores = make(100, decimals=1)
    changed = scores.copy()
    changed[:, 2] = 5 * np.exp(scores[:, 2]) - 40
    assert np.array_equal(average_precision(labels, scores), average_precision(labels, changed))
    falling = scores.copy()
    falling[:, 2] *= -1
    assert average_precision(labels, falling)[2] < average_precision(labels, scores)[2]


def test_batches_put_together_give_the_split_and_the_per_batch_protocol_does_not():
    labels, scores = make(100)
    whole = evaluate_groups(labels, scores, PARTITION)
    for size in (1, 7, 32):
        parts = [scores[i : i + size] for i in range(0, 100, size)]
        assert evaluate_groups(labels, np.concatenate(parts), PARTITION).by_group.equals(whole.by_group)
    small, large = (paper_protocol_map(labels, scores, PARTITION, batch_size=size)["all"] for size in (8, 32))
    assert small > large + 0.02 > whole.by_group["map"]["all"] + 0.02
    one_batch = paper_protocol_map(labels, scores, PARTITION, batch_size=100)
    assert one_batch == pytest.approx(whole.by_group["map"].to_dict())


def test_paper_protocol_by_hand():
    labels = np.array([[1, 0], [0, 0], [0, 0], [0, 1], [0, 0]])
    scores = np.array([[1.0, 0], [2, 0], [0, 1], [0, 2], [0, 0]])
    # Batch 1: a has AP 1/2, b no positive. Batch 2: a none, b AP 1. Batch 3 (one sample) has no positive and counts 0.
    result = paper_protocol_map(labels, scores, Partition.by_name(["a", "b"], ["a"]), batch_size=2)
    assert result == {"all": 0.5, "privileged": pytest.approx(0.5 / 3), "non_privileged": pytest.approx(1 / 3)}
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        paper_protocol_map(labels, scores, Partition.by_name(["a", "b"], ["a"]), batch_size=0)


# ---- worst labels, gaps, bands ----


def ranked_report():
    """Six labels whose positives lie at given ranks of twelve samples, so that AP is known."""
    ranks = {"a": [1], "b": [1, 2], "c": [2], "d": [4], "e": [1, 2, 3, 4, 5, 6, 7, 8], "f": [1, 3]}
    labels = np.zeros((12, 6), dtype=np.int8)
    for column, places in enumerate(ranks.values()):
        labels[np.array(places) - 1, column] = 1
    return evaluate_groups(labels, np.tile(-np.arange(12.0)[:, None], (1, 6)), PARTITION)


def test_worst_labels_and_their_mean():
    report = ranked_report()
    assert report.by_label["ap"].to_numpy() == pytest.approx([1, 1, 1 / 2, 1 / 4, 1, 5 / 6])
    assert list(report.worst().index) == ["d"]
    assert list(report.worst(2, "non_privileged").index) == ["c", "f"]
    assert report.bottom_k_ap(2) == pytest.approx(3 / 8)
    assert report.bottom_k_ap(100, "privileged") == pytest.approx(5 / 8)
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        report.worst(0)


def test_gap_and_the_gap_between_labels_of_similar_prevalence():
    report = ranked_report()
    assert report.gap() == pytest.approx((1 + 1 / 2 + 1 + 5 / 6) / 4 - 5 / 8)
    # a and d have one positive: their peers within a factor of 2 are b, c and f, not e with its eight.
    matched = report.matched_gap()
    assert matched.gap == pytest.approx((1 + 1 / 2 + 5 / 6) / 3 - 5 / 8)
    assert (matched.matched, matched.unmatched) == (("a", "d"), ())
    assert report.matched_gap(1.5).gap == pytest.approx(1 / 2 - 5 / 8)
    with pytest.raises(ValueError, match="`factor` must be at least 1"):
        report.matched_gap(0.5)


def test_a_privileged_label_without_a_peer_is_named():
    labels, scores = make(200)
    labels[:, 0] = 0
    labels[:2, 0] = 1
    matched = evaluate_groups(labels, scores, PARTITION).matched_gap()
    assert matched.unmatched == ("a",) and matched.matched == ("d",)


def test_head_mid_and_tail():
    report = ranked_report()
    bands = report.bands({"a": 5, "b": 100, "c": 50, "d": 5, "e": 200, "f": 20})
    assert bands["labels"].to_dict() == {"head": 2, "mid": 2, "tail": 2}
    assert bands["map"].to_numpy() == pytest.approx([1, 2 / 3, 5 / 8])
    assert bands.loc["mid", ["min_count", "max_count"]].tolist() == [20, 50]
    # By the positives of the split: e, then b and f, then a, c and d, which are equal and share a band.
    assert report.bands()["labels"].tolist() == [3, 3, 0]
    assert np.isnan(report.bands().loc["tail", "map"])
    with pytest.raises(ValueError, match=r"Unknown label in `counts`: 'aa'"):
        report.bands({"aa": 1})
    with pytest.raises(ValueError, match=r"no number for \['b', 'c', 'd', 'e', 'f'\]"):
        report.bands({"a": 1})


def test_a_partition_without_held_labels_has_two_rows():
    labels, scores = make()
    report = evaluate_groups(labels, scores, Partition.by_name(NAMES, NAMES))
    assert list(report.by_group.index) == ["all", "privileged"]
    assert np.isnan(report.gap()) and report.matched_gap().unmatched == NAMES


def test_the_report_is_json():
    labels, scores = make()
    labels[:, 0] = -1
    written = evaluate_groups(labels, scores, PARTITION, zero_division=np.nan).to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["by_label"]["a"]["ap"] is None and written["by_label"]["b"]["role"] == "non_privileged"
    assert written["zero_division"] is None and written["labels_without_positives"] == ["a"]


# ---- what is refused ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_named(value):
    labels, scores = make()
    labels[7, 3] = -1  # also where the label is unknown
    scores[7, 3] = value
    with pytest.raises(ValueError, match=r"`scores` must be finite, got -?(nan|inf) at row 7, label 'd' \(1 such"):
        evaluate_groups(labels, scores, PARTITION)
    with pytest.raises(ValueError, match="at row 7, label 3"):
        average_precision(labels, scores)


def test_wrong_labels_shapes_and_options_are_refused():
    labels, scores = make()
    with pytest.raises(ValueError, match=r"`labels` must be 1, 0 or -1 \(unknown\), got 2 at row 5, label 'b'"):
        wrong = labels.copy()
        wrong[5, 1] = 2
        evaluate_groups(wrong, scores, PARTITION)
    with pytest.raises(ValueError, match=r"`scores` has shape \(60, 5\), `labels` \(60, 6\)"):
        evaluate_groups(labels, scores[:, :5], PARTITION)
    with pytest.raises(ValueError, match="6 label names but `labels` has 5 columns"):
        evaluate_groups(labels[:, :5], scores[:, :5], PARTITION)
    with pytest.raises(ValueError, match="must be integers"):
        evaluate_groups(labels.astype(float), scores, PARTITION)
    with pytest.raises(ValueError, match="`scores` must be real numbers; its dtype is object"):
        evaluate_groups(labels, scores.astype(object), PARTITION)
    with pytest.raises(ValueError, match=r"not be empty; its shape is \(0, 6\)"):
        evaluate_groups(labels[:0], scores[:0], PARTITION)
    with pytest.raises(ValueError, match=r"one number or one per label \(6\); its shape is \(5,\)"):
        evaluate_groups(labels, scores, PARTITION, thresholds=np.zeros(5))
    with pytest.raises(ValueError, match="`thresholds` holds NaN"):
        evaluate_groups(labels, scores, PARTITION, thresholds=np.nan)
    with pytest.raises(ValueError, match="`zero_division` must be 0, 1 or NaN, got 0.5"):
        evaluate_groups(labels, scores, PARTITION, zero_division=0.5)
    with pytest.raises(ValueError, match=r"'any_labels' \(did you mean 'any_label'\?\)"):
        evaluate_groups(labels, scores, PARTITION, samples="any_labels")


def test_probabilities_in_place_of_logits_are_suspected():
    labels, scores = make()
    with pytest.warns(UserWarning, match="between 0 and 1, as probabilities do"):
        evaluate_groups(labels, 1 / (1 + np.exp(-scores)), PARTITION)
