"""Every mistake in the data is one error before the first step that names the rows and the mend; metrics by hand."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from conftest import make_rows
from datasets import Dataset
from helpers_trainer import NAMES, data, fairpo, logs
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_callback import TrainerCallback

from fairpo_trl.core import Partition
from fairpo_trl.core.losses import LOG_2
from fairpo_trl.generation import FairPOConfig
from fairpo_trl.generation.collator import AttributeCollator, attribute_names
from fairpo_trl.generation.data_check import prepare_rows
from fairpo_trl.generation.log_probs import PairLogProbs
from fairpo_trl.generation.metrics import PairMetricSums
from fairpo_trl.generation.pair_losses import pair_losses
from fairpo_trl.training import progress


def changed(index: int | list[int], **values) -> Dataset:
    rows = make_rows(12)
    for i in [index] if isinstance(index, int) else index:
        rows[i] |= values
    return Dataset.from_list(rows)


# ---- data check ----


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            changed(3, attribute=""),
            r"Column 'attribute' of the train data names no attribute in row 3: .*Name the attribute",
        ),
        (changed([1, 5], attribute=None), "names no attribute in rows 1, 5"),
        (changed(list(range(8)), attribute=" "), "rows 0, 1, 2, 3, 4 and 3 more"),
        (changed(2, chosen="  "), r"Row 2 of the train data have an empty completion.*Remove"),
        (changed([2, 4], rejected=""), "Rows 2, 4 of the train data have an empty completion"),
        (changed(7, chosen="a cat", rejected="a cat"), "Row 7 of the train data have identical completions"),
        (
            data(12).rename_column("attribute", "atribute"),
            r"no column 'attribute'.*did you mean 'atribute'.*attribute_column=",
        ),
        (
            data(12).rename_column("chosen", "chosen_text"),
            r"no column 'chosen'.*did you mean 'chosen_text'.*Rename one\.",
        ),
        (data(12).add_column("image", [0] * 12), r"column 'image'.*vision-language.*Remove the column"),
        (Dataset.from_list(make_rows(1)).select([]), "The train data has no rows"),
    ],
)
def test_bad_training_data(dataset, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fairpo(tmp_path, dataset)


def test_bad_evaluation_data_names_its_split(tmp_path):
    with pytest.raises(ValueError, match="Row 1 of the second data have an empty completion"):
        fairpo(tmp_path, eval_dataset={"first": data(4), "second": changed(1, chosen="")})
    with pytest.raises(ValueError, match=r"Rows 0, 3, 6, 9 of the eval data: Unknown attribute: 'funny'"):
        fairpo(tmp_path, eval_dataset=Dataset.from_list(make_rows(12, ("funny", "polite", "factual"))))


def test_data_given_to_evaluate_is_checked(tmp_path):
    trainer = fairpo(tmp_path)
    with pytest.raises(ValueError, match="Row 1 of the eval data have an empty completion"):
        trainer.evaluate(changed(1, chosen=""))
    assert trainer.evaluate(data(6, seed=3))["eval_accuracy/worst_attribute"] >= 0


def test_prompt_that_fills_max_length_names_the_rows(tmp_path):
    rows = make_rows(12)
    rows[5]["prompt"] = "the cat " * 10
    rows[9]["prompt"] = "the cat " * 12
    with pytest.raises(
        ValueError,
        match=r"In rows 5, 9 of the train data the prompt alone fills max_length=20 \(the longest has 24 tokens\)",
    ):
        fairpo(tmp_path, Dataset.from_list(rows), max_length=20)
    fairpo(tmp_path, Dataset.from_list(rows), max_length=25)  # one token of each completion is left
    fairpo(tmp_path, Dataset.from_list(rows), max_length=20, truncation_mode="keep_end")


def test_conversational_rows_are_checked_by_their_text(tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": "tell me"}],
            "chosen": [{"role": "assistant", "content": row["chosen"] if i else " "}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "attribute": row["attribute"],
        }
        for i, row in enumerate(make_rows(6))
    ]
    with pytest.raises(ValueError, match="Row 0 of the train data have an empty completion"):
        fairpo(tmp_path, Dataset.from_list(rows))


def test_prepare_rows_counts_every_attribute_once_per_row():
    rows = make_rows(3)
    for row, value in zip(rows, (["a", "b"], ["a", "a"], ["b"]), strict=True):
        row["attribute"] = value
    assert prepare_rows(Dataset.from_list(rows), "train", "attribute")[1] == {"a": 2, "b": 2}


# ---- roles ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privileged_attributes": None}, r"Nothing is privileged.*has \['concise', 'factual', 'polite'\]"),
        (
            {"privileged_attributes": ["concize"]},
            r"Unknown privileged attribute: 'concize' \(did you mean 'concise'\?\)",
        ),
        ({"non_privileged_attributes": ["polite"]}, "attribute in the training data: 'factual'.*Give each a role"),
        (
            {"non_privileged_attributes": ["polite", "factual", "funny"]},
            "declared but without a training pair: 'funny'",
        ),
        ({"partition": Partition.by_name(NAMES, ["polite"])}, "Both `partition` and `privileged_attributes`"),
        (
            {"partition": Partition.by_name(["concise", "polite"], ["polite"]), "privileged_attributes": None},
            "'factual'",
        ),
    ],
)
def test_roles_that_do_not_fit_the_data(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fairpo(tmp_path, **options)


def test_partition_argument(tmp_path):
    partition = Partition.by_least_frequent({"concise": 8, "polite": 4, "factual": 8}, 0.3)
    trainer = fairpo(tmp_path, partition=partition, privileged_attributes=None)
    assert trainer.partition is partition and trainer.group_weights.groups[0].members == ("polite",)


def test_train_dataset_and_config_are_required(tmp_path):
    from fairpo_trl.generation import FairPOTrainer

    with pytest.raises(ValueError, match="must be a `FairPOConfig`"):
        FairPOTrainer("model", args=None, train_dataset=data(3))
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        FairPOTrainer("model", args=FairPOConfig(output_dir=str(tmp_path), bf16=False, privileged_attributes=["a"]))
    with pytest.raises(ValueError, match="`compute_metrics` does not work"):
        fairpo(tmp_path, compute_metrics=lambda p: {})


# ---- collator ----


def test_collator_keeps_the_attribute_and_shows_the_inner_one_nothing_of_it():
    seen = []
    completion = torch.ones(4, 3, dtype=torch.long)  # two chosen, then two rejected
    made = {"input_ids": torch.arange(12).view(4, 3), "attention_mask": completion, "completion_mask": completion}
    collator = AttributeCollator(lambda rows: seen.append(rows) or dict(made), ("a", "b"), "kind")
    batch = collator([{"x": 1, "kind": "b"}, {"x": 2, "kind": ["a", "b"]}])
    assert batch["attribute_mask"].tolist() == [[False, True], [True, True]]
    assert batch["completion_mask"] is completion
    assert batch["pair_spans"] == [[0, 3, 3, 3, 3]] * 2
    assert seen == [[{"x": 1}, {"x": 2}]]
    with pytest.raises(ValueError, match=r"attribute in column 'kind': 'c'"):
        collator([{"kind": "c"}])


def test_collator_refuses_what_only_a_stream_can_bring():
    completion, tokens = torch.ones(4, 3, dtype=torch.long), torch.arange(12).view(4, 3)
    made = {"input_ids": tokens, "completion_mask": completion}
    collator = AttributeCollator(lambda rows: dict(made), ("a", "b"), "kind")
    tokens[3] = tokens[1]  # the rejected side of the second pair
    with pytest.raises(ValueError, match="'b' has identical completions"):
        collator([{"kind": "a"}, {"kind": "b"}])
    completion[3] = 0
    with pytest.raises(ValueError, match="'b' keeps no token of a completion.*`max_length`"):
        collator([{"kind": "a"}, {"kind": "b"}])


@pytest.mark.parametrize("value", ["", " ", [], [""], None, 3, ["a", 1]])
def test_attribute_names_refuses(value):
    with pytest.raises(ValueError, match="expected a non-empty string"):
        attribute_names(value)


# ---- metrics by hand ----


def config(**options) -> FairPOConfig:
    return FairPOConfig(output_dir="unused", bf16=False, privileged_attributes=["a"], beta=0.5, **options)


def batch(rows: slice = slice(None)):
    """Five pairs: a, b, (a and b), b, and one without attribute (a padded duplicate)."""
    chosen = torch.tensor([-4.0, -6.0, -3.0, -9.0, -1.0], dtype=torch.float64)[rows]
    rejected = torch.tensor([-8.0, -6.0, -9.0, -5.0, -1.0], dtype=torch.float64)[rows]
    ref_chosen = torch.tensor([-6.0, -6.0, -3.0, -5.0, -50.0], dtype=torch.float64)[rows]
    ref_rejected = torch.tensor([-8.0, -6.0, -5.0, -5.0, -1.0], dtype=torch.float64)[rows]
    policy = PairLogProbs(chosen, rejected, chosen / 2, rejected / 2)
    mask = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)[rows]
    n = len(chosen)
    completion = torch.zeros(2 * n, 4, dtype=torch.long)
    completion[:, 2:] = 1  # two tokens each
    value = torch.arange(10.0).view(2, 5)[:, rows].reshape(-1, 1).expand(-1, 3)  # chosen 0-4, rejected 5-9
    outputs = ModelOutput(entropy=value, mean_logits=value, is_top1=value.long() % 2 == 0)
    return (
        pair_losses(policy, ref_chosen, ref_rejected, config()),
        policy,
        ref_chosen,
        ref_rejected,
        mask,
        {"completion_mask": completion, "attention_mask": torch.ones_like(completion)},
        outputs,
    )


def test_metrics_by_hand():
    sums = PairMetricSums(Partition.by_name(["a", "b", "c"], ["a"]), config(), torch.device("cpu"))
    sums.add(*batch())
    metrics, flat = sums.read(sums.vector)
    # h: 2, 0, 4, -4. beta h: 1, 0, 2, -2. a: pairs 0 and 2; b: 1, 2 and 3.
    a, b = metrics.by_group.loc["a"], metrics.by_group.loc["b"]
    assert (a["pairs"], a["accuracy"], a["margin"]) == (2, 1.0, 1.5)
    assert (b["pairs"], b["accuracy"], b["margin"]) == (3, pytest.approx(1 / 3), 0.0)
    # losses: log(1 + e^-1) = .313261688, log 2, log(1 + e^-2) = .126928011, log(1 + e^2) = 2.126928011
    assert a["loss"] == pytest.approx((0.313261687518 + 0.126928011043) / 2, abs=1e-9)
    assert b["loss"] == pytest.approx((LOG_2 + 0.126928011043 + 2.126928011043) / 3, abs=1e-9)
    assert b["inside_hinge"] == pytest.approx(2 / 3)
    # rewards/chosen below, over beta, by pair: 2, 0, 0, -4.
    assert (a["chosen_change"], b["chosen_change"]) == (1.0, pytest.approx(-4 / 3))
    # A pair of two attributes of different roles counts in both roles; c never occurred.
    assert metrics.by_role["pairs"].to_dict() == {"privileged": 2, "non_privileged": 3}
    assert "c" not in metrics.by_group.index and not [key for key in flat if key.endswith("/c")]
    assert metrics.worst() == ("b", pytest.approx(1 / 3)) and metrics.gap("margin") == 1.5
    assert metrics.worst("loss")[0] == "b" and flat["margin/worst_attribute"] == 0.0
    # All pairs but the padded one. rewards/chosen: .5 * (2 + 0 + 0 - 4) / 4 = -.25; rejected: .5 * (0 + 0 - 4 + 0) / 4
    assert flat["rewards/chosen"] == -0.25 and flat["rewards/rejected"] == -0.5
    assert flat["rewards/accuracies"] == 0.5 and flat["rewards/margins"] == 0.25
    assert flat["logps/chosen"] == -5.5 and flat["logps/rejected"] == -7.0
    # Tokens: chosen values 0-3, rejected 5-8, two each: entropy (12 + 52) / 16; top-1 of chosen: pairs 0 and 2.
    assert flat["entropy"] == 4.0 and flat["mean_token_accuracy"] == 0.5
    assert flat["num_tokens"] == 4 * 2 * 4  # pairs that are real, two sides, four positions
    assert flat["logits/chosen"] == 1.5 and flat["logits/rejected"] == 6.5


def test_sums_over_batches_of_different_sizes_are_one_batch():
    partition = Partition.by_name(["a", "b", "c"], ["a"])
    whole, parts = (PairMetricSums(partition, config(), torch.device("cpu")) for _ in range(2))
    whole.add(*batch())
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        parts.add(*batch(rows))
    assert parts.read(parts.vector)[1] == pytest.approx(whole.read(whole.vector)[1], abs=1e-12)
    parts.reset()
    assert parts.read(parts.vector) is None


def test_absent_attribute_has_no_log_entry(tmp_path):
    trainer = fairpo(
        tmp_path, per_device_train_batch_size=2, eval_dataset=data(9).filter(lambda r: r["attribute"] != "polite")
    )
    trainer.train()
    keys = [{k.split("/")[-1] for k in e if k.startswith("accuracy/attribute/")} for e in logs(trainer)]
    assert all(1 <= len(names) <= 2 for names in keys) and set().union(*keys) == set(NAMES)
    assert all(math.isfinite(v) for e in logs(trainer) for v in e.values())
    metrics = trainer.evaluate()
    assert (
        "eval_accuracy/attribute/polite" not in metrics
        and "polite" not in trainer.group_metrics["eval"].by_group.index
    )
    assert trainer.group_metrics["eval"].by_group["pairs"].sum() == len(trainer.eval_dataset)


def test_progress_line_is_short_and_the_history_whole(tmp_path, capsys):
    trainer = fairpo(tmp_path, max_steps=1, logging_steps=1, disable_tqdm=False)
    trainer.train()
    shown = capsys.readouterr().out
    assert "'weight/privileged'" in shown and "'accuracy/worst_attribute'" in shown and "rewards/" not in shown
    assert "rewards/margins" in trainer.state.log_history[0]


def test_the_table_of_a_notebook_has_few_columns_and_passes_without_checkpointing_do_not_warn(
    tmp_path, monkeypatch, recwarn
):
    rows = []

    class Table(TrainerCallback):  # as transformers' own, which IPython has to be there for
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            rows.append(metrics)

    monkeypatch.setattr(transformers.trainer, "DEFAULT_PROGRESS_CALLBACK", Table)
    monkeypatch.setattr(progress, "DEFAULT_PROGRESS_CALLBACK", Table)
    trainer = fairpo(
        tmp_path, eval_dataset=data(8), max_steps=2, eval_strategy="steps", eval_steps=2, disable_tqdm=False
    )
    trainer.train()
    few = ["eval_loss", "eval_weighted_loss", "eval_accuracy/worst_attribute", "eval_margin/worst_attribute"]
    assert sorted(rows[0]) == sorted(few)
    assert len(trainer.state.log_history[-2]) > 20
    assert not [warning for warning in recwarn if "is_gradient_checkpointing" in str(warning.message)]
