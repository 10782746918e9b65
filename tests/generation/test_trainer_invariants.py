"""What must hold exactly: splits of a batch do not matter, DPO is a special case, weights follow the logged losses."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_model
from helpers_trainer import NAMES, ExactHead, assert_same, data, dpo, fairpo, logs, lora, parameters

from fairpo_trl.core import GroupWeights
from fairpo_trl.core.losses import LOG_2


@pytest.fixture
def exact_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 throughout, so that what is equal is equal to 1e-9 and not only to float32 rounding of 40 nats."""
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)


SEVERAL = ("concise", ["polite", "factual"], ["concise", "polite"], "factual")


# ---- (a) the split of a batch does not matter ----

SPLIT_CASES = {
    "role": {},
    "attribute": {"grouping": "attribute", "eta_alpha": 0.3},
    "lists": {"grouping": "attribute", "attributes": SEVERAL},
    "attribute hinge": {"hinge_level": "attribute", "epsilon": 0.0},
    "attribute hinge, groups": {"hinge_level": "attribute", "grouping": "attribute", "attributes": SEVERAL},
    "lagrangian": {"balancer": "lagrangian", "grouping": "attribute", "eta_alpha": 0.5},
    "group robust": {"hinge": False, "grouping": "attribute", "scaling": "relative", "floor": 0.02},
    "cpo": {"privileged_loss": "cpo", "absent": "zero"},
    "one epoch of lora": {"peft_config": lora(), "privileged_loss": "simpo"},
}


@pytest.mark.parametrize("case", SPLIT_CASES)
def test_splits_of_a_step_give_the_same_parameters_weights_and_metrics(case, tmp_path, exact_head):
    options = {"num_train_epochs": 2, **SPLIT_CASES[case]}
    pairs = data(21, attributes=options.pop("attributes", NAMES))  # steps of 8, 8 and 5 pairs
    runs = []
    for size, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        trainer = fairpo(
            tmp_path, pairs, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **options
        )
        start = parameters(trainer)
        trainer.train()
        assert trainer.state.global_step == 6
        runs.append((parameters(trainer), logs(trainer)))
    (whole, whole_logs), *others = runs
    assert max(float((whole[n] - start[n]).abs().max()) for n in whole) > 1e-3  # something was learned
    for split, split_logs in others:
        assert_same(whole, split, 1e-9)
        for a, b in zip(whole_logs, split_logs, strict=True):
            assert a.keys() == b.keys()
            # Trainer adds up the micro-batch losses in float32, and counts a short window as a part of an epoch.
            different = {
                k: (a[k], b[k]) for k in a if k != "epoch" and not math.isclose(a[k], b[k], rel_tol=1e-6, abs_tol=1e-6)
            }
            assert not different


def test_a_naive_mean_of_micro_batch_means_is_another_objective(tmp_path):
    # The test above can fail: with the group sizes of each micro-batch instead of the window's, splits differ.
    runs = []
    for size, accumulation in ((8, 1), (2, 4)):
        trainer = fairpo(
            tmp_path, data(16), per_device_train_batch_size=size, gradient_accumulation_steps=accumulation
        )
        compute_loss = trainer.compute_loss

        def naive(
            model, inputs, *args, trainer=trainer, compute_loss=compute_loss, accumulation=accumulation, **kwargs
        ):
            trainer._window.counts = trainer._members(inputs["attribute_mask"]).sum(dim=0) * accumulation
            return compute_loss(model, inputs, *args, **kwargs)

        trainer.compute_loss = naive
        trainer.train()
        runs.append(parameters(trainer))
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(*runs, 1e-4)


# ---- (b) all pairs privileged and eta 0: DPO ----

DPO_CASES = {
    "plain": {},
    "plain layout": {"packing": "never"},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "lora": {"peft_config": lora()},
    "precomputed": {"precompute_ref_log_probs": True},
    "ld_alpha": {"ld_alpha": 0.4},
    "adamw": {
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "random",
    },
    "lora, precomputed, accumulation, keep_end": {
        "peft_config": lora(),
        "precompute_ref_log_probs": True,
        "gradient_accumulation_steps": 2,
        "max_length": 12,
        "truncation_mode": "keep_end",
    },
}
SHARED_LOGS = (
    "loss",
    "grad_norm",
    "learning_rate",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
    "entropy",
    "mean_token_accuracy",
)


