"""Looking for values that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from fairpo_trl.core.reduction import all_finite
from fairpo_trl.training.watched import Watched


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),  # their sum is not
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([math.inf, 1.0], False),
        ([], True),
    ],
)
def test_all_finite_looks_at_values_whose_sum_overflows(values, finite):
    assert all_finite(torch.tensor(values, dtype=torch.float32)) is finite


def test_rows_and_labels_that_are_not_finite():
    logits, losses = torch.zeros(3, 2), torch.zeros(3)
    assert Watched({}, (logits, losses)).is_finite()
    logits[1, 0], losses[2] = math.nan, math.inf
    watched = Watched({}, (logits, losses))
    assert not watched.is_finite()
    assert watched.finite_rows().tolist() == [True, False, False]
    assert [label.tolist() for label in watched.finite_labels()] == [[False, True]]
