"""Per-example losses against numbers computed by hand, and the grouped objective."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairpo_trl.core import (
    cpo_loss,
    dpo_loss,
    dpop_loss,
    excess_over_reference,
    group_sums,
    grouped_objective,
    hinge_against_reference,
    ipo_loss,
    log_ratio_margin,
    losses_of_members,
    simpo_loss,
)
from fairpo_trl.core.losses import LOG_2


def t(*values: float, dtype: torch.dtype = torch.float64, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=grad)


def close(got: torch.Tensor, *want: float) -> None:
    torch.testing.assert_close(got, t(*want), rtol=0, atol=1e-9)


def test_margin_by_hand():
    # (-10 - -12) - (-20 - -21) = 2 - 1 = 1;  (-5 - -5) - (-7 - -4) = 0 + 3 = 3
    close(log_ratio_margin(t(-10, -5), t(-20, -7), t(-12, -5), t(-21, -4)), 1.0, 3.0)


def test_dpo_by_hand():
    # -log sigmoid(0.1 * 2) = log(1 + e^-0.2) = log(1.818730753) = 0.598138869
    # -log sigmoid(0.1 * -20) = log(1 + e^2) = log(8.389056099) = 2.126928011
    close(dpo_loss(t(2.0, -20.0), beta=0.1), 0.598138869382, 2.126928011043)


def test_simpo_by_hand():
    # -log sigmoid(2 * (-1 - -1.5) - 0.5) = log(1 + e^-0.5) = log(1.606530660) = 0.474076984
    # equal sides: log(1 + e^0.5) = log(2.648721271) = 0.974076984
    close(simpo_loss(t(-1.0, -1.0), t(-1.5, -1.0), beta=2.0, gamma=0.5), 0.474076984180, 0.974076984180)


def test_cpo_by_hand():
    # 0.1 * (-10 - -12) = 0.2: 0.598138869 + 0.5 * 1.25 = 1.223138869; no preference: log 2 + 0.5 * 3 = 2.193147181
    close(cpo_loss(t(-10, -3), t(-12, -3), nll=t(1.25, 3.0), beta=0.1, nll_weight=0.5), 1.223138869382, 2.193147180560)


def test_ipo_by_hand():
    # 1 / (2 * .25) = 2: (3 - 2)^2, (2 - 2)^2, (-1 - 2)^2. Best of 3: (3 - 1) (1 + 1/2) = 3 nats.
    close(ipo_loss(t(3.0, 2.0, -1.0), beta=0.25), 1.0, 0.0, 9.0)
    close(ipo_loss(t(3.0), beta=1 / (2 * 2 * 1.5)), 0.0)


def test_dpop_by_hand():
    # The chosen side fell by .5 (penalty 4 * .5 = 2) or rose: .1 * (22 - 2) = 2; .1 * 2 = .2.
    got = dpop_loss(t(22.0, 2.0), t(-10.5, -9.0), t(-10.0, -10.0), beta=0.1, penalty=4.0)
    close(got, 0.126928011043, 0.598138869382)
    # One that fell is pushed up by the penalty as well: d/dc of -log sigmoid(beta (c - ... + lambda c)).
    chosen = t(-12.0, grad=True)
    dpop_loss(chosen + 12.0, chosen, t(-11.0), beta=0.1, penalty=4.0).sum().backward()
    close(chosen.grad, -0.1 * 5 / (1 + math.exp(-0.4)))


def test_excess_and_hinge_by_hand():
    # 0.9 - 0.7 - 0.05 = 0.15; 0.7 - 0.7 - 0.05 = -0.05; 0.2 - 0.7 - 0.05 = -0.55
    loss = t(0.9, 0.7, 0.2)
    close(excess_over_reference(loss, 0.7, 0.05), 0.15, -0.05, -0.55)
    close(hinge_against_reference(loss, 0.7, 0.05), 0.15, 0.0, 0.0)
    close(hinge_against_reference(loss, t(0.5, 0.6, 0.1), 0.05), 0.35, 0.05, 0.05)


def test_hinge_inside_is_exactly_zero_with_exactly_zero_gradient():
    loss = t(0.74, 0.6931471805599453, 0.75, 0.1, 0.8, grad=True)
    value = hinge_against_reference(loss, LOG_2, 0.06)
    value.sum().backward()
    assert value.tolist()[:4] == [0.0, 0.0, 0.0, 0.0] and value[4] > 0
    assert loss.grad.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_at_the_reference_dpo_is_log_2_and_hinge_zero(dtype, beta):
    logps = torch.tensor([-3.0, -250.7, -1e4], dtype=dtype)
    margin = log_ratio_margin(logps, logps - 1.3, logps, logps - 1.3)
    assert margin.tolist() == [0.0, 0.0, 0.0]
    loss = dpo_loss(margin, beta)
    assert torch.equal(loss, torch.full_like(loss, LOG_2))
    assert hinge_against_reference(loss, LOG_2, 0.05).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_gradients_stay_finite_at_extreme_margins_in_float32(sign):
    x = t(sign * 1e3, dtype=torch.float32, grad=True)
    zero = torch.zeros(1)
    for loss in (
        dpo_loss(x, 1.0),
        simpo_loss(x, zero, 1.0, 0.5),
        cpo_loss(x, zero, zero, 1.0, 1.0),
        hinge_against_reference(dpo_loss(x, 1.0), LOG_2, 0.05),
    ):
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
        # The hardest examples keep the full gradient; solved ones have none.
        assert gradient.item() == (pytest.approx(-1.0) if sign < 0 else 0.0)


def test_dpo_gradient_by_hand():
    # d/dh -log sigmoid(beta h) = -beta * sigmoid(-beta h); beta 0.5, h 2: -0.5 * sigmoid(-1) = -0.5 * 0.268941421
    h = t(2.0, grad=True)
    dpo_loss(h, 0.5).sum().backward()
    close(h.grad, -0.134470710685)


def test_label_matrices_fit():
    torch.manual_seed(0)
    z, z_ref = torch.randn(4, 7), torch.randn(4, 7)
    log_m, log_ref = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(z_ref)
    other = log_m.roll(1, dims=1)
    margin = log_ratio_margin(log_m, other, log_ref, log_ref.roll(1, dims=1))
    reference = torch.rand(4, 7)
    for loss in (
        dpo_loss(margin, 0.1),
        simpo_loss(log_m, other, 2.0, 0.5),
        cpo_loss(log_m, other, -log_m, 0.1, 1.0),
        hinge_against_reference(-log_m, reference, 0.01),
        excess_over_reference(-log_m, reference, 0.01),
    ):
        assert loss.shape == (4, 7)
    # Elementwise: nothing of one entry enters another.
    assert torch.equal(dpo_loss(margin, 0.1)[2, 3], dpo_loss(margin[2, 3], 0.1))


# ---- reduction ----


def test_grouped_objective_by_hand():
    # group 0: members 0 and 2: (1 + 3) / 2 = 2; group 1: members 1 and 2: (20 + 30) / 2 = 25
    # 0.25 * 2 + 0.75 * 25 = 19.25
    losses = t(1, 10, 2, 20, 3, 30).view(3, 2)
    members = torch.tensor([[True, False], [False, True], [True, True]])
    masked = losses_of_members(losses, members)
    assert grouped_objective(masked, t(0.25, 0.75), torch.tensor([2, 2])).item() == 19.25
    assert group_sums(masked).tolist() == [4.0, 50.0]


def test_absent_group_contributes_nothing_and_non_members_cannot_poison():
    losses = torch.tensor([[1.0, float("inf")], [3.0, float("nan")]], requires_grad=True)
    members = torch.tensor([[True, False], [True, False]])
    masked = losses_of_members(losses, members)
    objective = grouped_objective(masked, t(0.5, 0.5), torch.tensor([2, 0]))
    objective.backward()
    assert objective.item() == 1.0
    assert losses.grad.tolist() == [[0.25, 0.0], [0.25, 0.0]]
    assert group_sums(masked).tolist() == [4.0, 0.0]


def test_group_sums_are_float64_and_without_gradient():
    sums = group_sums(torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True))
    assert sums.dtype == torch.float64 and not sums.requires_grad


@given(st.data())
def test_any_split_adds_up_to_the_weighted_sum_of_group_means(data):
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    numbers = st.floats(-5, 5, allow_nan=False)
    losses = torch.tensor(data.draw(st.lists(numbers, min_size=n * k, max_size=n * k)), dtype=torch.float64).view(n, k)
    members = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n * k, max_size=n * k))).view(n, k)
    weights = torch.tensor(data.draw(st.lists(st.floats(0, 1), min_size=k, max_size=k)), dtype=torch.float64)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    want = sum(
        float(weights[g]) * sum(losses[i, g].item() for i in range(n) if members[i, g]) / int(members[:, g].sum())
        for g in range(k)
        if members[:, g].any()
    )
    counts = members.sum(dim=0)
    got = sum(
        float(grouped_objective(losses_of_members(losses[a:b], members[a:b]), weights, counts))
        for a, b in zip([0, *cuts], [*cuts, n], strict=True)
    )
    assert math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-9)
