"""What an evaluation says: of its own rows only, on a scale that does not move, and which way is better."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_classification import multilabel
from helpers_classification import rows as label_rows
from helpers_trainer import data, fairpo, logs
from transformers import TrainerCallback

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.train_metrics import evaluation_metrics as label_metrics
from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.losses import LOG_2
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation import FairPOConfig
from fairpo_trl.generation.metrics import evaluation_metrics as pair_metrics
from fairpo_trl.training.best_metric import check_best_metric, greater_is_better


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    times = ("runtime", "per_second", "preparation_time")
    return {name: value for name, value in metrics.items() if not any(time in name for time in times)}


def _pairs(tmp_path: Path, **options: Any) -> Any:
    return fairpo(tmp_path, data(12), eval_dataset=data(8, seed=5), max_steps=2, **options)


def _labels(tmp_path: Path, **options: Any) -> Any:
    return multilabel(tmp_path, eval_dataset=label_rows(16, seed=3, name="validation"), max_steps=2, **options)


@pytest.fixture(scope="module", params=["pairs", "labels"])
def trainer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    make = _pairs if request.param == "pairs" else _labels
    return make(tmp_path_factory.mktemp(request.param))


def _other_rows(trainer: Any) -> Any:
    return data(9, seed=11) if type(trainer).__name__ == "FairPOTrainer" else label_rows(21, seed=8, name="test")


def test_a_prediction_leaves_nothing_in_the_next_evaluation(trainer: Any) -> None:
    before = _numbers(trainer.evaluate())
    frame = trainer.group_metrics["eval"].by_role
    predicted = trainer.predict(_other_rows(trainer))
    assert trainer.group_metrics["eval"].by_role.equals(frame)
    assert not trainer.group_metrics["predict"].by_role.equals(frame)
    assert predicted.metrics["test_loss/role/privileged"] > 0
    assert _numbers(trainer.evaluate()) == before


@pytest.mark.parametrize("prefix", ["train", "test", "eval_train", "train_train"])
def test_every_prefix_of_an_evaluation_is_one(trainer: Any, prefix: str) -> None:
    plain = _numbers(trainer.evaluate())
    named = _numbers(trainer.evaluate(metric_key_prefix=prefix))
    assert named == {name.replace("eval_", f"{prefix}_", 1): value for name, value in plain.items()}
    assert "train" not in trainer.group_metrics
    assert _numbers(trainer.evaluate()) == plain


def test_an_evaluation_within_a_prediction_and_one_that_breaks_off_count_apart(trainer: Any) -> None:
    plain = _numbers(trainer.evaluate())
    inner = []

    class Nested(TrainerCallback):
        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            trainer.remove_callback(self)
            inner.append(_numbers(trainer.evaluate()))

    class Broken(TrainerCallback):
        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            raise InterruptedError

    alone = _numbers(trainer.predict(_other_rows(trainer)).metrics)
    trainer.add_callback(Nested())
    assert _numbers(trainer.predict(_other_rows(trainer)).metrics) == alone
    assert inner == [plain]

    broken = Broken()
    trainer.add_callback(broken)
    with pytest.raises(InterruptedError):
        trainer.evaluate()
    trainer.remove_callback(broken)
    assert _numbers(trainer.evaluate()) == plain


def test_an_evaluation_called_train_takes_nothing_from_the_log_of_training(tmp_path: Path) -> None:
    class EvaluateOnTrain(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.trainer.evaluate(metric_key_prefix="train")

    plain, called = _pairs(tmp_path / "a"), _pairs(tmp_path / "b")
    callback = EvaluateOnTrain()
    callback.trainer = called
    called.add_callback(callback)
    for trainer in (plain, called):
        trainer.train()
    steps = [
        [_numbers(entry) for entry in trainer.state.log_history if "grad_norm" in entry] for trainer in (plain, called)
    ]
    assert steps[0] == steps[1] and len(steps[0]) == 2


def test_predictions_are_the_rewards_of_both_completions(tmp_path: Path) -> None:
    trainer = _pairs(tmp_path)
    predicted = trainer.predict(trainer.eval_dataset)
    rewards = torch.from_numpy(predicted.predictions)
    assert rewards.shape == (8, 2)
    metrics = predicted.metrics
    assert rewards.mean(dim=0).tolist() == pytest.approx(
        [metrics["test_rewards/chosen"], metrics["test_rewards/rejected"]]
    )
    assert float((rewards[:, 0] - rewards[:, 1]).mean()) == pytest.approx(metrics["test_rewards/margins"])
    # Raw rows are tokenised, as `evaluate` does.
    again = trainer.predict(data(8, seed=5))
    assert torch.from_numpy(again.predictions).equal(rewards)


# ---- a scale that does not move ----


@pytest.mark.parametrize("make", [_pairs, _labels])
def test_the_loss_of_an_evaluation_does_not_move_with_the_weights(tmp_path: Path, make: Any) -> None:
    trainer = make(tmp_path, group_prior={"privileged": 0.25, "non_privileged": 0.75})
    before = trainer.evaluate()
    assert before["eval_loss"] == pytest.approx(before["eval_weighted_loss"], abs=1e-12)
    trainer.group_weights.update(torch.tensor([60.0, 0.0]), torch.tensor([1, 1]))
    after = trainer.evaluate()
    assert after["eval_loss"] == before["eval_loss"]
    privileged, held = 0.25, 0.75 * torch.exp(torch.tensor(-0.05 * 60.0, dtype=torch.float64))
    share = privileged / (privileged + held)
    means = {
        role: sum(trainer.group_metrics["eval"].by_role["loss"].loc[[role]])
        for role in ("privileged", "non_privileged")
    }
    if make is _labels:  # there the frames hold the loss of the objective; for pairs they hold the DPO loss
        assert after["eval_loss"] == pytest.approx(0.25 * means["privileged"] + 0.75 * means["non_privileged"])
        expected = share * means["privileged"] + (1 - share) * means["non_privileged"]
        assert after["eval_weighted_loss"] == pytest.approx(float(expected))
    assert after["eval_weighted_loss"] != pytest.approx(after["eval_loss"])


def test_the_hinge_of_a_mean_is_evaluated_with_the_means_of_the_evaluation(tmp_path: Path) -> None:
    trainer = _pairs(tmp_path, hinge_level="attribute", epsilon=0.01)
    first = trainer.evaluate()
    frame = trainer.group_metrics["eval"].by_group
    held = frame[frame["role"] == "non_privileged"]
    above = (held["loss"] - LOG_2 - 0.01).clip(lower=0)
    assert above.max() > 0
    expected = 0.5 * frame.loc["concise", "loss"] + 0.5 * float((above * held["pairs"]).sum() / held["pairs"].sum())
    assert first["eval_loss"] == pytest.approx(expected, abs=1e-12)
    # Training has seen other means since: the evaluation of the same parameters stays what it was.
    trainer.running_losses.update(torch.full((3,), 9.0), torch.ones(3))
    assert trainer.evaluate()["eval_loss"] == first["eval_loss"]


# ---- which way is better ----


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("eval_loss", False),
        ("loss", False),
        ("eval_loss/role/privileged", False),
        ("loss/attribute/accuracy", False),
        ("eval_test_loss/attribute/a", False),
        ("eval_weighted_loss", False),
        ("eval_accuracy/attribute/weight_loss", True),
        ("eval_accuracy/worst_attribute", True),
        ("eval_margin/attribute/loss", True),
        ("eval_inside_hinge/role/non_privileged", True),
        ("eval_rewards/margins", True),
        ("eval_rewards/chosen", True),
        ("eval_rewards/rejected", False),
        ("eval_logps/rejected", False),
        ("eval_bce/role/privileged", False),
        ("eval_confused/role/privileged", False),
        ("eval_map/privileged", True),
        ("eval_ap/label/weightloss", True),
        ("eval_exact_match/all", True),
        ("win_rate_difference/weight_loss", True),
    ],
)
def test_the_better_direction_is_set_for_our_metrics(tmp_path: Path, metric: str, greater: bool) -> None:
    for config in (FairPOConfig, MultiLabelFairPOConfig):
        common = {"output_dir": str(tmp_path), "metric_for_best_model": metric, "use_cpu": True, "report_to": "none"}
        assert config(**common).greater_is_better is greater
        assert config(**common, greater_is_better=greater).greater_is_better is greater
        with pytest.raises(ValueError, match="`greater_is_better=.*would keep the worst"):
            config(**common, greater_is_better=not greater)


def test_other_metrics_are_left_to_transformers() -> None:
    assert greater_is_better("eval_my_score") is None
    assert greater_is_better("eval_runtime") is None


@pytest.mark.parametrize("make", [_pairs, _labels])
def test_a_misspelt_metric_is_refused_before_training_with_the_one_that_was_meant(tmp_path: Path, make: Any) -> None:
    first = make(tmp_path)
    names = {name.removeprefix("eval_") for name in first.evaluate() if name.startswith("eval_")}
    names = {name for name in names if "preparation_time" not in name}
    known = (pair_metrics if make is _pairs else label_metrics)(first.partition)
    assert names - {"runtime", "samples_per_second", "steps_per_second"} <= set(known)
    held = "polite" if make is _pairs else "bridge"
    misspelt = {"eval_loss/role/priviledged": "loss/role/privileged", "los": "loss"}
    if make is _pairs:
        misspelt |= {"acuracy/worst_attribute": "accuracy/worst_attribute", f"eval_accuracy/attribute/{held}s": held}
    else:
        misspelt |= {"map/al": "map/all", f"eval_ap/label/{held}s": held}
    for asked, meant in misspelt.items():
        with pytest.raises(ValueError, match=rf"`metric_for_best_model`: Unknown metric: .*did you mean .*{meant}"):
            make(tmp_path, metric_for_best_model=asked)
    for asked in (*names, "eval_loss", "my_score", "win_rate_difference/worst_held", "runtime_never", None):
        check_best_metric(asked, known, ())


def test_of_several_evaluations_the_metric_names_one(tmp_path: Path) -> None:
    sets = {"near": data(8, seed=5), "far": data(8, seed=6)}
    with pytest.raises(ValueError, match=r"Unknown metric: 'loss' .*near_loss"):
        fairpo(tmp_path, data(12), eval_dataset=sets, metric_for_best_model="loss")
    fairpo(tmp_path, data(12), eval_dataset=sets, metric_for_best_model="eval_far_accuracy/worst_attribute")


# ---- options that say what they do ----


def test_copies_of_a_configuration_keep_the_token_and_pickles_do_not(tmp_path: Path) -> None:
    for config in (FairPOConfig, MultiLabelFairPOConfig):
        args = config(output_dir=str(tmp_path), use_cpu=True, report_to="none", hub_token="hf_a")
        for twin in (copy.copy(args), copy.deepcopy(args)):
            assert twin.hub_token == "hf_a"
            assert twin.to_dict() == args.to_dict()
        assert pickle.loads(pickle.dumps(args)).hub_token is None


def test_estimates_are_what_present_groups_are_seen_by(tmp_path: Path) -> None:
    groups = Partition.by_name(["a", "b"], ["a"]).groups()
    seen = {}
    for absent in ("estimate", "zero"):
        weights = GroupWeights(groups, absent=absent, decay=0.5)
        weights.update(torch.tensor([1.0, 2.0]), torch.tensor([1, 1]))
        seen[absent] = weights.update(torch.tensor([4.0, 0.0]), torch.tensor([1, 0])).tolist()
    # Bias-corrected means of 1 and 4 with decay 0.5: (0.25 + 2) / 0.75; the absent group keeps its 2.
    assert seen["estimate"] == pytest.approx([3.0, 2.0])
    assert seen["zero"] == [4.0, 0.0]


@pytest.mark.parametrize(("above", "opens"), [(0.04, False), (0.06, True)])
def test_the_hinge_of_a_mean_opens_epsilon_above_log_2(tmp_path: Path, above: float, opens: bool) -> None:
    trainer = fairpo(tmp_path, data(12), hinge_level="attribute", epsilon=0.05, max_steps=1)
    trainer.running_losses.update(torch.full((3,), LOG_2 + above), torch.ones(3))
    trainer.train()
    (entry,) = logs(trainer)
    excess = entry["loss/role/non_privileged"] - LOG_2 - 0.05
    assert entry["group_loss/non_privileged"] == pytest.approx(excess if opens else 0, abs=1e-7)
    assert abs(excess) > 1e-3
