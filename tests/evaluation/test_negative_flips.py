"""Negative flips in both halves: what the reference had right, or at least tied, and the new model loses."""

from __future__ import annotations

import numpy as np

from fairpo_trl import Partition
from fairpo_trl.classification.metrics.flips import decision_flips, flips_table
from fairpo_trl.evaluation.comparison import compare_by_scores
from fairpo_trl.reporting.label_results import FurtherTable


def test_decisions_that_flip_are_counted_by_label():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, -1]])
    before = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    after = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    found = decision_flips(labels, before, after, Partition.by_name(["cat", "dog"], ["cat"]))
    # cat: present image 0 lost, absent image 2 lost, image 3 won; dog: image 1 won, present image 2 lost, 3 unknown.
    assert found.loc["cat"].to_dict() == {
        "role": "privileged", "known": 4, "negative": 2, "positive": 1, "negative_present": 1,
    }  # fmt: skip
    assert found.loc["dog"].to_dict() == {
        "role": "non_privileged", "known": 3, "negative": 1, "positive": 1, "negative_present": 1,
    }  # fmt: skip
    table = FurtherTable(**flips_table(found))
    assert [row[0] for row in table.rows] == ["all privileged labels", "all held labels", "cat", "dog"]


def test_thresholds_decide():
    labels, before, after = np.array([[1], [0]]), np.array([[0.5], [-0.5]]), np.array([[0.4], [-0.5]])
    partition = Partition.by_name(["cat"], ["cat"])
    assert decision_flips(labels, before, after, partition)["negative"].tolist() == [0]
    assert decision_flips(labels, before, after, partition, thresholds=0.45)["negative"].tolist() == [1]


def test_a_prompt_flips_if_every_sample_loses_to_every_one_of_the_reference():
    texts = [["a", "b"]] * 3
    found = compare_by_scores(
        texts, texts, texts,
        trained_scores=np.array([[0.0, 0.5], [0.0, 1.0], [0.0, 0.0]]),
        reference_scores=np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]]),
        again_scores=np.array([[0.0, 0.5], [0.0, 0.5], [0.0, 1.0]]),
    )  # fmt: skip
    assert found.negative_flips() == (1 / 3, 2 / 3)  # a tie (second and third prompt) is no loss
