"""The baselines: what each sets, which pairs it keeps, and that `dpo` is TRL's DPO whatever the run was set to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import make_model, make_tokenizer
from datasets import Dataset
from helpers_trainer import COMMON, ExactHead, assert_same, data, dpo, drifted, parameters

from fairpo_trl.generation import FairPOConfig, FairPOTrainer
from fairpo_trl.generation.methods import Method, apply_method


METHODS = get_args(Method)
LISTS = (["concise"], ["polite", "factual"], ["concise", "polite"], ["factual"])
# What a run may have been set to before a method is applied: all of it contradicts a single group.
BALANCED = {
    "grouping": "attribute",
    "balancer": "mirror_ascent",
    "scaling": "relative",
    "floor": 0.05,
    "group_prior": {"concise": 0.5, "polite": 0.25, "factual": 0.25},
}


def config(tmp_path: Path, **options: Any) -> FairPOConfig:
    return FairPOConfig(output_dir=str(tmp_path), **{**COMMON, "privileged_attributes": ["concise"], **options})


def changed(before: dict[str, Any], args: FairPOConfig) -> dict[str, Any]:
    """The options that a method has set."""
    return {name: value for name, value in options(args).items() if before[name] != value}


def options(args: FairPOConfig) -> dict[str, Any]:
    return {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return list(dataset)


def test_there_are_six_methods() -> None:
    names = {"fairpo", "dpo", "dpo_privileged_only", "privileged_only", "group_robust_dpo", "sft_on_chosen"}
    assert set(METHODS) == names


def test_fairpo_leaves_options_and_data_alone(tmp_path: Path) -> None:
    args, train, held_out = config(tmp_path, **BALANCED), data(12), data(6, seed=1)
    before = options(args)
    kept = apply_method("fairpo", args, train, held_out)
    assert kept[0] is train and kept[1] is held_out
    assert changed(before, args) == {}


def test_group_robust_dpo_has_no_hinge_and_a_learned_weight_per_attribute(tmp_path: Path) -> None:
    args, train = config(tmp_path, balancer="fixed", privileged_loss="cpo"), data(12)
    before = options(args)
    kept = apply_method("group_robust_dpo", args, train)
    assert kept[0] is train and kept[1] is None
    assert changed(before, args) == {
        "hinge": False,
        "grouping": "attribute",
        "balancer": "mirror_ascent",
        "privileged_loss": "dpo",
    }
    assert args.privileged_attributes == ["concise"]  # roles stay: they name the rows of the report


def test_group_robust_dpo_takes_the_gates_of_an_attribute_hinge_off(tmp_path: Path) -> None:
    args = config(tmp_path, hinge_level="attribute", epsilon=1.0, max_steps=1)
    apply_method("group_robust_dpo", args, data(12))
    trainer = FairPOTrainer(
        model=make_model(),
        ref_model=make_model(),
        args=args,
        train_dataset=data(12),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    # At the reference every attribute is below its bound: with gates the held losses would be 0.
    losses = trainer.state.log_history[0]
    assert all(losses[f"group_loss/{name}"] > 0.5 for name in ("polite", "factual"))


def test_dpo_makes_every_attribute_privileged_in_one_group(tmp_path: Path) -> None:
    args = config(tmp_path, non_privileged_attributes=["polite", "factual"], privileged_loss="simpo", **BALANCED)
    train, held_out = data(12), data(6, seed=1)
    before = options(args)
    kept = apply_method("dpo", args, train, held_out)
    assert kept[0] is train and kept[1] is held_out
    assert changed(before, args) == {
        "privileged_attributes": ["concise", "factual", "polite"],
        "non_privileged_attributes": None,
        "privileged_loss": "dpo",
        "grouping": "role",
        "balancer": "fixed",
        "scaling": "none",
        "floor": 0.0,
        "group_prior": None,
    }


def test_dpo_finds_attributes_in_lists(tmp_path: Path) -> None:
    args = config(tmp_path)
    apply_method("dpo", args, data(12, attributes=LISTS))
    assert args.privileged_attributes == ["concise", "factual", "polite"]


@pytest.mark.parametrize(
    ("method", "loss"), [("dpo_privileged_only", "dpo"), ("sft_on_chosen", "sft"), ("privileged_only", "dpop")]
)
def test_privileged_only_methods_keep_the_pairs_of_the_privileged(method: str, loss: str, tmp_path: Path) -> None:
    args = config(tmp_path, **BALANCED, **({"privileged_loss": loss} if method == "privileged_only" else {}))
    train, held_out = data(12), data(7, seed=1)
    before = options(args)
    kept, kept_held_out = apply_method(method, args, train, held_out)
    for ours, given in ((kept, train), (kept_held_out, held_out)):
        expected = [{**row, "attribute": ["concise"]} for row in given if row["attribute"] == "concise"]
        assert expected and rows(ours) == expected  # the same rows in the same order, texts untouched
    assert args.privileged_attributes == ["concise"] and args.non_privileged_attributes == []
    single_group = {"grouping", "balancer", "scaling", "floor", "group_prior", "non_privileged_attributes"}
    assert set(changed(before, args)) == single_group | ({"privileged_loss"} if loss == "sft" else set())
    assert args.privileged_loss == loss


@pytest.mark.parametrize("method", ["dpo_privileged_only", "sft_on_chosen"])
def test_a_pair_of_several_attributes_keeps_its_privileged_ones(method: str, tmp_path: Path) -> None:
    args = config(tmp_path, privileged_attributes=["concise", "polite"])
    train = data(12, attributes=LISTS)
    kept, nothing = apply_method(method, args, train)
    assert nothing is None
    expected = [[name for name in names if name != "factual"] for names in train["attribute"] if names != ["factual"]]
    assert kept["attribute"][:] == expected
    assert {len(names) for names in expected} == {1, 2}


def test_another_attribute_column_is_selected_by(tmp_path: Path) -> None:
    args = config(tmp_path, attribute_column="aspect")
    kept, _ = apply_method("dpo_privileged_only", args, data(12).rename_column("attribute", "aspect"))
    assert kept["aspect"][:] == [["concise"]] * 4


@pytest.mark.parametrize("method", ["dpo", "dpo_privileged_only", "sft_on_chosen"])
def test_methods_that_select_first_refuse_streaming(method: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--method {method}.*not streamed"):
        apply_method(method, config(tmp_path), data(12).to_iterable_dataset())


@pytest.mark.parametrize("method", ["fairpo", "group_robust_dpo"])
def test_methods_that_need_all_pairs_take_streaming(method: str, tmp_path: Path) -> None:
    stream = data(12).to_iterable_dataset()
    assert apply_method(method, config(tmp_path), stream)[0] is stream


def test_an_unknown_method_is_named_with_its_near_match(tmp_path: Path) -> None:
    args = config(tmp_path)
    before = options(args)
    with pytest.raises(ValueError, match=r"Unknown method: 'group_robust' \(did you mean 'group_robust_dpo'\?\)"):
        apply_method("group_robust", args, data(12))  # type: ignore[arg-type]
    assert changed(before, args) == {}


# ---- what they train ----


def trained(tmp_path: Path, method: Method, pairs: Dataset, **given: Any) -> FairPOTrainer:
    """Two steps of a method on the drifted tiny model, in DPOTrainer's layout, so that equal means 1e-9."""
    args = config(tmp_path, max_steps=2, packing="never", **given)
    kept, _ = apply_method(method, args, pairs)
    trainer = FairPOTrainer(
        model=drifted(), ref_model=make_model(), args=args, train_dataset=kept, processing_class=make_tokenizer()
    )
    trainer.train()
    return trainer


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("attributes", [("concise", "polite", "factual"), LISTS], ids=["strings", "lists"])
def test_dpo_is_dpo_whatever_was_to_be_balanced(
    attributes: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    pairs = data(12, attributes=attributes)
    theirs = dpo(tmp_path, pairs, max_steps=2)
    start = parameters(theirs)
    theirs.train()
    ours = trained(tmp_path, "dpo", pairs, **BALANCED)
    assert ours.state.global_step == theirs.state.global_step == 2
    assert largest_difference(parameters(theirs), start) > 1e-3  # something was learned
    assert_same(parameters(ours), parameters(theirs), 1e-9)
    fairpo = trained(tmp_path, "fairpo", pairs, **BALANCED)
    assert largest_difference(parameters(fairpo), parameters(theirs)) > 1e-4  # equality is due to the method


def test_dpo_privileged_only_is_dpo_on_those_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    pairs = data(24)
    theirs = dpo(tmp_path, pairs.filter(lambda name: name == "concise", input_columns="attribute"), max_steps=2)
    theirs.train()
    ours = trained(tmp_path, "dpo_privileged_only", pairs, **BALANCED)
    assert_same(parameters(ours), parameters(theirs), 1e-9)


LENGTH = 4  # tokens of every completion below, its end included


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}, {"privileged_loss": "rpo", "cpo_lambda": 0.7}),
        # TRL's IPO takes means over tokens: h / LENGTH against 1 / (2 beta).
        (
            {"loss_type": ["ipo"], "loss_weights": [LENGTH**2], "beta": 0.5 * LENGTH},
            {"privileged_loss": "ipo", "beta": 0.5},
        ),
        (
            {"loss_type": ["sft", "ipo"], "loss_weights": [0.2 * LENGTH, 0.8 * LENGTH**2], "beta": 0.5 * LENGTH},
            {"privileged_loss": "ipo", "bonbon_alpha": 0.2, "beta": 0.5},
        ),
    ],
    ids=["rpo", "ipo", "bonbon"],
)
def test_a_loss_on_privileged_pairs_is_that_of_trl(
    theirs: dict[str, Any], ours: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)

    def three_words(row: dict[str, Any]) -> dict[str, str]:
        return {side: " ".join((row[side].split() * 2)[:3]) for side in ("chosen", "rejected")}

    pairs = data(24).map(three_words)
    kept = pairs.filter(lambda name: name == "concise", input_columns="attribute")
    plain = dpo(tmp_path, kept, max_steps=2, learning_rate=0.005, **theirs)
    start = parameters(plain)
    plain.train()
    other = trained(tmp_path, "privileged_only", pairs, learning_rate=0.005, **ours)
    assert {len(row["chosen_ids"]) for row in plain.train_dataset} == {LENGTH}
    assert_same(parameters(other), parameters(plain), 1e-9)
    assert largest_difference(parameters(plain), start) > 1e-4


def test_sft_on_chosen_does_not_look_at_what_was_rejected(tmp_path: Path) -> None:
    pairs = data(24)
    swapped = pairs.map(lambda row: {"rejected": row["rejected"] + " very"})  # what is rejected has no part in it
    a = trained(tmp_path, "sft_on_chosen", pairs)
    b = trained(tmp_path, "sft_on_chosen", swapped)
    assert_same(parameters(a), parameters(b), 1e-7)
    plain = trained(tmp_path, "dpo_privileged_only", pairs)
    assert largest_difference(parameters(a), parameters(plain)) > 1e-4
