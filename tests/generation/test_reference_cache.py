"""Reference log-probabilities that are kept: by everything they depend on, for every run that asks for the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model
from datasets import Dataset
from helpers_trainer import assert_same, data, drifted, fairpo, lora, parameters
from peft import LoraConfig, get_peft_model

from fairpo_trl.generation import reference_cache
from fairpo_trl.generation.reference_cache import REFERENCE_COLUMNS, CachedReference, ReferenceCache, reference_hash


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs that the reference was run on, one entry a pass."""
    seen: list[int] = []
    original = CachedReference._compute_reference

    def compute(self: Any, rows: Dataset, *args: Any) -> Any:
        seen.append(len(rows))
        return original(self, rows, *args)

    monkeypatch.setattr(CachedReference, "_compute_reference", compute)
    return seen


def trainer(tmp_path: Any, rows: Dataset | None = None, **options: Any) -> Any:
    model = options.pop("model", None)
    return fairpo(
        tmp_path / "out",
        data(12) if rows is None else rows,
        model=make_model() if model is None else model,
        ref=None,
        precompute_ref_log_probs=True,
        reference_cache_dir=str(tmp_path / "kept"),
        **options,
    )


def values(trained: Any) -> np.ndarray:
    return np.stack([trained.train_dataset[column] for column in REFERENCE_COLUMNS], axis=1)


def test_another_run_computes_nothing_again(tmp_path, computed):
    first = trainer(tmp_path)
    other = trainer(
        tmp_path,
        data(12).select(range(11, 3, -1)),  # other rows, in another order
        eval_dataset=data(12).select([0, 1, 2]),
        privileged_attributes=["polite"],
        privileged_loss="simpo",
        grouping="attribute",
        seed=5,
        per_device_train_batch_size=2,
        packing="never",
    )
    assert computed == [12]
    np.testing.assert_array_equal(values(other), values(first)[list(range(11, 3, -1))])
    assert other.eval_dataset["ref_chosen_logps"] == first.train_dataset["ref_chosen_logps"][:3]


def test_kept_values_are_those_of_a_reference_that_is_run_in_every_step(tmp_path, computed):
    runs = []
    for precompute in (True, True, False):  # a cold cache, a warm one, none
        options = {"precompute_ref_log_probs": precompute, "reference_cache_dir": str(tmp_path / "kept")}
        run = fairpo(tmp_path / "out", data(13), train_sampling_strategy="random", **options)
        run.train()
        runs.append(parameters(run))
    assert computed == [13]
    assert_same(runs[0], runs[1], 0)
    assert_same(runs[0], runs[2], 1e-6)  # and the order of the data is the same