@pytest.mark.parametrize("case", DPO_CASES)
def test_everything_privileged_is_dpo(case, tmp_path, exact_head):
    # The packed layout adds up in another order, and the norms of a LLaMA round to float32 whatever it is in.
    pairs = data(24)
    options = {"num_train_epochs": 2, "eval_dataset": data(8, seed=5), "eval_strategy": "epoch", **DPO_CASES[case]}
    ours = fairpo(tmp_path, pairs, privileged_attributes=list(NAMES), eta_alpha=0.0, **dict(options))
    packing = options.pop("packing", None)
    theirs = dpo(tmp_path, pairs.remove_columns("attribute"), **dict(options))
    ours.train()
    theirs.train()
    assert ours._packs is (packing is None)
    assert_same(parameters(theirs), parameters(ours), 1e-7 if ours._packs else 1e-12)
    accumulation = options.get("gradient_accumulation_steps", 1)
    for a, b in zip(logs(theirs), logs(ours), strict=True):
        for key in SHARED_LOGS:
            if accumulation > 1 and key in ("entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"):
                continue  # per token: TRL averages the means of its micro-batches, we add up the tokens
            # TRL averages accuracies and Trainer losses in float32.
            assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-6), key
    for a, b in zip(logs(theirs, "eval_loss"), logs(ours, "eval_loss"), strict=True):
        assert a["eval_loss"] == pytest.approx(b["eval_loss"], rel=1e-6)
        assert a["eval_rewards/margins"] == pytest.approx(b["eval_rewards/margins"], rel=1e-6, abs=1e-6)
        assert a["eval_logps/chosen"] == pytest.approx(b["eval_logps/chosen"], rel=1e-6)


def test_one_attribute_list_per_pair_counts_each_pair_once_in_its_role(tmp_path, exact_head):
    # All attributes privileged, one role: a pair of two attributes must not weigh twice.
    pairs = data(16, attributes=SEVERAL)
    ours = fairpo(tmp_path, pairs, privileged_attributes=list(NAMES), eta_alpha=0.0)
    theirs = dpo(tmp_path, pairs.remove_columns("attribute"))
    ours.train()
    theirs.train()
    assert_same(parameters(theirs), parameters(ours), 1e-7)


# ---- (d) weights follow the logged group losses ----


def hand_run(trainer, timing: str, losses: list[list[float | None]]) -> list[list[float]]:
    """The weights each step was weighted with, from mean losses by hand-run GroupWeights."""
    weights = GroupWeights(trainer.group_weights.groups, eta=trainer.args.eta_alpha, decay=trainer.args.estimate_decay)
    used = []
    for row in losses:
        if timing == "lagged":
            used.append(weights.weights.tolist())
        weights.update(
            torch.tensor([x or 0.0 for x in row], dtype=torch.float64), torch.tensor([int(x is not None) for x in row])
        )
        if timing == "current":
            used.append(weights.weights.tolist())
    return used


@pytest.mark.parametrize("timing", ["lagged", "current"])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_each_step_is_weighted_as_by_hand(timing, decay, tmp_path, exact_head):
    seen, means = [], []
    # Batches of 3 lack a group now and then.
    trainer = fairpo(
        tmp_path, data(21), timing=timing, estimate_decay=decay, eta_alpha=0.8, per_device_train_batch_size=3
    )
    compute_loss = trainer.compute_loss

    def spy(model, inputs, *args, **kwargs):
        mask = inputs["attribute_mask"].clone()
        with torch.no_grad():
            from fairpo_trl.generation.log_probs import pair_log_probs
            from fairpo_trl.generation.pair_losses import pair_losses

            policy, _ = pair_log_probs(model, inputs)
            pairs = pair_losses(policy, *trainer.compute_ref_log_probs(trainer.ref_model, inputs), trainer.args)
        privileged = mask[:, trainer.partition.names.index("concise")]
        means.append(
            [
                pairs.privileged[privileged].mean().item() if privileged.any() else None,
                pairs.non_privileged[~privileged].mean().item() if not privileged.all() else None,
            ]
        )
        loss = compute_loss(model, inputs, *args, **kwargs)
        seen.append(trainer.group_weights.weights.tolist())  # the weights this loss was computed with
        expected = sum(w * m for w, m in zip(seen[-1], means[-1], strict=True) if m is not None)
        assert loss.item() == pytest.approx(expected, abs=1e-12)
        return loss

    trainer.compute_loss = spy
    trainer.train()
    assert any(None in row for row in means) and any(row[1] for row in means)
    for got, want in zip(seen, hand_run(trainer, timing, means), strict=True):
        assert got == pytest.approx(want, abs=1e-12)
    if decay == 0.0:  # the logged running losses are then the losses of the step
        for entry, row in zip(logs(trainer), means, strict=True):
            for name, loss in zip(("privileged", "non_privileged"), row, strict=True):
                if loss is not None:
                    assert entry[f"group_loss/{name}"] == pytest.approx(loss, abs=1e-12)


