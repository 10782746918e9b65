"""The multi-label trainer: its invariants, its limits, and Algorithm 2 as printed."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
import re

import numpy as np
import oracle_classification as oracle
import pytest
import torch
from helpers_classification import LABELS, PRIVILEGED, classifier, multilabel, parameters, rows
from helpers_trainer import assert_same, logs
from transformers import TrainingArguments

from fairpo_trl import Partition
from fairpo_trl.classification import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification.keyed_random import keyed_uniform
from fairpo_trl.classification.losses import bce
from fairpo_trl.classification.methods import Method, apply_method, prepare_model
from fairpo_trl.training.arguments import GroupWeightArguments


PARTITION = Partition.by_name(LABELS, PRIVILEGED)


# ---- one global batch, split in every way ----


@pytest.mark.parametrize(
    "options",
    [
        {"privileged_loss": "dpo", "epsilon": 0.0},
        {"privileged_loss": "cpo", "grouping": "label", "eta_alpha": 0.5},
        {"privileged_loss": "simpo", "hinge_level": "label", "epsilon": 0.0},
        {"label_sampling": "uniform", "absent": "zero", "epsilon": 0.0},
        {"balancer": "lagrangian", "grouping": "label", "eta_alpha": 0.5, "confuser": "mean"},
        {"scaling": "relative", "floor": 0.05, "eta_alpha": 0.5},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_every_split_of_a_batch_gives_the_same_steps(tmp_path, options):
    results = []
    for size in (8, 4, 2, 1):
        trainer = multilabel(
            tmp_path,
            rows(27),  # the last window is short, and odd
            timing="lagged",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            num_train_epochs=2,
            **options,
        )
        trainer.train()
        results.append(
            (parameters(trainer), trainer.group_weights.weights, logs(trainer, "weight/privileged"), trainer)
        )
    (first, weights, log, trainer), *others = results
    assert trainer.state.global_step == 8
    moved = {name: value - classifier(seed=1).state_dict()[name] for name, value in first.items()}
    assert max(float(value.abs().max()) for value in moved.values()) > 1e-3
    for other, other_weights, other_log, _ in others:
        assert_same(first, other, 1e-9)
        torch.testing.assert_close(weights, other_weights, rtol=0, atol=1e-9)
        for a, b in zip(log, other_log, strict=True):
            shared = {k for k in a if "/" in k}
            assert shared == {k for k in b if "/" in k}
            for key in shared:
                assert a[key] == pytest.approx(b[key], abs=1e-9), key


# ---- limits ----


def weighted_bce_steps(train, weights, steps, size, learning_rate):
    """Plain SGD on sum_g alpha_g * mean BCE of group g, written out."""
    model = classifier(seed=1)
    features, labels = torch.from_numpy(train.features).double(), torch.from_numpy(train.labels)
    held = torch.tensor([name not in PRIVILEGED for name in LABELS])
    for step in range(steps):
        part = slice(step * size, (step + 1) * size)
        losses = bce(model(features=features[part]).logits, labels[part])
        known = labels[part] >= 0
        total = sum(
            weight * losses[:, group].sum() / known[:, group].sum()
            for weight, group in zip(weights, (~held, held), strict=True)
        )
        gradients = torch.autograd.grad(total, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= learning_rate * gradient
    return {name: value.detach() for name, value in model.named_parameters()}


def test_without_preference_and_hinge_it_is_weighted_bce(tmp_path):
    trainer = multilabel(
        tmp_path,
        privileged_loss="bce",
        non_privileged_loss="bce",
        balancer="fixed",
        group_prior={"privileged": 0.7, "non_privileged": 0.3},
    )
    trainer.train()
    assert_same(parameters(trainer), weighted_bce_steps(rows(), (0.7, 0.3), 3, 8, 0.1), 1e-12)


def test_the_bce_method_is_the_mean_over_all_labels(tmp_path):
    args = MultiLabelFairPOConfig(output_dir=str(tmp_path))
    apply_method("bce", args, PARTITION)
    assert args.group_prior == {"privileged": 2.0, "non_privileged": 4.0}
    train = rows(unknown=0.0)
    trainer = multilabel(
        tmp_path,
        train,
        privileged_loss="bce",
        non_privileged_loss="bce",
        balancer="fixed",
        group_prior=args.group_prior,
        per_device_train_batch_size=24,
    )
    trainer.train()
    model = classifier(seed=1)
    loss = bce(model(features=torch.from_numpy(train.features).double()).logits, torch.from_numpy(train.labels)).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = {n: (p - 0.1 * g).detach() for (n, p), g in zip(model.named_parameters(), gradients, strict=True)}
    assert_same(parameters(trainer), expected, 1e-12)


def test_group_dro_is_group_dro(tmp_path):
    trainer = multilabel(
        tmp_path, privileged_loss="bce", non_privileged_loss="bce", eta_alpha=0.8, estimate_decay=0.0, grouping="label"
    )
    trainer.train()
    model, alpha = classifier(seed=1), torch.full((6,), 1 / 6, dtype=torch.float64)
    order = [LABELS.index(name) for name in (*PARTITION.privileged, *PARTITION.non_privileged)]
    features, labels = torch.from_numpy(rows().features).double(), torch.from_numpy(rows().labels)
    for step in range(3):
        part = slice(step * 8, step * 8 + 8)
        losses = bce(model(features=features[part]).logits, labels[part]).sum(dim=0) / (labels[part] >= 0).sum(dim=0)
        losses = losses[order]
        alpha = alpha * (0.8 * losses.detach()).exp()
        alpha = alpha / alpha.sum()
        gradients = torch.autograd.grad((alpha * losses).sum(), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    torch.testing.assert_close(trainer.group_weights.weights, alpha, rtol=0, atol=1e-12)
    assert_same(parameters(trainer), dict(model.named_parameters()), 1e-12)


def test_uniform_is_algorithm_2_as_printed(tmp_path):
    train = rows(24, unknown=0.0)
    trainer = multilabel(
        tmp_path,
        train,
        label_sampling="uniform",
        absent="zero",
        beta=1.5,
        epsilon=0.02,
        eta_alpha=0.7,
        learning_rate=0.5,
        num_train_epochs=3,
        seed=5,
    )
    trainer.train()

    def with_bias(model):
        return torch.cat([model.head.out.weight, model.head.out.bias.unsqueeze(1)], dim=1).detach()

    features = torch.cat([torch.from_numpy(train.features).double(), torch.ones(24, 1, dtype=torch.float64)], dim=1)
    privileged = [LABELS.index(name) for name in PARTITION.privileged]
    batches = []
    for step in range(9):
        row = torch.arange(24)[(step % 3) * 8 : (step % 3) * 8 + 8]
        drawn = (keyed_uniform(5, step, row, torch.tensor(6)) * 6).long().tolist()
        u = keyed_uniform(5, step, row[:, None], torch.tensor(privileged))
        numbers = [{label: float(u[i, c]) for c, label in enumerate(privileged)} for i in range(8)]
        batches.append((features[row], train.labels[row.numpy()].tolist(), drawn, numbers))
    w, alpha = oracle.algorithm_2(
        with_bias(classifier(seed=1)),
        with_bias(classifier(seed=0)),
        batches,
        privileged,
        beta=1.5,
        epsilon=0.02,
        eta=0.5,
        eta_alpha=0.7,
    )
    torch.testing.assert_close(with_bias(trainer.model), w, rtol=0, atol=1e-10)
    assert trainer.group_weights.weights.tolist() == pytest.approx(alpha, abs=1e-10)
    assert abs(alpha[0] - 0.5) > 0.01


def test_the_expected_gradient_of_uniform_is_that_of_all_weighted_by_size(tmp_path, monkeypatch):
    train, options = rows(8, unknown=0.0), {"epsilon": 0.0, "eta_alpha": 0.0, "confuser": "mean"}

    def step(**extra):
        trainer = multilabel(tmp_path, train, **options, **extra)
        trainer.train()
        start = classifier(seed=1).state_dict()
        return {name: value - start[name] for name, value in parameters(trainer).items()}

    one_label = []
    for label in range(6):  # each label, drawn for every image: the whole distribution of r
        monkeypatch.setattr(
            MultiLabelFairPOTrainer,
            "_drawn_labels",
            lambda self, row, labels, label=label: (torch.arange(labels) == label).expand(len(row), labels),
        )
        one_label.append(step(label_sampling="uniform"))
    mean = {name: sum(g[name] for g in one_label) / 6 for name in one_label[0]}
    of_all = step(balancer="fixed", group_prior={"privileged": 2.0, "non_privileged": 4.0})
    # alpha_g |G| / T with alpha = 1/2 is half of the weights by size.
    assert_same(mean, {name: value / 2 for name, value in of_all.items()}, 1e-12)


@pytest.mark.parametrize("head", ["linear", "label_mlp", "shared_mlp"])
def test_at_the_reference_the_hinge_is_0_and_the_preference_log_2(tmp_path, head):
    train = rows(unknown=0.0)
    trainer = multilabel(
        tmp_path,
        train,
        classifier(seed=3, head=head),
        ref_model=None,
        epsilon=0.0,
        fallback=False,
        learning_rate=0.0,
        per_device_train_batch_size=24,
        per_device_eval_batch_size=24,
    )
    trainer.train()
    (entry,) = logs(trainer, "loss/role/privileged")
    assert entry["loss/role/non_privileged"] == 0.0 and entry["inside_hinge/role/non_privileged"] == 1.0
    assert 0 < entry["confused/role/privileged"] < 1
    assert entry["loss/role/privileged"] == pytest.approx(entry["confused/role/privileged"] * math.log(2), abs=1e-12)


# ---- weights ----


def test_weights_follow_the_table_by_hand(tmp_path):
    for timing in ("current", "lagged"):
        trainer = multilabel(tmp_path, timing=timing, eta_alpha=0.9, estimate_decay=0.0, epsilon=0.0)
        trainer.train()
        steps = logs(trainer, "weight/privileged")
        alpha = [0.5, 0.5]
        for entry in steps:
            losses = [entry["loss/role/privileged"], entry["loss/role/non_privileged"]]
            alpha = [a * math.exp(0.9 * loss) for a, loss in zip(alpha, losses, strict=True)]
            alpha = [a / sum(alpha) for a in alpha]
            # Both have moved by the time of the log; which step they weighted differs.
            assert [entry["weight/privileged"], entry["weight/non_privileged"]] == pytest.approx(alpha, abs=1e-12)
        assert abs(alpha[0] - 0.5) > 0.05


def test_timing_decides_which_weights_a_step_is_taken_with(tmp_path):
    ends = {}
    for timing in ("current", "lagged"):
        trainer = multilabel(tmp_path, rows(8), timing=timing, eta_alpha=2.0, epsilon=0.0, estimate_decay=0.0)
        trainer.train()
        ends[timing] = trainer
    expected = {}
    for name, alpha in (("lagged", torch.tensor([0.5, 0.5])), ("current", ends["current"].group_weights.weights)):
        fixed = multilabel(
            tmp_path,
            rows(8),
            balancer="fixed",
            group_prior=dict(zip(("privileged", "non_privileged"), alpha.tolist(), strict=True)),
            epsilon=0.0,
        )
        fixed.train()
        expected[name] = parameters(fixed)
    for timing, trainer in ends.items():
        assert_same(parameters(trainer), expected[timing], 1e-12)


def test_a_label_above_its_bound_opens_its_gate(tmp_path):
    trainer = multilabel(tmp_path, hinge_level="label", epsilon=0.0)
    trainer.train()
    first, second = logs(trainer, "loss/role/non_privileged")[:2]
    assert first["loss/role/non_privileged"] == 0.0  # nothing is known before the first step
    assert second["loss/role/non_privileged"] != 0.0  # the un-hinged excess of the labels whose gate is open


def test_the_lagrangian_raises_the_multiplier_of_what_got_worse(tmp_path):
    trainer = multilabel(tmp_path, rows(8), balancer="lagrangian", grouping="label", eta_alpha=0.5, epsilon=0.0)
    trainer.train()
    weights, estimates = trainer.group_weights.as_dict(), trainer.running_losses.estimates
    for label in PARTITION.non_privileged:
        assert (weights[label] > 1.0) == (float(estimates[LABELS.index(label)]) > 0), label
    assert len({weights[label] > 1.0 for label in PARTITION.non_privileged}) == 2
    assert all(weights[label] == 0.5 for label in PARTITION.privileged)


# ---- checkpoints and files ----


def test_half_and_resume_is_the_whole_bit_for_bit(tmp_path):
    options = {
        "optim": "adamw_torch",
        "learning_rate": 0.01,
        "num_train_epochs": 4,
        "train_sampling_strategy": "random",
        "logging_steps": 5,  # a checkpoint falls between two logs
        "scaling": "relative",
        "hinge_level": "label",
    }
    whole = multilabel(tmp_path / "whole", **options)
    whole.train()
    half = multilabel(tmp_path / "half", save_strategy="steps", save_steps=6, **options)
    half.train()
    again = multilabel(tmp_path / "half", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-6"))
    assert_same(parameters(whole), parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()
    assert whole.running_losses.state_dict() == again.running_losses.state_dict()
    for a, b in zip(whole.optimizer.state.values(), again.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    # The Trainer's own `loss` is the mean since the last log *or resume*; ours below it are whole.
    drop = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "loss"}
    ends = [
        [{k: v for k, v in entry.items() if k not in drop} for entry in t.state.log_history[-2:-1]]
        for t in (whole, again)
    ]
    assert ends[0] == ends[1]


def test_resume_with_another_partition_is_refused(tmp_path):
    multilabel(tmp_path, save_strategy="steps", save_steps=2).train()
    other = multilabel(tmp_path, privileged_labels=["drum"])
    with pytest.raises(ValueError, match="another partition.*candle"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_saved_and_loaded_models_predict_the_same_bits(tmp_path):
    trainer = multilabel(
        tmp_path, model=classifier(seed=1, dtype=torch.float32), ref_model=classifier(dtype=torch.float32)
    )
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "saved")
    test = rows(10, seed=4, name="test")
    logits = trainer.predict(test).predictions
    with torch.no_grad():
        again = loaded(features=torch.from_numpy(test.features)).logits.numpy()
    assert np.array_equal(logits, again)
    assert loaded.config.partition == PARTITION.to_dict()


# ---- evaluation ----


def test_evaluation_does_not_depend_on_batches_or_order(tmp_path):
    test = rows(31, seed=4, name="test")
    shuffled = test.select(np.random.default_rng(0).permutation(31))
    results = [
        multilabel(tmp_path, per_device_eval_batch_size=size).evaluate(split)
        for size, split in ((31, test), (4, test), (1, test), (7, shuffled))
    ]
    keys = {key for key in results[0] if "/" in key or key == "eval_loss"}
    assert {"eval_map/all", "eval_map/privileged", "eval_exact_match/non_privileged", "eval_loss"} <= keys
    for other in results[1:]:
        for key in keys:
            assert other[key] == pytest.approx(results[0][key], abs=1e-12), key


def test_evaluation_leaves_the_weights_alone(tmp_path):
    trainer = multilabel(tmp_path, eval_dataset=rows(9, seed=4, name="eval"))
    trainer.train()
    before = trainer.group_weights.state_dict()
    trainer.evaluate()
    assert trainer.group_weights.state_dict() == before


def test_every_label_of_a_permuted_problem_ends_where_it_did(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    train = rows(16)
    permuted_train = type(train)(
        name="train",
        label_names=tuple(LABELS[i] for i in order),
        labels=train.labels[:, order],
        ids=train.ids,
        images=None,
        features=train.features,
        series=None,
        notes={},
    )

    def permuted(seed):
        model = classifier(seed=seed)
        config = model.config.to_dict() | {"label_names": [LABELS[i] for i in order]}
        other = MultiLabelClassifier(
            type(model.config)(**{k: config[k] for k in ("label_names", "feature_size", "standardize")})
        )
        other = other.double()
        with torch.no_grad():
            other.head.out.weight.copy_(model.head.out.weight[order])
            other.head.out.bias.copy_(model.head.out.bias[order])
        return other

    plain = multilabel(tmp_path, train, confuser="mean")
    plain.train()
    other = multilabel(tmp_path, permuted_train, permuted(1), ref_model=permuted(0), confuser="mean")
    other.train()
    weight = plain.model.head.out.weight
    torch.testing.assert_close(weight[order], other.model.head.out.weight, rtol=0, atol=1e-12)


# ---- methods and options ----


@pytest.mark.parametrize("method", Method.__args__)
def test_every_method_trains(tmp_path, method):
    args = MultiLabelFairPOConfig(output_dir=str(tmp_path))
    apply_method(method, args, PARTITION)
    changed = {
        name: getattr(args, name)
        for name in (
            "privileged_loss",
            "non_privileged_loss",
            "balancer",
            "group_prior",
            "balanced_sampling",
            "grouping",
        )
    }
    if changed["balanced_sampling"] != "none":
        changed["train_sampling_strategy"] = "random"
    trainer = multilabel(tmp_path, **changed)
    start = parameters(trainer)
    trainer.train()
    end = parameters(trainer)
    assert all(torch.isfinite(value).all() for value in end.values())
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_methods_differ(tmp_path):
    ends = {}
    for method in Method.__args__:
        args = MultiLabelFairPOConfig(output_dir=str(tmp_path))
        apply_method(method, args, PARTITION)
        names = ("privileged_loss", "non_privileged_loss", "balancer", "group_prior")
        trainer = multilabel(tmp_path, **{name: getattr(args, name) for name in names})
        trainer.train()
        ends[method] = trainer.model.head.out.weight.detach().clone()
    same = {(a, b) for a, b in itertools.combinations(ends, 2) if torch.allclose(ends[a], ends[b], rtol=0, atol=1e-9)}
    # The sampler is what these would differ by; `bce_continued` differs by its start.
    bce = ("bce", "bce_continued", "balanced_sampler", "decoupled")
    assert same == {("fairpo", "fairpo_dpo"), *itertools.combinations(bce, 2)}  # the first two are the defaults


@pytest.mark.parametrize(("head", "trained"), [("linear", 2), ("shared_mlp", 2), ("label_mlp", 2)])
def test_decoupled_trains_the_last_layer_alone(tmp_path, head, trained):
    model = classifier(head=head)
    prepare_model("decoupled", model)
    assert sum(parameter.requires_grad for parameter in model.parameters()) == trained
    before = copy.deepcopy(model.state_dict())
    trainer = multilabel(
        tmp_path, model=model, privileged_loss="bce", non_privileged_loss="bce", balanced_sampling="label",
        train_sampling_strategy="random",
    )  # fmt: skip
    trainer.train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"head.{name}" for name in dict(model.head.named_parameters()) if "out" in name}
    assert len(moved) == trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privileged_labels": "candle"}, r"pass \['candle'\]"),
        ({"beta": 0.0}, "`beta` must be positive"),
        ({"epsilon": -1.0}, "`epsilon` must be >= 0"),
        ({"asymmetric_gammas": [1.0]}, "two numbers >= 0"),
        ({"asymmetric_clip": 1.0}, r"in \[0, 1\)"),
        ({"simpo_gamma": 1.0}, r"would be ignored: \['simpo_gamma'\]"),
        ({"privileged_loss": "bce", "confuser": "mean"}, r"would be ignored: \['confuser'\]"),
        ({"absent_labels": "none"}, r"would be ignored: \['absent_labels'\]"),
        ({"non_privileged_loss": "bce", "epsilon": 0.5}, r"would be ignored: \['epsilon'\]"),
        ({"balancer": "lagrangian", "non_privileged_loss": "bce"}, "needs non_privileged_loss='hinge'"),
        ({"balancer": "lagrangian", "hinge_level": "label"}, "`hinge_level='label'` would be ignored"),
        ({"gradient_accumulation_steps": 2}, "timing='lagged'"),
        ({"balancer": "fixed", "floor": 0.1}, "never moves the weights"),
        ({"scaling": "fixed", "privileged_loss": "cpo"}, "log 2 for dpo"),
        ({"scaling": "fixed", "epsilon": 0.0}, "epsilon=0"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor=0.1` does not work"),
        ({"balanced_sampling": "role", "train_sampling_strategy": "group_by_length"}, "set one of the two"),
        ({"group_prior": "{"}, "`group_prior` must be JSON"),
        ({"group_prior": "privileged"}, "`group_prior` must be JSON"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        multilabel(tmp_path, **options)


def test_the_trainer_names_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="Nothing is privileged"):
        multilabel(tmp_path, privileged_labels=None)
    with pytest.raises(ValueError, match="'candel'.*did you mean 'candle'"):
        multilabel(tmp_path, privileged_labels=["candel"])
    with pytest.raises(ValueError, match="pass one of them"):
        multilabel(tmp_path, partition=PARTITION, privileged_labels=["drum"])
    with pytest.raises(ValueError, match="other labels; in one of them only"):
        multilabel(tmp_path, partition=Partition.by_name(["anchor", "violin"], ["violin"]))
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        MultiLabelFairPOTrainer(model=classifier(), args=MultiLabelFairPOConfig(output_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="must be a `MultiLabelFairPOConfig`"):
        MultiLabelFairPOTrainer(model=classifier(), train_dataset=rows())


def test_a_partition_by_frequency_comes_from_train_counts():
    counts = rows(200).label_counts()
    partition = Partition.by_least_frequent(counts, 0.2)
    assert set(partition.privileged) == set(sorted(counts, key=lambda name: counts[name])[:1])


def test_every_field_is_documented_twice_with_its_default():
    shared = {f.name for f in dataclasses.fields(GroupWeightArguments)}
    inherited = {f.name for f in dataclasses.fields(TrainingArguments)} | shared
    annotations = MultiLabelFairPOConfig.__annotations__
    own = {f.name: f for f in dataclasses.fields(MultiLabelFairPOConfig) if f.name in annotations}
    assert set(own) >= {f.name for f in dataclasses.fields(MultiLabelFairPOConfig)} - inherited
    form = re.compile(r"^ {4}(\w+) \(`(.+?)`, \*optional\*(?:, defaults to `(.+?)`)?\):$", re.M)
    entries = form.findall(inspect.getdoc(MultiLabelFairPOConfig))
    assert sorted(name for name, _, _ in entries) == sorted(own)
    for name, kind, default in entries:
        field = own[name]
        value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        assert field.metadata["help"], name
        assert repr(value).replace("'", '"') == (default or "None").replace("'", '"'), name
        written = annotations[name]
        assert kind.split("[")[0] in written or (written.startswith("Literal") and kind == "str"), name
