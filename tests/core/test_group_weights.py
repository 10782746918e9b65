"""GroupWeights against tables computed by hand, and what floors, scalings and multipliers do."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairpo_trl.core import Group, GroupWeights, Partition


LOG_2 = math.log(2)
TWO = Partition.by_name(["p", "n"], ["p"]).groups()


def step(weights: GroupWeights, *losses: float | None) -> torch.Tensor:
    """One update with a mean loss per group; `None` is an absent group."""
    counts = torch.tensor([0 if x is None else 2 for x in losses])
    return weights.update(torch.tensor([2 * (x or 0.0) for x in losses], dtype=torch.float64), counts)


# Three steps for two groups, eta 0.5, decay 0.5. As (sum, count): P: 2.0/2 = 1, 1.0/2 = 0.5, absent;
# N: 0.6/3 = 0.2, absent, 0.8/1 = 0.8.
STEPS = [([2.0, 0.6], [2, 3]), ([1.0, 0.0], [2, 0]), ([0.0, 0.8], [0, 1])]
# Estimates, m <- m/2 + L/2, divided by 1 - 0.5^(times seen):
#   P: 1.0; (0.25 + 0.25) / 0.75 = 2/3; 2/3          N: 0.2; 0.2; (0.05 + 0.4) / 0.75 = 0.6
ESTIMATES = [(1.0, 0.2), (2 / 3, 0.2), (2 / 3, 0.6)]
# alpha_P = sigmoid(d), d the difference of the log-weights, which grows by 0.5 * (scaled P - scaled N) a step.
TABLES = {
    # d: 0.5(1 - .2) = .4; + .5(2/3 - .2) = .633333; + .5(2/3 - .6) = .666667
    ("none", "estimate"): [0.598687660112, 0.653244900718, 0.660756368766],
    # d: .4; + .5(.5 - 0) = .65; + .5(0 - .8) = .25
    ("none", "zero"): [0.598687660112, 0.657010462673, 0.562176500886],
    # constants P .5, N .25. d: .5(2 - .8) = .6; + .5(4/3 - .8) = .866667; + .5(4/3 - 2.4) = .333333
    ("fixed", "estimate"): [0.645656306226, 0.704051627617, 0.582570206462],
    # d: .6; + .5(1 - 0) = 1.1; + .5(0 - 3.2) = -.5
    ("fixed", "zero"): [0.645656306226, 0.750260105595, 0.377540668798],
    # delta .1; first appearances count raw, an absent group has no change (with either `absent`).
    # d: .4; + .5 (.5 - 1)/(1 + .1) = .172727; - .5 (.8 - .2)/(.2 + .1) = -.827273
    ("relative", "estimate"): [0.598687660112, 0.543074777768, 0.304222046274],
    ("relative", "zero"): [0.598687660112, 0.543074777768, 0.304222046274],
}


@pytest.mark.parametrize(("scaling", "absent"), TABLES)
def test_mirror_ascent_table(scaling, absent):
    weights = GroupWeights(
        TWO,
        eta=0.5,
        scaling=scaling,
        absent=absent,
        decay=0.5,
        constants={"privileged": 0.5, "non_privileged": 0.25} if scaling == "fixed" else None,
    )
    assert weights.as_dict() == {"privileged": 0.5, "non_privileged": 0.5}
    assert weights.estimates.isnan().all()
    for (sums, counts), alpha, estimates in zip(STEPS, TABLES[scaling, absent], ESTIMATES, strict=True):
        weights.update(torch.tensor(sums, dtype=torch.float64), torch.tensor(counts))
        assert weights.weights.tolist() == pytest.approx([alpha, 1 - alpha], abs=1e-11)
        assert weights.estimates.tolist() == pytest.approx(estimates, abs=1e-12)


def test_returned_values_are_what_the_update_saw():
    weights = GroupWeights(TWO, scaling="fixed", constants={"privileged": 0.5, "non_privileged": 0.25})
    assert step(weights, 1.0, 0.5).tolist() == pytest.approx([2.0, 2.0])


def test_a_group_not_seen_yet_has_no_estimate_and_no_pull():
    weights = GroupWeights(TWO, eta=1.0)
    step(weights, 0.7, None)
    assert weights.estimates[1].isnan()
    # d = 1.0 * (0.7 - 0): sigmoid(0.7) = 0.668187772
    assert weights.weights[0].item() == pytest.approx(0.668187772168, abs=1e-12)


def test_prior_is_normalised_and_is_where_the_ascent_starts():
    weights = GroupWeights(TWO, eta=1.0, prior={"privileged": 3.0, "non_privileged": 1.0})
    assert weights.weights.tolist() == pytest.approx([0.75, 0.25])
    step(weights, 0.0, math.log(3))  # 3 : 1 becomes 3 : 3
    assert weights.weights.tolist() == pytest.approx([0.5, 0.5])


def test_fixed_weights_never_move():
    weights = GroupWeights(TWO, balancer="fixed", prior={"privileged": 0.2, "non_privileged": 0.8})
    for _ in range(50):
        step(weights, 5.0, 0.0)
    assert weights.weights.tolist() == pytest.approx([0.2, 0.8], abs=1e-15)
    assert weights.estimates.tolist() == pytest.approx([5.0, 0.0])


def test_one_group_has_weight_one():
    weights = GroupWeights(Partition.by_name(["p"], ["p"]).groups())
    for loss in (0.7, None, 3.0):
        step(weights, loss)
        assert weights.weights.tolist() == [1.0]
    assert weights.at_floor() == []


# ---- collapse, floor, drift ----


def test_plain_mirror_ascent_collapses_in_133_steps():
    # d = 133 * 0.05 * log 2 = 4.609: sigmoid = 0.99014; one step less: 4.575: 0.98980
    weights = GroupWeights(TWO, eta=0.05)
    for _ in range(132):
        step(weights, LOG_2, 0.0)
    assert weights.weights[0] < 0.99
    step(weights, LOG_2, 0.0)
    assert weights.weights[0] > 0.99


def steps_to_return(floor: float, limit: int) -> tuple[float, int]:
    """Weight of the loser after 5,000 steps, and the steps it then needs to lead (its turn to have loss log 2)."""
    weights = GroupWeights(TWO, eta=0.05, floor=floor)
    for _ in range(5000):
        step(weights, LOG_2, 0.0)
    low = weights.weights[1].item()
    for n in range(limit + 1):
        if weights.weights[1] > 0.5:
            return low, n
        step(weights, 0.0, LOG_2)
    return low, limit + 1


@pytest.mark.parametrize(
    # Rest weight: the fixed point of a -> (1 - 2f) a / (a + (1 - a) e^(0.05 log 2)) + f. Return: that map iterated
    # from there with estimates of decay 0.9 (plain floats, outside GroupWeights).
    ("floor", "rest", "steps"),
    [(0.01, 0.215618129672, 38), (0.05, 0.424028836579, 16), (0.1, 0.465551725581, 11)],
)
def test_with_a_floor_a_group_comes_back(floor, rest, steps):
    low, needed = steps_to_return(floor, limit=steps + 1)
    assert low == pytest.approx(rest, abs=1e-9)
    assert needed == steps


def test_without_a_floor_a_group_needs_as_long_as_it_was_away():
    low, needed = steps_to_return(0.0, limit=500)
    assert low < 1e-70 and needed > 500


def test_weights_far_below_float_range_stay_normalised():
    weights = GroupWeights(TWO, eta=1.0)
    for _ in range(3000):
        step(weights, 10.0, 0.0)
    assert weights.weights.tolist() == [1.0, 0.0]
    for _ in range(3100):
        step(weights, 0.0, 10.0)
    assert weights.weights[1] > 0.99  # nothing was lost: the state is in log space


def noisy(scaling: str, steps: int, delta: float = 0.1) -> float:
    """alpha of the noisier of two groups of equal mean loss (CV 5 % and 50 %)."""
    weights = GroupWeights(
        TWO,
        eta=0.05,
        scaling=scaling,
        delta=delta,
        constants={"privileged": 0.7, "non_privileged": 0.7} if scaling == "fixed" else None,
    )
    generator = torch.Generator().manual_seed(0)
    half = torch.rand(steps // 2, 2, generator=generator, dtype=torch.float64) * 2 - 1  # std 1/sqrt(3)
    draws = torch.cat([half, -half])[
        torch.randperm(steps, generator=generator)
    ]  # mean exactly 0: no random walk is left
    losses = 0.7 * (1 + draws * math.sqrt(3) * torch.tensor([0.05, 0.5], dtype=torch.float64))
    for row in losses:
        weights.update(row, torch.ones(2))
    return weights.weights[1].item()


def test_relative_scaling_favours_the_noisier_of_two_equal_groups():
    # Relative change is convex in the estimate, so noise alone is a drift; the level has none.
    assert noisy("relative", 5000, delta=1e-6) > 0.9
    assert noisy("relative", 5000, delta=0.1) > 0.9
    assert noisy("fixed", 5000) == pytest.approx(0.5, abs=0.02)


def test_first_positive_hinge_after_zeros_is_calm_with_delta_and_violent_without():
    # change = 0.01 / (0 + delta): 0.1 with delta 0.1, 1e4 (clamped to 10) with 1e-6.
    moved = []
    for delta in (0.1, 1e-6):
        weights = GroupWeights(TWO, eta=0.05, scaling="relative", delta=delta)
        for _ in range(20):
            step(weights, LOG_2, 0.0)
        before = weights.weights[1].item()
        step(weights, LOG_2, 0.01)
        moved.append(weights.weights[1].item() - before)
    assert 0 < moved[0] < 0.01 and moved[1] > 0.4


def test_clamp_bounds_one_step():
    weights = GroupWeights(TWO, eta=1.0, clamp=2.0)
    step(weights, 1e6, 0.0)
    assert weights.weights[0].item() == pytest.approx(1 / (1 + math.exp(-2)))  # d = 2, not 1e6


# ---- lagrangian ----


def test_multipliers_table():
    groups = Partition.by_name(["p", "a", "b"], ["p"]).groups("attribute")
    weights = GroupWeights(groups, balancer="lagrangian", eta=0.5, decay=0.0, multiplier_start=1.0, multiplier_max=1.6)
    assert weights.weights.tolist() == [1.0, 1.0, 1.0]
    # a: 1 + .5 * .4 = 1.2; + .5 * 1 = 1.7 -> 1.6; absent: estimate 1 -> 1.6; + .5 * -.2 = 1.5
    # b: 1 - .5 * 1.2 = .4; - .5 * 1.2 -> 0; + .5 * .2 = .1; absent: estimate .2 -> .2
    table = [
        ((0.7, 0.4, -1.2), (1.2, 0.4)),
        ((0.7, 1.0, -1.2), (1.6, 0.0)),
        ((0.7, None, 0.2), (1.6, 0.1)),
        ((0.7, -0.2, None), (1.5, 0.2)),
    ]
    for losses, (a, b) in table:
        step(weights, *losses)
        assert weights.weights.tolist() == pytest.approx([1.0, a, b], abs=1e-12)


def test_lagrangian_privileged_groups_keep_their_prior_shares():
    groups = Partition.by_name(["p", "q", "n"], ["p", "q"]).groups("attribute")
    weights = GroupWeights(groups, balancer="lagrangian", prior={"p": 3, "q": 1, "n": 6})
    step(weights, 1.0, 5.0, 0.1)
    assert weights.weights.tolist()[:2] == pytest.approx([0.75, 0.25])


# ---- state and errors ----


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_raises_and_leaves_the_state(bad):
    weights = GroupWeights(TWO, floor=0.1)
    step(weights, 0.7, 0.1)
    before = json.dumps(weights.state_dict())
    with pytest.raises(FloatingPointError, match=r"group \['non_privileged'\] is not finite in step 2"):
        step(weights, 0.5, bad)
    assert json.dumps(weights.state_dict()) == before


@pytest.mark.parametrize("options", [{"floor": 0.07}, {"scaling": "relative"}, {"balancer": "lagrangian"}])
def test_state_round_trip_is_bit_equal_and_goes_on_alike(options):
    torch.manual_seed(0)
    a, b = GroupWeights(TWO, eta=0.3, **options), GroupWeights(TWO, eta=0.3, **options)
    for _ in range(7):
        step(a, *torch.rand(2).tolist())
    b.load_state_dict(json.loads(json.dumps(a.state_dict())))
    assert torch.equal(a.weights, b.weights) and torch.equal(a.estimates, b.estimates) and a.steps == b.steps == 7
    for _ in range(7):
        losses = torch.rand(2).tolist()
        assert torch.equal(step(a, *losses), step(b, *losses))
    assert a.state_dict() == b.state_dict()


def test_state_of_other_groups_or_another_balancer_is_refused():
    state = GroupWeights(TWO).state_dict()
    with pytest.raises(ValueError, match="belong to other groups"):
        GroupWeights(Partition.by_name(["p", "n"], ["n"]).groups()).load_state_dict(state)
    with pytest.raises(ValueError, match="belong to other groups"):
        GroupWeights(Partition.by_name(["p", "n"], ["p"]).groups("attribute")).load_state_dict(state)
    with pytest.raises(ValueError, match="come from balancer='mirror_ascent', now it is 'fixed'"):
        GroupWeights(TWO, balancer="fixed").load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balancer": "mirror"}, r"Unknown balancer: 'mirror' \(did you mean 'mirror_ascent'"),
        ({"scaling": "relativ"}, "did you mean 'relative'"),
        ({"absent": "skip"}, "Unknown absent"),
        ({"eta": -0.1}, "`eta` must be"),
        ({"eta": float("nan")}, "`eta` must be"),
        ({"floor": 0.5}, r"\[0, 1/K\) = \[0, 0.5\)"),
        ({"floor": 0.1, "balancer": "fixed"}, "belongs to mirror ascent"),
        ({"scaling": "relative", "balancer": "lagrangian"}, "follows its level"),
        ({"decay": 1.0}, r"`decay` must be in \[0, 1\)"),
        ({"delta": 0.0}, "must be positive"),
        ({"clamp": 0.0}, "must be positive"),
        ({"multiplier_start": 2.0, "multiplier_max": 1.0}, "must hold, got 2.0 and 1.0"),
        ({"prior": {"privileged": 1.0}}, r"missing or not positive for \['non_privileged'\]"),
        ({"prior": {"privileged": 1.0, "non_privileged": 0.0}}, "missing or not positive"),
        ({"prior": {"privilegd": 1.0}}, "did you mean 'privileged'"),
        ({"scaling": "fixed"}, "A hinge with eps = 0 has no loss at the reference"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        GroupWeights(TWO, **options)


def test_no_groups():
    with pytest.raises(ValueError, match="nothing to weigh"):
        GroupWeights([])


def test_weights_are_a_copy():
    for balancer in ("mirror_ascent", "lagrangian"):
        weights = GroupWeights(TWO, balancer=balancer)
        before = weights.as_dict()
        weights.weights.zero_()
        assert weights.as_dict() == before


def test_loss_with_gradient_does_not_keep_the_graph():
    weights = GroupWeights(TWO)
    loss = torch.ones(2, requires_grad=True)
    weights.update(loss * 2, torch.ones(2))
    assert not weights.weights.requires_grad and not weights.estimates.requires_grad


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1e4)), min_size=5, max_size=5), min_size=1, max_size=12),
    st.sampled_from(["none", "relative"]),
    st.sampled_from(["estimate", "zero"]),
    st.floats(0, 0.99),
    st.floats(0, 2),
    st.randoms(use_true_random=False),
)
def test_simplex_floor_and_permutation(k, losses, scaling, absent, floor_share, eta, random):
    groups = [Group(f"g{i}", "privileged" if i % 2 else "non_privileged", (f"g{i}",)) for i in range(k)]
    order = list(range(k))
    random.shuffle(order)
    options = {"scaling": scaling, "absent": absent, "floor": floor_share / k, "eta": eta}
    a, b = GroupWeights(groups, **options), GroupWeights([groups[i] for i in order], **options)
    for row in losses:
        step(a, *row[:k])
        step(b, *[row[i] for i in order])
        alpha = a.weights
        assert torch.isfinite(alpha).all() and alpha.sum().item() == pytest.approx(1.0, abs=1e-12)
        assert (alpha >= floor_share / k * (1 - 1e-12)).all()
        torch.testing.assert_close(alpha[order], b.weights, rtol=1e-9, atol=1e-12)