def test_evaluation_moves_no_weight(tmp_path):
    trainer = fairpo(tmp_path, eval_dataset=data(10, seed=3), eta_alpha=1.0)
    trainer.train()
    before = trainer.group_weights.state_dict()
    trainer.evaluate()
    trainer.evaluate()
    assert trainer.group_weights.state_dict() == before


def test_evaluating_during_training_changes_nothing(tmp_path):
    runs = []
    for strategy in ("no", "steps"):
        trainer = fairpo(tmp_path, eval_dataset=data(7, seed=3), eval_strategy=strategy, eval_steps=1, eta_alpha=1.0)
        trainer.train()
        runs.append((parameters(trainer), trainer.group_weights.state_dict()))
    assert_same(runs[0][0], runs[1][0], 0.0)
    assert runs[0][1] == runs[1][1]


def test_evaluation_does_not_depend_on_batch_size_or_order(tmp_path, exact_head):
    rows = data(13, seed=4)
    results = []
    for size, dataset in ((1, rows), (4, rows), (13, rows), (4, rows.select(range(12, -1, -1)))):
        trainer = fairpo(tmp_path, eval_dataset=dataset, per_device_eval_batch_size=size)
        results.append({k: v for k, v in trainer.evaluate().items() if "per_second" not in k and "time" not in k})
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-9)


# ---- (f) at the reference ----


@pytest.mark.parametrize("reference", ["adapter off", "separate model", "precomputed", "loaded again"])
def test_at_the_reference_the_hinge_is_zero_and_dpo_log_2(reference, tmp_path, tiny_model_path):
    options = {"epsilon": 0.05, "learning_rate": 0.0, "balancer": "fixed", "model": make_model(), "ref": make_model()}
    if reference == "adapter off":
        options |= {"peft_config": lora(), "ref": None}
        options["peft_config"].init_lora_weights = True  # B = 0: the adapter changes nothing yet
    elif reference == "precomputed":
        options |= {"precompute_ref_log_probs": True, "ref": None}
    elif reference == "loaded again":
        options |= {"model": tiny_model_path, "ref": None, "model_init_kwargs": {"dtype": "float32"}}
    trainer = fairpo(tmp_path, data(12), eval_dataset=data(9, seed=2), **options)
    trainer.train()
    for entry in logs(trainer):
        assert entry["group_loss/privileged"] == pytest.approx(float(torch.tensor(LOG_2)), abs=1e-15)  # float32 log 2
        assert entry["group_loss/non_privileged"] == 0.0
        assert entry["rewards/margins"] == 0.0
    metrics = trainer.evaluate()
    assert metrics["eval_loss/role/non_privileged"] == pytest.approx(float(torch.tensor(LOG_2)), abs=1e-15)
    assert metrics["eval_inside_hinge/role/non_privileged"] == 1.0
    assert metrics["eval_loss"] == pytest.approx(0.5 * float(torch.tensor(LOG_2)), abs=1e-15)


def test_pairs_inside_their_hinge_have_no_gradient(tmp_path):
    # Nothing but held pairs at the reference in the window: the parameters stay bit-equal.
    trainer = fairpo(
        tmp_path,
        data(12, attributes=("concise", "polite", "factual")).filter(lambda row: row["attribute"] != "concise"),
        model=make_model(),
        privileged_attributes=["polite"],
        partition=None,
        group_prior={"privileged": 1e-300, "non_privileged": 1.0},
        balancer="fixed",
        non_privileged_attributes=["factual"],
    )
    before = parameters(trainer)
    trainer.train()
    assert_same(before, parameters(trainer), 1e-15)


def test_policy_and_reference_use_the_same_numbers_as_trl(tmp_path, exact_head):
    ours, theirs = fairpo(tmp_path, ld_alpha=0.3), dpo(tmp_path, data().remove_columns("attribute"), ld_alpha=0.3)
    batch = next(iter(ours.get_eval_dataloader(ours.train_dataset)))
    a = ours.compute_ref_log_probs(ours.ref_model, batch)
    inputs = {k: v for k, v in batch.items() if k != "attribute_mask"}
    b = theirs.compute_ref_log_probs(theirs.ref_model, inputs)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
