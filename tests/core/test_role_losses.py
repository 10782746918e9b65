"""What a pair and a label cost in the held role, by hand: the hinge opens epsilon above the reference's loss."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from fairpo_trl.classification.objective import label_losses
from fairpo_trl.generation.log_probs import PairLogProbs
from fairpo_trl.generation.pair_losses import losses_per_group, pair_losses


EPSILON = 0.2
MARGINS = (-3.0, -0.5, 0.0, 2.0)  # log-ratio margins in nats: far worse than the reference, a little, as it, better


def pairs(**options):
    """The losses of four pairs under a reference of zeros."""
    chosen, zeros = torch.tensor(MARGINS), torch.zeros(len(MARGINS))
    args = {"privileged_loss": "dpo", "beta": 0.5, "epsilon": EPSILON, "hinge": True, "hinge_level": "pair"}
    args |= {"balancer": "mirror_ascent", "lagrangian_term": "hinge", **options}
    return pair_losses(PairLogProbs(chosen, zeros, chosen, zeros), zeros, zeros, SimpleNamespace(**args))


def above_the_reference() -> list[float]:
    """DPO loss less log 2, its value at the reference."""
    return [math.log1p(math.exp(-0.5 * margin)) - math.log(2) for margin in MARGINS]


def test_a_held_pair_costs_what_it_lies_above_log_2_by_more_than_epsilon():
    found = pairs()
    expected = [max(0.0, above - EPSILON) for above in above_the_reference()]
    assert expected[0] > 0.5 and expected[1:] == [0.0, 0.0, 0.0]  # the second is inside only because of epsilon
    assert found.non_privileged.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.dpo[2].item() == pytest.approx(math.log(2))
    assert pairs(epsilon=0.0).non_privileged[1].item() == pytest.approx(above_the_reference()[1], abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"hinge_level": "attribute"}, {"balancer": "lagrangian", "lagrangian_term": "excess"}]
)
def test_the_excess_is_negative_inside_the_hinge(options):
    expected = [above - EPSILON for above in above_the_reference()]
    assert pairs(**options).non_privileged.tolist() == pytest.approx(expected, abs=1e-6)


def test_each_group_takes_the_loss_of_its_role_and_closed_gates_cost_nothing():
    found = pairs(hinge_level="attribute")
    gates = torch.tensor([[True, False]] * len(MARGINS))
    both = losses_per_group(found, torch.tensor([True, True]), gates)
    assert torch.equal(both[:, 0], found.non_privileged) and not both[:, 1].any()
    mixed = losses_per_group(found, torch.tensor([False, True]), None)
    assert torch.equal(mixed, torch.stack([found.privileged, found.non_privileged], dim=1))


def test_a_held_label_costs_what_its_bce_lies_above_the_references_by_more_than_epsilon():
    logits = torch.tensor([[1.0, -1.0, 0.0, -0.1]])
    labels = torch.tensor([[0.0, 1.0, 1.0, 1.0]])  # the last is worse than the reference by less than epsilon
    args = SimpleNamespace(
        privileged_loss="bce",
        non_privileged_loss="hinge",
        epsilon=EPSILON,
        balancer="mirror_ascent",
        lagrangian_term="hinge",
    )
    found = label_losses(logits, labels, args, torch.tensor([], dtype=torch.int64), reference_logits=torch.zeros(1, 4))
    worse = math.log1p(math.e) - math.log(2)
    assert found.above_reference[0].tolist() == pytest.approx(
        [worse, worse, 0.0, math.log1p(math.exp(0.1)) - math.log(2)], abs=1e-6
    )
    assert found.losses[0].tolist() == pytest.approx([worse - EPSILON, worse - EPSILON, 0.0, 0.0], abs=1e-6)
