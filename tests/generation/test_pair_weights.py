"""A column `weight`: weighted means of groups over the whole optimizer step, however it was split."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from helpers_trainer import assert_same, data, fairpo, logs, parameters


WEIGHTS = [0.1, 2.0, 0.5, 1.0, 0.0, 3.0, 0.25, 0.7]


def weighted(weights: list[float], n: int = 8) -> Dataset:
    return data(n).add_column("weight", [float(w) for w in (weights * n)[:n]])


def trained(out: Any, dataset: Dataset, **options: Any) -> Any:
    options = {"per_device_train_batch_size": 8, "balancer": "fixed", "max_steps": 1, **options}
    trainer = fairpo(out, dataset, **options)
    trainer.train()
    return trainer


def test_weights_of_one_are_none(tmp_path):
    plain, ones = trained(tmp_path / "a", data(8)), trained(tmp_path / "b", weighted([1.0]))
    assert_same(parameters(plain), parameters(ones), tolerance=0)
    assert logs(plain)[0]["loss"] == logs(ones)[0]["loss"]


def test_a_weight_of_two_is_the_pair_twice_and_of_none_is_no_pair(tmp_path):
    once = data(8)
    rows = [*once.to_list()[:-1], once[0]]  # the last pair is gone, the first there twice
    weights = [2.0, *[1.0] * 6, 0.0]
    # Packed, the two would be laid out differently, and the norms of a LLaMA round to float32.
    twice = trained(tmp_path / "a", Dataset.from_list(rows), packing="never")
    once = trained(tmp_path / "b", weighted(weights), packing="never")
    assert_same(parameters(twice), parameters(once), tolerance=1e-9)


def test_only_the_ratios_of_weights_count(tmp_path):
    first = trained(tmp_path / "a", weighted(WEIGHTS), balancer="mirror_ascent", max_steps=2)
    # All sums of weights lie below 1 here: no count may be taken for at least 1.
    second = trained(tmp_path / "b", weighted([w / 100 for w in WEIGHTS]), balancer="mirror_ascent", max_steps=2)
    assert_same(parameters(first), parameters(second), tolerance=1e-6)
    for name, weight in first.group_weights.as_dict().items():
        assert second.group_weights.as_dict()[name] == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize(("size", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_a_step_is_the_same_however_it_is_split(size, accumulation, tmp_path):
    options = {"max_steps": 2, "balancer": "mirror_ascent", "hinge_level": "attribute"}
    whole = trained(tmp_path / "a", weighted(WEIGHTS, 16), **options)
    split = trained(
        tmp_path / "b", weighted(WEIGHTS, 16),
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **options,
    )  # fmt: skip
    assert_same(parameters(whole), parameters(split), tolerance=1e-7)
    assert whole.group_weights.as_dict() == pytest.approx(split.group_weights.as_dict(), abs=1e-9)


def test_the_loss_is_the_weighted_mean_of_each_group(tmp_path):
    dataset = weighted(WEIGHTS)
    trainer = fairpo(tmp_path, dataset, eval_dataset=dataset, per_device_eval_batch_size=3, balancer="fixed")
    found = trainer.evaluate()
    trainer.args.per_device_eval_batch_size = 1
    each = {i: trainer.evaluate(trainer.eval_dataset.select([i])) for i in range(8) if WEIGHTS[i] > 0}
    total = 0.0
    for role, weight in trainer.group_weights.as_dict().items():
        rows = [i for i in range(8) if trainer.partition.role_of(dataset[i]["attribute"]) == role and WEIGHTS[i] > 0]
        losses = [each[i]["eval_loss"] / weight for i in rows]  # the only group that is there
        total += (
            weight
            * sum(WEIGHTS[i] * loss for i, loss in zip(rows, losses, strict=True))
            / sum(WEIGHTS[i] for i in rows)
        )
    assert found["eval_loss"] == pytest.approx(total, abs=1e-6)
    assert found["eval_accuracy/role/privileged"] in [0.0, 1 / 3, 2 / 3, 1.0]  # metrics count pairs, not weights


def test_other_weights_are_other_data(tmp_path):
    first, second = (fairpo(tmp_path / n, weighted(w)) for n, w in (("a", WEIGHTS), ("b", [1.0])))
    assert first.rows_hash(first.train_dataset) != second.rows_hash(second.train_dataset)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_wrong_weight_is_named(weight, tmp_path):
    with pytest.raises(ValueError, match="'weight'.*finite number of 0 or more"):
        trained(tmp_path, weighted([*WEIGHTS[:3], weight]))
