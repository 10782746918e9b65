"""A method against its reference: paired bootstrap over series, hinge satisfaction, confusion; and calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss

from fairpo_trl.classification.metrics import bootstrap
from fairpo_trl.classification.metrics.bootstrap import Ranking, bootstrap_average_precision, clusters_of
from fairpo_trl.classification.metrics.calibration import (
    brier_score,
    calibrate,
    calibration_by_group,
    expected_calibration_error,
    fit_temperature,
    tune_thresholds,
)
from fairpo_trl.classification.metrics.comparison import (
    binary_cross_entropy,
    compare_with_reference,
    hinge_satisfaction,
)
from fairpo_trl.classification.metrics.confusion import confusion_of_privileged, most_confused_pairs, retrieval
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.core.partition import Partition


NAMES = ("a", "b", "c", "d")
PARTITION = Partition.by_name(NAMES, ["a", "c"])


def make(n=80, seed=0, unknown=0.0, decimals=None):
    """Labels, scores of a method, and scores of a reference that knows less."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 4)) < [0.2, 0.5, 0.3, 0.4]).astype(np.int8)
    scores = rng.normal(size=labels.shape) + 1.5 * labels - 0.5
    reference = scores + 0.8 * rng.normal(size=labels.shape)
    labels[rng.random(labels.shape) < unknown] = -1
    return (
        (labels, scores, reference)
        if decimals is None
        else (labels, scores.round(decimals), reference.round(decimals))
    )


# ---- bootstrap ----


@pytest.mark.parametrize("decimals", [None, 0])
def test_average_precision_of_a_resample_is_that_of_the_repeated_rows(decimals):
    labels, scores, _ = make(unknown=0.2, decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 4, size=(len(labels), 9)).astype(np.int32)
    for t in range(4):
        values = Ranking.of(labels[:, t], scores[:, t]).average_precision(weights)
        for r in range(9):
            rows = np.repeat(np.arange(len(labels)), weights[:, r])
            rows = rows[labels[rows, t] >= 0]
            assert values[r] == pytest.approx(average_precision_score(labels[rows, t], scores[rows, t]), abs=1e-9)


def test_a_resample_without_positives_has_no_average_precision():
    labels = np.array([1, 0, 0], dtype=np.int8)
    weights = np.array([[0, 1], [2, 1], [1, 1]], dtype=np.int32)
    values = Ranking.of(labels, np.array([2.0, 3.0, 1.0])).average_precision(weights)
    assert np.isnan(values[0]) and values[1] == 0.5
    assert np.isnan(Ranking.of(labels * 0, np.zeros(3)).average_precision(weights)).all()


