"""The privileged gradient without its component against held attributes: by hand, and in a step of the trainer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from datasets import Dataset
from helpers_trainer import NAMES, ExactHead, assert_same, data, dpo, fairpo, logs, lora, parameters, turned

from fairpo_trl.core.projection import conflict_averse_weights, projection_weights


def projected(gradient: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    return gradient + projection_weights(held @ gradient, held @ held.T) @ held


def test_projection_by_hand():
    gradient, held = torch.tensor([1.0, 2.0]).double(), torch.tensor([[-1.0, 0.0]]).double()
    assert projected(gradient, held).tolist() == [0.0, 2.0]  # the component against it is gone, the rest is there
    assert projected(gradient, -held).tolist() == [1.0, 2.0]  # it is not against: nothing is taken
    assert projected(gradient, 0 * held).tolist() == [1.0, 2.0]
    # Against both of two that are at an angle: only their common complement is left, here nothing.
    both = torch.tensor([[-1.0, 0.0], [0.6, -0.8]]).double()
    torch.testing.assert_close(projected(gradient, both), torch.zeros(2).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_nearest_vector_that_is_against_none(seed):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(12, generator=generator).double()
    held = torch.randn(4, 12, generator=generator).double() - 0.5 * gradient
    found, weights = projected(gradient, held), projection_weights(held @ gradient, held @ held.T)
    assert (held @ found).min() > -1e-9 and (weights >= 0).all() and (weights > 0).any()
    # What makes it the nearest one: a gradient that pushes back stands at a right angle to the result.
    assert (weights * (held @ found)).abs().max() < 1e-9


def worst_fall(step, gradients):
    return float((gradients @ step).min())


@pytest.mark.parametrize("seed", range(5))
def test_the_conflict_averse_step_is_the_best_for_the_worst_objective_within_its_reach(seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(3, 8, generator=generator).double()
    gradients[1] -= 1.5 * gradients[0]  # in conflict
    mean, radius = gradients.mean(dim=0), 0.4

    def loss(x):  # p on the simplex by its first entries
        p = np.append(x, 1 - x.sum())
        mixed = p @ gradients.numpy()
        return mixed @ mean.numpy() + radius * float(mean.norm()) * np.linalg.norm(mixed)

    found = scipy.optimize.minimize(
        loss, [1 / 3, 1 / 3], bounds=[(0, 1)] * 2, method="SLSQP", tol=1e-14,
        constraints={"type": "ineq", "fun": lambda x: 1 - x.sum()},
    )  # fmt: skip
    # Weights of 1 do not clip: CAGrad itself, with three times the mean as g_0.
    step = conflict_averse_weights(gradients @ gradients.T, torch.ones(3).double(), radius) @ gradients / 3
    p = np.append(found.x, 1 - found.x.sum())
    mixed = torch.from_numpy(p @ gradients.numpy())
    best = mean + radius * mean.norm() * mixed / mixed.norm()
    assert worst_fall(step, gradients) == pytest.approx(worst_fall(best, gradients), abs=1e-5)
    assert float((step - mean).norm()) <= radius * float(mean.norm()) + 1e-9
    assert worst_fall(step, gradients) > worst_fall(mean, gradients)


def test_an_objective_is_corrected_for_by_no_more_than_it_weighs():
    gradients = torch.tensor([[1.0, 0.0], [-0.9, 0.1]]).double()
    weights = torch.tensor([0.9, 0.1]).double()
    found = conflict_averse_weights(gradients @ gradients.T, weights)
    # The second is hurt, so p would lie on it alone; it is clipped at .1, and that alone gives the direction.
    reach = 0.4 * (weights @ gradients).norm()
    step = weights @ gradients + reach * gradients[1] / gradients[1].norm()
    torch.testing.assert_close(found @ gradients, step, rtol=0, atol=1e-6)
    assert conflict_averse_weights(torch.zeros(2, 2), weights).tolist() == weights.tolist()


def test_the_step_is_that_of_raco_on_the_objectives(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    plain, held, _ = privileged_step(tmp_path)  # half of the gradient of the privileged mean: the held ones are idle
    step, _, trainer = privileged_step(tmp_path, held_gradients="conflict_averse")
    gradients = torch.stack([2 * plain, *held])
    weights = torch.tensor([0.5, *([0.5 / len(held)] * len(held))]).double()
    expected = conflict_averse_weights(gradients @ gradients.T, weights) @ gradients
    torch.testing.assert_close(step, expected, rtol=0, atol=1e-7)
    changed = float((step - weights @ gradients).norm() / (weights @ gradients).norm())
    assert logs(trainer)[0]["conflict_averse"] == pytest.approx(changed, rel=1e-4)


@pytest.mark.parametrize("how", ["project", "conflict_averse"])
def test_weights_of_pairs_are_those_of_the_means(how, tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    pairs = turned(data(24))
    held = next(row for row, name in enumerate(pairs["attribute"]) if name == "polite")
    weights = [0.01] * 24  # sums below 1: none may be taken for a count
    weights[held], weights[-1] = 0.02, 0.0
    rows = pairs.to_list()
    twice = Dataset.from_list([*rows[:-1], rows[held]])  # the last pair is gone, a held one there twice
    ends = []
    for dataset in (twice, pairs.add_column("weight", weights)):
        trainer = fairpo(
            tmp_path, dataset, per_device_train_batch_size=8, gradient_accumulation_steps=3, max_steps=1,
            held_gradients=how, packing="never",
        )  # fmt: skip
        trainer.train()
        ends.append(parameters(trainer))
    assert_same(*ends, 1e-7)  # what the solver of RACO makes of rounding


def privileged_step(tmp_path, **options):
    """One step of SGD of the trainer, and each held attribute's gradient at its start, by DPOTrainer."""
    pairs = turned(data(24))  # `polite` wants what `concise` does not
    trainer = fairpo(
        tmp_path, pairs, per_device_train_batch_size=24, max_steps=1, epsilon=50.0, packing="never", **options
    )
    start = parameters(trainer)
    trainer.train()
    step = torch.cat([(start[name] - value).flatten() for name, value in parameters(trainer).items()])
    held = []
    for name in NAMES[1:]:
        own = pairs.filter(lambda attribute, name=name: attribute == name, input_columns="attribute")
        plain = dpo(tmp_path, own, per_device_train_batch_size=24, max_steps=1)
        before = parameters(plain)
        plain.train()
        held.append(torch.cat([(before[n] - value).flatten() for n, value in parameters(plain).items()]))
    return step, torch.stack(held), trainer


