"""Values of options: what counts as a number of which range."""

from __future__ import annotations

import pytest

from fairpo_trl.core.options import check_number, is_number


@pytest.mark.parametrize("value", [True, False, "1", None, float("nan"), float("inf"), 10**400])
def test_truth_values_texts_and_what_is_not_finite_are_no_numbers(value):
    assert not is_number(value)
    with pytest.raises(ValueError, match="`epsilon` must be >= 0 and a finite number"):
        check_number("epsilon", value)


def test_a_number_has_to_be_in_its_range():
    for value, rule in ((0, {}), (2, {"least": 2, "whole": True}), (0.1, {"positive": True}), (3.0, {"whole": True})):
        check_number("x", value, **rule)
    for value, rule, told in (
        (-0.1, {}, ">= 0"),
        (1, {"least": 2}, ">= 2"),
        (0, {"positive": True}, "positive"),
        (2.5, {"whole": True}, "an integer"),
    ):
        with pytest.raises(ValueError, match=told):
            check_number("x", value, **rule)
