"""Whatever comes in: metrics stay in their range and follow a change of order, or raise the documented error."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairpo_trl.classification.metrics.calibration import calibration_by_group, fit_temperature, tune_thresholds
from fairpo_trl.classification.metrics.comparison import compare_with_reference, hinge_satisfaction
from fairpo_trl.classification.metrics.confusion import confusion_of_privileged, retrieval
from fairpo_trl.classification.metrics.definitions import average_precision, check_labels_and_scores
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.classification.metrics.paper_protocol import paper_protocol_map
from fairpo_trl.core import Partition
from fairpo_trl.evaluation import Completion, compare_scores, paired_bootstrap, text_guards, win_rate


NAMES = ("anchor", "bridge", "candle", "drum")
PARTITION = Partition.by_name(NAMES, ["candle", "anchor"])
SCORE = st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50), st.floats(-1e300, 1e300))
ANYTHING = st.one_of(
    st.none(), st.text(max_size=3), st.integers(-3, 3), st.floats(), st.lists(st.floats() | st.text("1a"), max_size=3)
)
pytestmark = pytest.mark.filterwarnings("ignore:All scores lie between 0 and 1")


@st.composite
def matrices(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 1, 0 and -1, often without a positive, and scores with many ties."""
    rows = draw(st.integers(1, 12))
    labels = draw(arrays.arrays(np.int8, (rows, len(NAMES)), elements=st.sampled_from([0, 0, 1, 1, -1])))
    scores = draw(arrays.arrays(np.float64, (rows, len(NAMES)), elements=SCORE))
    return labels, scores