def test_a_step_is_the_projection_of_the_privileged_one(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    plain, held, _ = privileged_step(tmp_path)  # every held pair is inside its hinge
    step, _, trainer = privileged_step(tmp_path, held_gradients="project")
    assert (held @ plain).min() < -1e-6  # something is against
    torch.testing.assert_close(step, projected(plain, held), rtol=0, atol=1e-9)
    removed = float((step - plain).norm() / plain.norm())
    assert logs(trainer)[0]["projected"] == pytest.approx(removed, rel=1e-5)
    assert (held @ step).min() > -1e-9


@pytest.mark.parametrize(("how", "logged"), [("project", "projected"), ("conflict_averse", "conflict_averse")])
def test_splits_of_a_step_give_the_same_step(how, logged, tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    runs = []
    for size, accumulation in ((8, 1), (2, 4)):
        trainer = fairpo(
            tmp_path, turned(data(21)), per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
            held_gradients=how, max_grad_norm=0.1,
        )  # fmt: skip
        trainer.train()
        runs.append((parameters(trainer), [entry[logged] for entry in logs(trainer)]))
    (whole, removed), (split, also) = runs
    assert len(removed) == 3 and max(removed) > 0.01 and also == pytest.approx(removed, abs=1e-6)
    assert_same(whole, split, 1e-9)


def test_it_trains_an_adapter_in_the_packed_layout(tmp_path):
    ends = []
    for how in ("sum", "project"):
        trainer = fairpo(tmp_path, data(12), peft_config=lora(), held_gradients=how, num_train_epochs=2)
        trainer.train()
        assert trainer._packs and ("projected" in logs(trainer)[0]) == (how == "project")
        ends.append(parameters(trainer))
    with pytest.raises(AssertionError, match="differs"):
        assert_same(*ends, 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"torch_compile": True}, "torch_compile=True does not give"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant=True does not give"),
        ({"privileged_attributes": list(NAMES)}, "no held attribute whose gradient it could heed"),
    ],
)
def test_where_it_cannot_work_it_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fairpo(tmp_path, data(12), held_gradients="project", **options)
