"""Losses of a label matrix: against loops, numbers worked out by hand, and the identities they promise."""

from __future__ import annotations

import itertools
import math

import oracle_classification as oracle
import pytest
import torch
import torch.nn.functional as F

from fairpo_trl.classification.confusing import confused_entries, confused_mask
from fairpo_trl.classification.keyed_random import keyed_uniform
from fairpo_trl.classification.losses import (
    LabelCounts,
    asymmetric_loss,
    bce,
    class_balanced_bce,
    distribution_balanced_loss,
    focal_loss,
    logit_adjusted_bce,
    privileged_losses,
)


PRIVILEGED = [4, 1, 6]


def batch(rows: int = 12, labels: int = 8, seed: int = 0, unknown: bool = True):
    """Logits with ties, labels with unknown ones, reference logits and random numbers, float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, labels, generator=generator, dtype=torch.float64).mul(4).round().div(2)  # ties
    reference = torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (rows, labels), generator=generator, dtype=torch.int8)
    if unknown:
        y[torch.rand(rows, labels, generator=generator) < 0.15] = -1
    return logits, reference, y, torch.rand(rows, len(PRIVILEGED), generator=generator)


def table(uniform):
    """Random numbers of `[B, P]`, looked up by entry."""
    return lambda image, column: uniform[image, column]


OPTIONS = [
    {"loss": loss, "beta": 0.7, "confuser": confuser, "score": score, **extra}
    for loss, confuser, score in itertools.product(
        ("dpo", "simpo", "cpo"), ("sample", "mean", "hardest"), ("log_sigmoid", "logit")
    )
    for extra in (
        {},
        {"fallback": False},
        {"negatives_only": True},
        {"negatives_only": True, "absent_labels": "none", "fallback": False},
        *([{"gamma": 0.4}] if loss == "simpo" else []),
        *([{"cpo_lambda": 0.3}, {"cpo_form": "all", "cpo_lambda": 0.5}] if loss == "cpo" else []),
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_values_and_gradients_are_those_of_the_loops(options):
    logits, reference, labels, uniform = batch()
    mine, theirs = logits.clone().requires_grad_(True), logits.clone().requires_grad_(True)
    got = privileged_losses(
        mine, labels, torch.tensor(PRIVILEGED), reference_logits=reference, uniform=table(uniform), **options
    ).losses
    expected = oracle.all_privileged_losses(theirs, reference, labels, PRIVILEGED, uniform, options)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    weights = torch.linspace(0.5, 1.5, got.numel(), dtype=got.dtype).view_as(got)  # tells entries apart
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)
    assert mine.grad.abs().sum() > 0


def test_a_preference_by_hand():
    # One image, three labels: l = 0 present at z = 0; k = 1 absent at z = 2 (confuses it); 2 absent at -1 (does not).
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    labels = torch.tensor([[1, 0, 0]])
    reference = torch.tensor([[1.0, 0.0, 0.0]])
    common = {"privileged": torch.tensor([0]), "beta": 2.0, "confuser": "hardest"}
    difference = math.log(1 / 2) - math.log(1 / (1 + math.exp(-2)))  # log m_0 - log m_1
    of_reference = -math.log(1 + math.exp(-1)) - math.log(1 / 2)

    def loss(kind, **extra):
        return float(
            privileged_losses(logits, labels, loss=kind, reference_logits=reference, **common, **extra).losses
        )

    def softplus(x):
        return math.log1p(math.exp(x))

    assert loss("dpo") == pytest.approx(softplus(-2 * (difference - of_reference)), rel=1e-6)
    assert loss("simpo", gamma=0.5) == pytest.approx(softplus(-2 * difference + 0.5), rel=1e-6)
    assert loss("cpo", cpo_lambda=0.3) == pytest.approx(softplus(-2 * difference) + 0.3 * math.log(2), rel=1e-6)
    assert loss("dpo", score="logit") == pytest.approx(softplus(-2 * ((0 - 2) - (1 - 0))), rel=1e-6)


def test_an_unconfused_positive_gets_its_nll_once_under_cpo():
    logits, labels = torch.tensor([[1.0, -1.0]]), torch.tensor([[1, 0]])
    found = privileged_losses(
        logits, labels, torch.tensor([0]), loss="cpo", beta=1.0, cpo_lambda=5.0, confuser="hardest"
    )
    assert not found.preferred.any() and not found.confused.any()
    assert float(found.losses) == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_a_tie_confuses_and_an_unknown_label_does_not():
    logits, labels, everything = torch.tensor([[1.0, 1.0, 3.0]]), torch.tensor([[1, 0, -1]]), torch.tensor([0, 1, 2])
    mask = confused_mask(logits, labels, everything)
    assert mask.tolist() == [[True, True, False]]  # the last one is unknown itself
    entries = confused_entries(logits, labels, everything, mask)
    assert entries.members.tolist() == [[False, True, False], [True, False, False]]
    assert entries.hardest(logits[entries.image]).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_sets_are_those_of_the_loops(seed):
    logits, _, labels, _ = batch(rows=40, seed=seed)
    everything = torch.arange(labels.size(1))
    mask = confused_mask(logits, labels, everything)
    entries = confused_entries(logits, labels, everything, mask)
    found = {
        (int(i), int(c)): set(members.nonzero().flatten().tolist())
        for i, c, members in zip(entries.image, entries.column, entries.members, strict=True)
    }
    expected = {
        (i, own): set(oracle.confusing_set(logits[i], labels[i].tolist(), own))
        for i in range(40)
        for own in range(labels.size(1))
        if labels[i, own] >= 0
    }
    assert found == {entry: members for entry, members in expected.items() if members}
    assert found
    # The draw goes through a set from its first to its last member, and never past it.
    size = entries.members.sum(dim=1)
    first, last = entries.draw(torch.zeros(len(size))), entries.draw(torch.full((len(size),), 1 - 2.0**-24))
    for (i, own), a, b in zip(found, first.tolist(), last.tolist(), strict=True):
        assert (a, b) == (min(expected[i, own]), max(expected[i, own]))


def test_dpo_is_log_2_at_the_reference_and_depends_on_the_policy_alone():
    logits, _, labels, uniform = batch(unknown=False)
    found = privileged_losses(
        logits,
        labels,
        torch.tensor(PRIVILEGED),
        loss="dpo",
        beta=3.0,
        reference_logits=logits.clone(),
        uniform=table(uniform),
    )
    assert found.preferred.any() and not found.preferred.all()
    assert torch.equal(
        found.losses[found.preferred], torch.full((int(found.preferred.sum()),), math.log(2), dtype=torch.float64)
    )


def test_mean_is_the_average_of_many_samples():
    logits, reference, labels, _ = batch(rows=6, labels=20, seed=3)
    privileged = torch.tensor(PRIVILEGED)
    options = {"loss": "dpo", "beta": 1.0, "reference_logits": reference}
    mean = privileged_losses(logits, labels, privileged, confuser="mean", **options).losses
    draws = torch.stack(
        [
            privileged_losses(
                logits,
                labels,
                privileged,
                uniform=table(keyed_uniform(0, step, torch.arange(6)[:, None], privileged)),
                **options,
            ).losses
            for step in range(4000)
        ]
    )
    error = draws.std(dim=0) / math.sqrt(4000)
    assert ((draws.mean(dim=0) - mean).abs() <= 4 * error + 1e-9).all()
    assert (draws.std(dim=0) > 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", ["dpo", "simpo", "cpo"])
@pytest.mark.parametrize("score", ["log_sigmoid", "logit"])
def test_gradients_are_finite_at_the_far_ends(dtype, loss, score):
    logits = torch.tensor([[40.0, -40.0, 40.0, -40.0], [-40.0, 40.0, 40.0, -40.0]], dtype=dtype, requires_grad=True)
    labels = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]])
    found = privileged_losses(
        logits,
        labels,
        torch.tensor([0, 1]),
        loss=loss,
        beta=1.0,
        reference_logits=torch.zeros_like(logits),
        confuser="mean",
        score=score,
    )
    total = found.losses.sum() + bce(logits, labels).sum()
    assert found.losses.dtype == torch.float32
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(logits.grad).all() and (logits.grad != 0).any(dim=1).all()


def test_missing_inputs_are_named():
    logits, reference, labels, _ = batch()
    privileged = torch.tensor(PRIVILEGED)
    with pytest.raises(ValueError, match="reference_logits"):
        privileged_losses(logits, labels, privileged, loss="dpo", beta=1.0, confuser="mean")
    with pytest.raises(ValueError, match="pass `uniform`"):
        privileged_losses(logits, labels, privileged, loss="dpo", beta=1.0, reference_logits=reference)


# ---- pointwise losses ----


def test_bce_ignores_unknown_labels_and_is_torchs_elsewhere():
    logits, _, labels, _ = batch()
    losses = bce(logits, labels)
    expected = F.binary_cross_entropy_with_logits(logits, labels.double().clamp(min=0), reduction="none")
    assert torch.equal(losses[labels >= 0], expected[labels >= 0])
    assert (losses[labels < 0] == 0).all() and (labels < 0).any()


def test_focal_and_asymmetric_are_bce_in_their_limits():
    logits, _, labels, _ = batch()
    logits.requires_grad_(True)
    plain = bce(logits, labels)
    (grad,) = torch.autograd.grad(plain.sum(), logits)
    for losses in (focal_loss(logits, labels, 0.0), asymmetric_loss(logits, labels, 0.0, 0.0, 0.0)):
        assert torch.equal(losses, plain)
        torch.testing.assert_close(torch.autograd.grad(losses.sum(), logits)[0], grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.01, 0.5, 0.99, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_gradients_are_finite_and_right_however_sure_the_model_is(gamma, dtype):
    # At an absent label with a low logit the loss is 0 or next to it: there a power below 1 has an infinite slope.
    logits = torch.tensor([-800.0, -200.0, -104.0, -90.0, -40.0, -1.0, 3.0, 200.0], dtype=dtype, requires_grad=True)
    labels = torch.zeros(8, dtype=torch.int8)
    focal_loss(logits, labels, gamma).sum().backward()
    exact = []  # d/dz of -p^gamma log(1 - p), p = sigmoid(z)
    for z in logits.tolist():
        p, log_absent = 1 / (1 + math.exp(-z)) if z > -700 else 0.0, -math.log1p(math.exp(min(z, 700)))
        exact.append(p**gamma * (p - gamma * (1 - p) * log_absent))
    assert logits.grad.tolist() == pytest.approx(exact, rel=1e-4, abs=1e-7 if dtype == torch.float32 else 1e-15)


def test_focal_and_asymmetric_by_hand():
    logits, labels = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64), torch.tensor([[1, 0]])  # p = .5, .75
    focal = focal_loss(logits, labels, 2.0)
    assert focal.tolist()[0] == pytest.approx([0.25 * math.log(2), 0.75**2 * math.log(4)])
    asymmetric = asymmetric_loss(logits, labels, 1.0, 4.0, 0.05)
    # The absent label: p shifted to .7, loss -log .3, weight .7 ** 4.
    assert asymmetric.tolist()[0] == pytest.approx([0.5 * math.log(2), 0.7**4 * -math.log(0.3)])


def test_a_probability_below_the_clip_costs_nothing():
    assert float(asymmetric_loss(torch.tensor([[-4.0]]), torch.tensor([[0]]), 0.0, 4.0, 0.05)) == 0.0


def test_logit_adjustment_shifts_by_the_prior():
    logits, labels = torch.tensor([[0.5, -1.0]]), torch.tensor([[1, 0]])
    prior = torch.tensor([-2.0, 1.0])
    expected = bce(torch.tensor([[0.5 - 4.0, -1.0 + 2.0]]), labels)
    torch.testing.assert_close(logit_adjusted_bce(logits, labels, prior, 2.0), expected)


def test_counts_leave_out_unknown_labels_and_are_never_0():
    counts = LabelCounts.of(torch.tensor([[1, 0, -1], [1, -1, 0], [0, 1, 0]], dtype=torch.int8))
    assert counts.positives.tolist() == [2.0, 1.0, 0.5]
    assert counts.prior_logits.tolist() == pytest.approx([math.log(2.5 / 1.5), 0.0, math.log(0.5 / 2.5)])


def test_class_balanced_weights_are_the_inverse_effective_numbers():
    logits, _, labels, _ = batch(labels=3)
    positives = torch.tensor([1.0, 2.0, 900.0])
    # E_n = 1 + beta + ... + beta^(n - 1)
    inverse = [1 / sum(0.9**i for i in range(n)) for n in (1, 2, 900)]
    ratios = class_balanced_bce(logits, labels, positives, beta=0.9) / bce(logits, labels)
    for column, weight in enumerate(inverse):
        known = labels[:, column] >= 0
        assert ratios[known, column].tolist() == pytest.approx([3 * weight / sum(inverse)] * int(known.sum()))
    rare = class_balanced_bce(logits, labels, torch.tensor([1.0, 2.0, 4.0]), beta=1 - 1e-12)
    expected = bce(logits, labels) * 3 * torch.tensor([4 / 7, 2 / 7, 1 / 7], dtype=torch.float64)
    torch.testing.assert_close(rare, expected, rtol=1e-6, atol=1e-9)


def test_distribution_balanced_loss_by_hand():
    # Present are the labels with 10 and 40 rows of 100; the third, with 5, is absent.
    logits = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 0]], dtype=torch.int8)
    n, share = [10, 40, 5], [0.1, 0.4, 0.05]
    counts = LabelCounts(torch.tensor([10.0, 40.0, 5.0]), torch.logit(torch.tensor(share)))
    expected = []
    for k, (z, y) in enumerate(zip(logits[0].tolist(), labels[0].tolist(), strict=True)):
        r = (1 / n[k]) / (1 / 10 + 1 / 40)
        weight = 0.1 + 1 / (1 + math.exp(-10 * (r - 0.2)))
        z += 0.05 * math.log(share[k] / (1 - share[k]))
        expected.append(weight * (math.log1p(math.exp(-z)) if y else math.log1p(math.exp(2 * z)) / 2))
    assert distribution_balanced_loss(logits, labels, counts, 0.0).tolist()[0] == pytest.approx(expected, rel=1e-6)
    focal = distribution_balanced_loss(logits, labels, counts, 2.0)
    z = 2 * (2.0 + 0.05 * math.log(0.05 / 0.95))
    assert float(focal[0, 2]) == pytest.approx(expected[2] / (1 + math.exp(-z)) ** 2, rel=1e-6)


def test_distribution_balanced_loss_is_finite_for_images_without_labels_and_0_where_unknown():
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[0, -1], [-1, -1]], dtype=torch.int8)
    losses = distribution_balanced_loss(logits, labels, LabelCounts.of(torch.tensor([[0, 1], [1, 1]])), 0.0)
    assert float(losses[0, 0].detach()) == pytest.approx(1.1 * math.log(2) / 2)  # the shift of a share of 1/2 is 0
    assert losses[labels < 0].tolist() == [0.0, 0.0, 0.0]
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()


# ---- draws ----


def test_draws_depend_on_their_key_alone():
    rows, streams = torch.arange(100)[:, None], torch.arange(16)
    whole = keyed_uniform(7, 3, rows, streams)
    assert torch.equal(whole[40:60], keyed_uniform(7, 3, rows[40:60], streams))
    assert torch.equal(whole[:, 5:6], keyed_uniform(7, 3, rows, streams[5:6]))
    for other in (keyed_uniform(8, 3, rows, streams), keyed_uniform(7, 4, rows, streams)):
        assert (other == whole).float().mean() < 0.01


def test_draws_are_uniform_and_independent():
    draws = keyed_uniform(0, 0, torch.arange(20_000)[:, None], torch.arange(5))
    assert float(draws.min()) >= 0 and float(draws.max()) < 1
    counts = torch.histc(draws, bins=20, min=0, max=1)
    expected = draws.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 45.3  # chi-square with 19 degrees, p = .0006
    correlation = torch.corrcoef(draws.T) - torch.eye(5)
    assert correlation.abs().max() < 4.5 / math.sqrt(20_000)
    steps = torch.stack([keyed_uniform(0, s, torch.arange(20_000), torch.tensor(0)) for s in range(3)])
    assert (torch.corrcoef(steps) - torch.eye(3)).abs().max() < 4.5 / math.sqrt(20_000)