def test_series_are_drawn_whole(monkeypatch):
    labels, scores, _ = make()
    clusters = clusters_of([f"series {i // 8}" for i in range(80)], 80)
    assert clusters.tolist() == [i // 8 for i in range(80)]
    seen = []
    monkeypatch.setattr(
        Ranking, "average_precision", lambda self, weights: seen.append(weights) or np.zeros(weights.shape[1])
    )
    bootstrap_average_precision([Ranking.of(labels[:, 0], scores[:, 0])], clusters, resamples=50, seed=0)
    weights = np.concatenate(seen, axis=1).reshape(10, 8, 50)
    assert (weights == weights[:, :1]).all()  # every image of a series as often as the others
    assert (weights[:, 0].sum(axis=0) == 10).all()  # as many series as there are
    assert weights[:, 0].max() > 1 and weights[:, 0].min() == 0


def test_memory_bound_and_repetition_do_not_change_the_bootstrap(monkeypatch):
    labels, scores, _ = make()
    rankings = [Ranking.of(labels[:, t], scores[:, t]) for t in range(4)]
    once = bootstrap_average_precision(rankings, np.arange(80), resamples=25, seed=3)
    monkeypatch.setattr(bootstrap, "_CELLS", 80 * 7)
    assert np.array_equal(once, bootstrap_average_precision(rankings, np.arange(80), resamples=25, seed=3))
    assert not np.array_equal(once, bootstrap_average_precision(rankings, np.arange(80), resamples=25, seed=4))


def test_series_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`series` names 3 samples, the labels have 4"):
        clusters_of(["x", "x", "y"], 4)
    with pytest.raises(ValueError, match="one series only"):
        clusters_of(["x", "x"], 2)


# ---- comparison ----


def test_differences_are_those_of_the_two_evaluations():
    labels, scores, reference = make(unknown=0.1)
    result = compare_with_reference(labels, scores, reference, PARTITION, resamples=200)
    after, before = evaluate_groups(labels, scores, PARTITION), evaluate_groups(labels, reference, PARTITION)
    assert result.by_label["delta"].to_numpy() == pytest.approx(
        (after.by_label["ap"] - before.by_label["ap"]).to_numpy()
    )
    groups = result.by_group
    assert list(groups.index) == ["all", "privileged", "non_privileged"]
    assert groups["map"].to_numpy() == pytest.approx(after.by_group["map"].to_numpy())
    assert groups["map_reference"].to_numpy() == pytest.approx(before.by_group["map"].to_numpy())
    assert groups["delta"].to_numpy() == pytest.approx((groups["map"] - groups["map_reference"]).to_numpy())
    assert (groups["low"] < groups["delta"]).all() and (groups["delta"] < groups["high"]).all()
    assert groups["seed_sd"].isna().all() and result.seeds == 1 and result.series == 80
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_intervals_are_the_quantiles_of_paired_resamples():
    labels, scores, reference = make(40)
    result = compare_with_reference(labels, scores, reference, PARTITION, resamples=60, level=0.9, seed=5)
    rng = np.random.default_rng(5)
    deltas = []
    for _ in range(60):
        rows = np.repeat(np.arange(40), np.bincount(rng.integers(0, 40, size=40), minlength=40))
        deltas.append(
            [
                average_precision_score(labels[rows, t], scores[rows, t])
                - average_precision_score(labels[rows, t], reference[rows, t])
                for t in range(4)
            ]
        )
    low, high = np.quantile(deltas, [0.05, 0.95], axis=0)
    assert result.by_label["low"].to_numpy() == pytest.approx(low, abs=1e-9)
    assert result.by_label["high"].to_numpy() == pytest.approx(high, abs=1e-9)
    low, high = np.quantile(np.mean(np.array(deltas)[:, [0, 2]], axis=1), [0.05, 0.95])
    assert result.by_group.loc["privileged", ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-9)


def test_a_model_equal_to_its_reference_differs_by_exactly_nothing():
    labels, scores, _ = make(decimals=1)
    result = compare_with_reference(labels, scores, 3 * scores + 1, PARTITION, resamples=50, eps=0)
    assert (result.by_label[["delta", "low", "high"]] == 0).all(axis=None)
    assert result.fell == () and result.fell_surely == ()


def test_near_duplicates_widen_the_interval():
    labels, scores, reference = make(40)
    copies = [np.repeat(matrix, 10, axis=0) for matrix in (labels, scores, reference)]
    blind = compare_with_reference(*copies, PARTITION, resamples=400)
    series = [i // 10 for i in range(400)]
    aware = compare_with_reference(*copies, PARTITION, resamples=400, series=series)
    single = compare_with_reference(labels, scores, reference, PARTITION, resamples=400)
    blind_width, aware_width, single_width = (
        (one.by_group["high"] - one.by_group["low"])["all"] for one in (blind, aware, single)
    )
    assert aware_width == pytest.approx(single_width, abs=1e-9)  # copies of a series are no evidence
    assert aware_width > 2 * blind_width
    assert aware.series == 40 and (aware.by_label["series_with_positives"] * 10 == aware.by_label["positives"]).all()


def test_seeds_are_averaged_and_their_spread_stands_beside():
    labels, scores, reference = make()
    runs = [scores, scores + np.random.default_rng(8).normal(size=scores.shape), reference]
    result = compare_with_reference(labels, runs, reference, PARTITION, resamples=100)
    single = [compare_with_reference(labels, run, reference, PARTITION, resamples=100) for run in runs]
    for table in ("by_label", "by_group"):
        deltas = np.array([getattr(one, table)["delta"] for one in single])
        assert getattr(result, table)["delta"].to_numpy() == pytest.approx(deltas.mean(axis=0))
        assert getattr(result, table)["seed_sd"].to_numpy() == pytest.approx(deltas.std(axis=0, ddof=1))
    assert result.seeds == 3
    # Equal runs: the interval over images stays, the spread of seeds is 0.
    same = compare_with_reference(labels, [scores, scores], [reference, reference], PARTITION, resamples=100)
    assert same.by_label["low"].to_numpy() == pytest.approx(single[0].by_label["low"].to_numpy())
    assert same.by_label["seed_sd"].tolist() == [0, 0, 0, 0]


def test_held_labels_that_fell_are_listed_and_privileged_ones_are_not():
    labels, scores, _ = make(400)
    worse = scores.copy()
    worse[:, [0, 3]] *= -1  # a (privileged) and d (held) turned round
    worse[:, 1] += 0.3 * np.random.default_rng(0).normal(size=400)
    result = compare_with_reference(labels, worse, scores, PARTITION, resamples=200, eps=0.001)
    assert result.fell == ("d", "b")
    assert "d" in result.fell_surely and "a" not in result.fell_surely
    barely = -result.by_label.loc["b", "delta"] - 1e-6  # b fell by more than this, but its interval reaches above
    result = compare_with_reference(labels, worse, scores, PARTITION, resamples=200, eps=barely)
    assert (result.fell, result.fell_surely) == (("d", "b"), ("d",))
    assert compare_with_reference(labels, worse, scores, PARTITION, resamples=20, eps=0.9).fell == ()


def test_resamples_without_positives_are_counted():
    labels, scores, reference = make(40)
    labels[:, 0] = 0
    labels[3, 0] = 1
    labels[:, 1] = 0
    result = compare_with_reference(labels, scores, reference, PARTITION, resamples=300)
    assert 80 < result.by_label.loc["a", "resamples_without_positives"] < 140  # 300 / e = 110
    assert result.by_label.loc["b", "resamples_without_positives"] == 300
    assert result.by_label.loc["b", ["ap", "delta", "low", "high"]].isna().all()
    assert result.by_group.loc["non_privileged", "labels_counted"] == 1
    assert result.by_group.loc["non_privileged", "delta"] == pytest.approx(result.by_label.loc["d", "delta"])


def test_wrong_comparisons_are_refused():
    labels, scores, reference = make()
    with pytest.raises(
        ValueError, match=r"one reference for all seeds or one for each.*\(3, 80, 4\) and \(2, 80, 4\)"
    ):
        compare_with_reference(labels, [scores] * 3, [reference] * 2, PARTITION)
    with pytest.raises(ValueError, match="`resamples` must be at least 1"):
        compare_with_reference(labels, scores, reference, PARTITION, resamples=0)
    reference[2, 1] = np.nan
    with pytest.raises(ValueError, match="`reference` must be finite, got nan at row 2, label 'b'"):
        compare_with_reference(labels, scores, reference, PARTITION)


# ---- hinge ----


def test_hinge_satisfaction_by_hand():
    labels = np.array([[1, 1, 0, 0], [0, 0, 0, -1]], dtype=np.int8)
    reference = np.zeros((2, 4))  # BCE log 2 everywhere
    scores = np.array([[9.0, 2, 9, 0], [9, 1, 9, 50]])
    result = hinge_satisfaction(labels, scores, reference, PARTITION)
    # b: better on the first sample, worse on the second (log(1 + e) > log 2); d: equal on the one known sample.
    assert result.pairs == pytest.approx(2 / 3)
    b = (np.log1p(np.exp(-2)) + np.log1p(np.e)) / 2
    assert result.by_label.loc["b", ["bce", "excess"]].tolist() == pytest.approx([b, b - np.log(2)])
    assert result.by_label["satisfied"].to_dict() == {"b": False, "d": True}
    assert result.by_label["pairs_satisfied"].to_dict() == {"b": 0.5, "d": 1.0}
    assert result.labels == 0.5
    assert hinge_satisfaction(labels, scores, reference, PARTITION, eps=b - np.log(2) + 1e-9).labels == 1
    assert hinge_satisfaction(labels, scores, reference, PARTITION, eps=0.7).pairs == 1


def test_a_model_keeps_its_hinge_against_itself_and_loses_it_when_turned_round():
    labels, scores, _ = make()
    same = hinge_satisfaction(labels, scores, scores, PARTITION)
    assert (same.pairs, same.labels) == (1, 1)
    assert hinge_satisfaction(labels, -scores, scores, PARTITION).labels == 0
    nobody = hinge_satisfaction(labels, scores, scores, Partition.by_name(NAMES, NAMES))
    assert np.isnan(nobody.pairs) and np.isnan(nobody.labels) and len(nobody.by_label) == 0
    with pytest.raises(ValueError, match="`eps` must be at least 0"):
        hinge_satisfaction(labels, scores, scores, PARTITION, eps=-0.1)


def test_cross_entropy_from_logits_does_not_saturate():
    losses = binary_cross_entropy(np.array([1, 0, 1], dtype=np.int8), np.array([-1000.0, 1000.0, 1000.0]))
    assert losses.tolist() == [1000, 1000, 0]


# ---- confusion and retrieval ----


def test_confusion_by_hand():
    labels = np.array([[1, 0, 1, 0], [1, 0, 0, -1], [0, 1, 1, 0]], dtype=np.int8)
    scores = np.array([[1.0, 1, 3, 0], [2, 1, 0, 9], [5, 0, 0, 4]])
    # a in row 0: b ties (counts), d below. a in row 1: d is unknown, nothing confuses. c in row 0: nothing.
    # c in row 2: a and d above; b is present there.
    result = confusion_of_privileged(labels, scores, PARTITION)
    assert (result.pairs, result.share) == (4, 0.5)
    assert result.by_label.loc["a"].tolist() == [2, 0.5, 0.5]
    assert result.by_label.loc["c"].tolist() == [2, 0.5, 1.0]
    assert result.counts.loc["a"].tolist() == [0, 1, 0, 0]
    assert result.counts.loc["c"].tolist() == [1, 0, 0, 1]
    assert result.opportunities.loc["a"].tolist() == [0, 2, 1, 1]

    better = confusion_of_privileged(labels, scores + 10 * (labels == 1), PARTITION)
    assert better.share == 0
    table = most_confused_pairs(result, better)
    assert table.to_numpy().tolist() == [["a", "b", 2, 1, 0, -1], ["c", "a", 1, 1, 0, -1], ["c", "d", 2, 1, 0, -1]]
    assert most_confused_pairs(better, result, k=1)["change"].tolist() == [1]  # new confusion is shown too
    with pytest.raises(ValueError, match="different labels or splits"):
        most_confused_pairs(result, confusion_of_privileged(labels[:2], scores[:2], PARTITION))


def test_without_a_privileged_positive_there_is_no_confusion_share():
    result = confusion_of_privileged(np.zeros((3, 4), int), np.ones((3, 4)) * 2, PARTITION)
    assert result.pairs == 0 and np.isnan(result.share) and result.by_label["share"].isna().all()


def test_retrieval_by_hand_with_ties():
    labels = np.array([[1], [0], [1], [0], [1], [-1]])
    scores = np.array([[5.0], [4], [3], [3], [1], [9]])
    table = retrieval(labels, scores, Partition.by_name(["a"], ["a"]), cutoffs=(1, 3, 5))
    # Third place is shared by one positive and one negative: half a hit.
    assert table.loc["a"].to_dict() == pytest.approx(
        {
            "positives": 3,
            "r_precision": 0.5,
            "precision_at_1": 1,
            "recall_at_1": 1 / 3,
            "precision_at_3": 0.5,
            "recall_at_3": 0.5,
            "precision_at_5": 0.6,
            "recall_at_5": 1,
        }
    )
    with pytest.raises(ValueError, match=r"`cutoffs` \[6\] must lie between 1 and the 5 images ranked for 'a'"):
        retrieval(labels, scores, Partition.by_name(["a"], ["a"]), cutoffs=(1, 6))


# ---- calibration and thresholds ----


def test_the_temperature_is_where_the_likelihood_is_highest():
    labels, scores, _ = make(2000)
    overconfident = 4 * scores
    temperature = fit_temperature(labels, overconfident)
    assert temperature == pytest.approx(4 * fit_temperature(labels, scores), rel=1e-6)

    def loss(t):
        return log_loss(labels.ravel(), 1 / (1 + np.exp(-overconfident.ravel() / t)))

    assert loss(temperature) < min(loss(temperature * 1.02), loss(temperature / 1.02), loss(1.0))
    table = calibration_by_group(labels, overconfident, PARTITION, temperature=temperature)
    assert (table["ece_temperature"] < table["ece"]).all() and (table["brier_temperature"] < table["brier"]).all()


def test_no_temperature_is_invented_where_none_is_best():
    labels, scores, _ = make()
    with pytest.raises(ValueError, match="every label is on the right side of logit 0"):
        fit_temperature(labels, np.where(labels == 1, 2.0, -2.0))
    with pytest.raises(ValueError, match="say no more about these labels than a constant 0"):
        fit_temperature(labels, np.where(labels == 1, -2.0, 2.0))
    with pytest.raises(ValueError, match="No label is known"):
        fit_temperature(np.full_like(labels, -1), scores)


def test_a_split_is_calibrated_by_the_temperature_of_validation():
    (validation, seen, _), (labels, scores, _) = make(200), make(200, seed=1)
    table, why = calibrate(validation, 3 * seen, labels, 3 * scores, PARTITION)
    temperature = fit_temperature(validation, 3 * seen)
    assert why == "" and table.equals(calibration_by_group(labels, 3 * scores, PARTITION, temperature=temperature))
    # Without a best temperature what needs none is there, and it says why the rest is not.
    table, why = calibrate(validation, np.where(validation == 1, 2.0, -2.0), labels, scores, PARTITION)
    assert "every label is on the right side of logit 0" in why
    assert table[["ece_temperature", "brier_temperature"]].isna().all(axis=None)
    untouched = ["ece", "brier", "brier_all_negative", "brier_label_prior"]
    assert table[untouched].equals(calibration_by_group(labels, scores, PARTITION, temperature=1.0)[untouched])


def test_calibration_by_hand():
    # Two groups of equal scores, probability 1/2 and 4/5, and positives 1/4 and 3/4: weighted mean of .25 and .05.
    labels = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=np.int8)
    scores = np.array([[0.0] * 4, [np.log(4)] * 4])
    assert expected_calibration_error(labels, scores) == pytest.approx(0.15)
    assert expected_calibration_error(labels, scores, temperature=1e9) == pytest.approx((0.25 + 0.25) / 2)
    expected = brier_score_loss(labels.ravel(), np.repeat([0.5, 0.8], 4))
    assert brier_score(labels, scores) == pytest.approx(expected)
    table = calibration_by_group(labels, scores, PARTITION, temperature=1.0)
    # Prevalence in the columns: a 1, b 1/2, c 1/2, d 0.
    assert table["brier_all_negative"].to_dict() == {"all": 0.5, "privileged": 0.75, "non_privileged": 0.25}
    assert table["brier_label_prior"].to_dict() == {"all": 0.125, "privileged": 0.125, "non_privileged": 0.125}
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        calibration_by_group(labels, scores, PARTITION, temperature=0)


def test_calibration_bins_have_equal_mass_and_ignore_order_and_unknown_entries():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(150, 2))
    labels = (rng.random((150, 2)) < 0.3).astype(np.int8)
    order = np.argsort(scores.ravel())
    gaps = [
        abs((1 / (1 + np.exp(-scores.ravel()[part])) - labels.ravel()[part]).mean())
        for part in np.array_split(order, 15)
    ]
    value = expected_calibration_error(labels, scores)
    assert value == pytest.approx(np.mean(gaps))
    shuffled = rng.permutation(150)
    assert expected_calibration_error(labels[shuffled], scores[shuffled]) == pytest.approx(value, abs=1e-12)
    padded_labels, padded_scores = np.vstack([labels, [[-1, -1]]]).astype(np.int8), np.vstack([scores, [[9.0, -9]]])
    assert expected_calibration_error(padded_labels, padded_scores) == pytest.approx(value, abs=1e-12)
    assert brier_score(padded_labels, padded_scores) == pytest.approx(brier_score(labels, scores))