CHANGES = {
    "max_length": {"max_length": 9},
    "truncation_mode": {"max_length": 9, "truncation_mode": "keep_end"},
    "ld_alpha": {"ld_alpha": 0.1},
    "bf16": {"bf16": True},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_value_depends_on_is_in_its_key(change, tmp_path, computed):
    trainer(tmp_path, max_length=64)
    if change == "truncation_mode":
        trainer(tmp_path, max_length=9)
    other = trainer(tmp_path, **{"max_length": 64, **CHANGES[change]})
    assert len(computed) > 1 and computed[-1] > 0
    fresh = other.compute_ref_log_probs(other.model, other.data_collator(list(other.train_dataset)))
    np.testing.assert_allclose(values(other), torch.stack(fresh, dim=1).double().numpy(), rtol=0, atol=1e-5)


def test_a_pair_that_is_not_cut_is_the_same_pair_under_another_limit(tmp_path, computed):
    trainer(tmp_path, max_length=64)
    trainer(tmp_path, max_length=65)
    trainer(tmp_path, max_length=None, truncation_mode="keep_end")
    assert computed == [12]


def test_where_the_prompt_ends_is_a_part_of_the_pair():
    def collate(pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        places = torch.arange(5).repeat(2 * len(pairs), 1)
        completion = torch.tensor([pair["completion"] for pair in pairs] * 2).unsqueeze(1)
        mask = (places >= 5 - completion).long()
        return {"input_ids": places, "attention_mask": torch.ones_like(places), "completion_mask": mask}

    rows = Dataset.from_list([{"completion": 2}, {"completion": 3}, {"completion": 2}])
    (first, second, third), lengths = reference_cache.pair_hashes(rows, collate)
    assert first == third != second and lengths == [10, 10, 10]


def test_the_key_is_the_reference_not_the_policy(tmp_path, computed):
    trainer(tmp_path, peft_config=lora(), seed=0)
    trainer(tmp_path, peft_config=lora(), seed=1)  # another adapter on the same base
    assert computed == [12]
    trainer(tmp_path, model=make_model(seed=1), peft_config=lora())
    assert computed == [12, 12]


def test_a_reference_hash_knows_weights_configuration_and_the_frozen_adapter():
    base = make_model()
    plain = reference_hash(base, True)
    assert reference_hash(make_model(), True) == plain != reference_hash(drifted(), True)
    stretched = make_model()
    stretched.config.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    assert reference_hash(stretched, True) != plain
    named = make_model()
    named.config._name_or_path = "/somewhere/else"
    assert reference_hash(named, True) == plain

    def adapted(seed: int, alpha: int = 8) -> Any:
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj"], init_lora_weights=False)
        model = get_peft_model(make_model(), config)
        return model, config

    assert reference_hash(adapted(0)[0], True) == reference_hash(adapted(1)[0], True)
    hashes = set()
    for seed, alpha in ((0, 8), (0, 8), (1, 8), (0, 4)):
        model, config = adapted(3, alpha)
        torch.manual_seed(seed)
        model.add_adapter("ref", config)
        hashes.add(reference_hash(model, True))
    assert len(hashes) == 3  # the same twice, other weights, another scale


def test_data_given_to_evaluate_is_computed_under_the_reference_not_the_trained_policy(tmp_path, computed):
    run = trainer(tmp_path, peft_config=lora(), learning_rate=1.0)
    run.train()
    rows = data(5, seed=9)
    run.evaluate(rows)
    assert computed == [12, 5]
    fresh = trainer(tmp_path, rows, peft_config=lora())
    assert computed == [12, 5]
    expected = fresh.compute_ref_log_probs(fresh.model, fresh.data_collator(list(fresh.train_dataset)))
    np.testing.assert_allclose(values(fresh), torch.stack(expected, dim=1).numpy(), atol=1e-5)


def test_a_damaged_file_is_named_with_the_mend(tmp_path):
    trainer(tmp_path)
    (file,) = (tmp_path / "kept").glob("*/*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{file.name} cannot be read .* Delete this file"):
        trainer(tmp_path)
    file.unlink()
    trainer(tmp_path)


def test_a_folder_that_cannot_be_written_costs_the_cache_and_not_the_run(tmp_path, caplog):
    (tmp_path / "kept").write_text("a file")
    run = trainer(tmp_path)
    assert "not kept for later runs" in caplog.text and len(values(run)) == 12


def test_two_runs_that_write_at_once_keep_both(tmp_path):
    cache = ReferenceCache(tmp_path / "kept")
    cache.add([b"a" * 16, b"b" * 16], np.array([[-1.0, -2.0], [-3.0, -4.0]]))
    cache.add([b"b" * 16, b"c" * 16], np.array([[-3.0, -4.0], [-5.0, -6.5]]))
    assert cache.read() == {b"a" * 16: (-1.0, -2.0), b"b" * 16: (-3.0, -4.0), b"c" * 16: (-5.0, -6.5)}
    assert ReferenceCache(tmp_path / "nothing").read() == {}


def test_the_default_folder_lies_beside_the_cache_of_datasets(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    run.args.reference_cache_dir = None
    monkeypatch.setattr(reference_cache.datasets_config, "HF_DATASETS_CACHE", str(tmp_path))
    assert run._cache_root() == tmp_path / "fairpo_reference"