def in_range(values: Any, low: float = 0.0, high: float = 1.0) -> bool:
    """Whether everything that exists (is not NaN) lies within the limits, up to rounding."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return bool((numbers >= low - 1e-9).all() and (numbers <= high + 1e-9).all())


# ---- multi-label ----


@given(matrices(), st.randoms(use_true_random=False), st.sampled_from(["all", "any_label", "group_positive"]))
def test_metrics_of_groups_lie_in_range_and_follow_the_order(given_: Any, random: Any, samples: Any):
    labels, scores = given_
    report = evaluate_groups(labels, scores, PARTITION, samples=samples, zero_division=random.choice([0, 1, math.nan]))
    shares = [c for c in report.by_group if c.startswith(("map", "sample_f1", "accuracy", "exact_match"))]
    assert in_range(report.by_group[shares]) and in_range(report.by_label[["ap", "f1", "accuracy", "prevalence"]])
    ranked = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)  # with one kind alone there is nothing to rank
    assert (report.by_label["ap"].loc[list(NAMES)].isna().to_numpy() == ~ranked).all()
    json.dumps(report.to_dict(), allow_nan=False)
    rows, columns = (random.sample(range(n), n) for n in labels.shape)
    names = [NAMES[i] for i in columns]
    turned = evaluate_groups(
        labels[rows][:, columns],
        scores[rows][:, columns],
        Partition.by_name(names, PARTITION.privileged),
        samples=samples,
        zero_division=report.zero_division,
    )
    for mine, theirs in ((report.by_group, turned.by_group), (report.by_label, turned.by_label.loc[list(NAMES)])):
        for column in mine.columns.drop("role", errors="ignore"):
            np.testing.assert_allclose(mine[column], theirs[column], atol=1e-12)


@given(matrices())
def test_average_precision_sees_ranks_alone_and_never_falls_below_all_wrong(given_: Any):
    labels, scores = given_
    ap = average_precision(labels, scores)
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in scores.T], axis=1)
    np.testing.assert_array_equal(ap, average_precision(labels, ranks))
    best = average_precision(labels, labels.astype(float))
    assert (np.isnan(best) | (best == 1)).all()
    counts = [((column == 1).sum(), (column == 0).sum()) for column in labels.T]
    worst = np.array([np.mean([i / (absent + i) for i in range(1, n + 1)]) if n else 0 for n, absent in counts])
    assert (np.isnan(ap) | (ap >= worst - 1e-12)).all()


@given(matrices(), st.one_of(ANYTHING, st.just("mutate")), st.data())
def test_wrong_matrices_are_refused_by_place(given_: Any, other: Any, data: st.DataObject):
    labels, scores = given_
    if other == "mutate":  # one bad cell
        row, column = (data.draw(st.integers(0, n - 1)) for n in scores.shape)
        if data.draw(st.booleans()):
            scores[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        else:
            labels[row, column] = data.draw(st.sampled_from([-2, 2, 77]))
        with pytest.raises(ValueError, match=f"row {row}, label '{NAMES[column]}'"):
            check_labels_and_scores(labels, scores, NAMES)
        return
    for y, z in ((other, scores), (labels, other)):
        try:
            checked, finite = check_labels_and_scores(y, z, NAMES)
        except ValueError as error:
            assert 0 < len(str(error)) < 2000
        else:
            assert checked.shape == finite.shape == (len(checked), len(NAMES)) and np.isfinite(finite).all()


@given(matrices(), st.floats(1e-3, 1e3))
def test_calibration_lies_in_range(given_: Any, temperature: float):
    labels, scores = given_
    table = calibration_by_group(labels, scores, PARTITION, temperature=temperature)
    assert in_range(table) and np.isnan(table.loc["all", "ece"]) != (labels >= 0).any()
    try:
        fitted = fit_temperature(labels, scores)
    except ValueError as error:
        assert str(error).startswith("No ")
    else:
        assert 1e-3 <= fitted <= 1e3
    tuned = tune_thresholds(labels, scores, PARTITION)
    assert np.isfinite(tuned.values).all() and in_range(tuned.f1)
    assert tuned.untuned == tuple(n for n, count in zip(NAMES, (labels == 1).sum(axis=0), strict=True) if not count)
    f1 = evaluate_groups(labels, scores, PARTITION, thresholds=tuned.values).by_label["f1"]
    there = ~np.isnan(tuned.f1)
    np.testing.assert_allclose(f1[there], tuned.f1[there])


@given(matrices(), st.integers(1, 5))
def test_confusion_and_retrieval_lie_in_range(given_: Any, k: int):
    labels, scores = given_
    confusion = confusion_of_privileged(labels, scores, PARTITION)
    assert in_range([confusion.share]) and (confusion.counts <= confusion.opportunities).all(axis=None)
    assert confusion.pairs == int((labels[:, [0, 2]] == 1).sum())
    try:
        table = retrieval(labels, scores, PARTITION, cutoffs=(k,))
    except ValueError as error:
        assert "must lie between 1 and the" in str(error)
    else:
        assert in_range(table[["r_precision", f"precision_at_{k}", f"recall_at_{k}"]])
    assert in_range(list(paper_protocol_map(labels, scores, PARTITION, batch_size=k).values()))


@given(matrices(), st.data())
def test_a_model_compared_with_itself_has_not_changed(given_: Any, data: st.DataObject):
    labels, scores = given_
    assume(len(labels) > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of labels that do not exist
        same = compare_with_reference(labels, scores, scores, PARTITION, resamples=20)
        other = data.draw(arrays.arrays(np.float64, scores.shape, elements=SCORE))
        changed = compare_with_reference(labels, other, scores, PARTITION, resamples=20)
    frames = [value for value in vars(same).values() if hasattr(value, "columns")]
    assert frames
    for frame in frames:
        for column in [name for name in frame.columns if name.startswith(("delta", "low", "high"))]:
            assert in_range(frame[column], 0, 0)
    for frame in [value for value in vars(changed).values() if hasattr(value, "columns")]:
        for column in [name for name in frame.columns if name.startswith(("delta", "low", "high"))]:
            assert in_range(frame[column], -1, 1)
    kept = hinge_satisfaction(labels, other, scores, PARTITION, eps=0.01)
    assert in_range([kept.pairs, kept.labels])


# ---- completions ----

PROMPTS = st.integers(1, 8)
FREE = st.one_of(st.integers(-2, 2).map(float), st.floats(allow_nan=False))


@given(PROMPTS, st.integers(1, 3), st.integers(1, 3), st.data())
def test_win_rates_are_shares_that_add_up(prompts: int, m: int, n: int, data: st.DataObject):
    a, b = (data.draw(arrays.arrays(np.float64, (prompts, k), elements=FREE)) for k in (m, n))
    ours, theirs = win_rate(a, b), win_rate(b, a)
    assert ours.shape == (prompts,) and in_range(ours)
    np.testing.assert_allclose(ours + theirs, 1)
    np.testing.assert_array_equal(win_rate(a, a), 0.5)
    assert (win_rate(np.full_like(a, np.inf), b) >= ours).all()
    order = data.draw(st.permutations(range(prompts)))
    np.testing.assert_array_equal(win_rate(a[order], b[order]), ours[order])
    row = compare_scores("kind", "privileged", "judge", trained=a, reference=b, reference_again=b)
    assert in_range([row.trained.mean]) and row.difference is not None
    assert row.difference.mean == pytest.approx(row.trained.mean - 0.5)


@given(arrays.arrays(np.float64, PROMPTS, elements=st.floats(-1e6, 1e6)), st.integers(1, 50), st.floats(0.5, 0.99))
def test_intervals_are_ordered_and_lie_within_the_values(values: np.ndarray, resamples: int, level: float):
    estimate = paired_bootstrap(values, n=resamples, level=level)
    assert estimate.n == len(values) and in_range([estimate.mean], values.min(), values.max())
    if len(values) == 1:
        assert estimate.low is None and estimate.high is None
        return
    assert estimate.low <= estimate.high and in_range([estimate.low, estimate.high], values.min(), values.max())
    assert paired_bootstrap(values, n=resamples, level=level) == estimate
    none = paired_bootstrap(values, values, n=resamples, level=level)
    assert (none.mean, none.low, none.high) == (0, 0, 0)


@given(ANYTHING, ANYTHING)
def test_scores_that_are_none_are_refused(a: Any, b: Any):
    try:
        values = win_rate(a, b)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
    else:
        assert in_range(values)
    try:
        estimate = paired_bootstrap(a, n=5)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
    else:
        assert math.isfinite(estimate.mean)


@given(st.lists(st.lists(st.text("ab \n", max_size=20), max_size=3), max_size=4), st.booleans())
def test_guards_are_shares(texts: list[list[str]], ended: bool):
    completions = [[Completion(text, (), ended) for text in row] for row in texts]
    try:
        numbers = text_guards(completions).to_dict()
    except ValueError as error:
        assert str(error) == "There are no completions to guard." and not any(texts)
        return
    assert in_range([value for name, value in numbers.items() if name.endswith("_share")])
    assert numbers["unended_share"] == 1 - ended and numbers["completions"] == sum(map(len, texts))