@pytest.mark.parametrize("decimals", [None, 0])
def test_tuned_thresholds_reach_the_best_f1_there_is(decimals):
    labels, scores, _ = make(60, decimals=decimals)
    tuned = tune_thresholds(labels, scores, PARTITION)
    for t in range(4):
        best = max(f1_score(labels[:, t], scores[:, t] >= cut) for cut in scores[:, t])
        assert tuned.f1[t] == pytest.approx(best)
        assert f1_score(labels[:, t], scores[:, t] >= tuned.values[t]) == pytest.approx(best)
    report = evaluate_groups(labels, scores, PARTITION, thresholds=tuned.values)
    assert report.by_label["f1"].to_numpy() == pytest.approx(tuned.f1)
    assert tuned.untuned == ()


def test_thresholds_lie_between_scores_and_labels_without_positives_are_named():
    labels = np.array([[1, 0], [0, 0], [1, -1]], dtype=np.int8)
    tuned = tune_thresholds(labels, np.array([[3.0, 5], [-1, 6], [2, 7]]), Partition.by_name(["a", "b"], ["a"]))
    assert tuned.values.tolist() == [0.5, 0.0]  # half-way between 2 and -1
    assert tuned.untuned == ("b",) and tuned.f1[0] == 1 and np.isnan(tuned.f1[1])
