"""Pairs are checked as they are trained on: as tokens, cut to `max_length`, prompts found and parts joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset, IterableDataset
from helpers_trainer import NAMES, data, fairpo
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, T5Config
from trl.trainer.dpo_trainer import DataCollatorForPreference

from fairpo_trl.generation.data_check import prepare_rows
from fairpo_trl.generation.token_check import check_tokens, model_limits, tokenise_pairs
from fairpo_trl.preferences.tokens import ModelLimits, pair_problem, tokenize_pair


SAME = "the a one two small big red blue cat dog"


def _say(role: str, content: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content}]


def _messages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [row | {name: _say(role, row[name].strip()) for name, role in roles.items()} for row in rows]


def _changed(row: int, n: int = 8, **values: Any) -> Dataset:
    rows = make_rows(n)
    rows[row].update(values)
    return Dataset.from_list(rows)


def _train(tmp_path: Path, dataset: Any, **options: Any) -> Any:
    return fairpo(tmp_path, dataset, make_model(dtype=torch.float32), **options)


# ---- equal, empty or out of range as tokens ----


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (
            _changed(5, chosen="a  cat", rejected="a cat"),
            {},
            r"Row 5 of the train data have completions of the same tok",
        ),
        (_changed(5, chosen="foo", rejected="bar"), {}, r"Row 5 .* same tokens .*unknown words"),
        (
            _changed(2, prompt="tell me ", chosen=SAME + " sea", rejected=SAME + " moon"),
            {"max_length": 12},
            r"Row 2 .* differ only in what is cut off at max_length=12 .*'keep_start'.* `max_length` to at least 13,",
        ),
        (
            _changed(2, chosen="is " + SAME, rejected="was " + SAME),
            {"max_length": 8, "truncation_mode": "keep_end"},
            r"Row 2 .* cut off at max_length=8 .*'keep_end'.*Set `max_length` to at least 12,",
        ),
    ],
)
def test_pairs_that_are_equal_as_tokens_are_named(
    tmp_path: Path, dataset: Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _train(tmp_path, dataset, **options)


def test_a_template_that_trims_makes_completions_equal(tmp_path: Path) -> None:
    rows = _messages(make_rows(6))
    rows[3].update(chosen=_say("assistant", "a cat"), rejected=_say("assistant", "a cat\n"))
    with pytest.raises(ValueError, match=r"Row 3 of the eval data have completions of the same tokens"):
        _train(tmp_path, data(), eval_dataset=Dataset.from_list(rows))


def test_rows_given_to_evaluate_and_predict_are_checked_too(tmp_path: Path) -> None:
    trainer = _train(tmp_path, data(), eval_dataset=data(4, seed=3), max_length=12)
    equal = _changed(1, prompt="tell me ", chosen=SAME + " sea", rejected=SAME + " moon")
    for use in (trainer.evaluate, trainer.predict):
        with pytest.raises(ValueError, match=r"Row 1 of the (eval|test) data .* cut off at max_length=12"):
            use(equal)
        with pytest.raises(ValueError, match=r"In row 0 of the (eval|test) data .* prompt alone fills max_length=12"):
            use(_changed(0, prompt=f"{SAME} {SAME} "))
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == trainer.evaluate(data())["eval_loss"]


def test_a_stream_is_checked_at_its_beginning_and_batch_by_batch(tmp_path: Path) -> None:
    def stream(rows: list[dict[str, Any]]) -> IterableDataset:
        return Dataset.from_list(rows).to_iterable_dataset()

    options = {"non_privileged_attributes": list(NAMES[1:]), "max_steps": 40, "max_length": 12}
    late = {"prompt": "tell me ", "chosen": SAME + " sea", "rejected": SAME + " moon", "attribute": "polite"}
    with pytest.raises(ValueError, match=r"Row 5 of the train data .* cut off at max_length=12"):
        _train(tmp_path, stream([*make_rows(5), late]), **options)
    trainer = _train(tmp_path, stream([*make_rows(72), late]), **options)
    with pytest.raises(ValueError, match=r"A pair of 'polite' has identical completions: .* within `max_length`"):
        trainer.train()


@given(
    prompt=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    chosen=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    rejected=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    max_length=st.one_of(st.none(), st.integers(2, 11)),
    mode=st.sampled_from(["keep_start", "keep_end"]),
)
def test_a_pair_passes_if_the_collator_leaves_it_something_to_tell_apart(
    prompt: list[int], chosen: list[int], rejected: list[int], max_length: int | None, mode: str
) -> None:
    collator = DataCollatorForPreference(pad_token_id=0, max_length=max_length, truncation_mode=mode)
    batch = collator([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    scored = batch["completion_mask"][:, 1:].any(dim=1).all()
    equal = batch["input_ids"][0].equal(batch["input_ids"][1]) and batch["completion_mask"].diff(dim=0).eq(0).all()
    assert (pair_problem(prompt, chosen, rejected, max_length, mode) is None) == bool(scored and not equal)


def test_the_length_that_is_named_is_the_least_that_helps() -> None:
    row = {"prompt_ids": [7, 8], "chosen_ids": [1, 2, 3, 4], "rejected_ids": [1, 2, 3]}
    for mode in ("keep_start", "keep_end"):
        for length in range(2, 7):
            try:
                check_tokens([row], "train", length, mode)
            except ValueError as error:
                assert mode == "keep_start"
                assert length < 6
                assert "prompt alone" in str(error) or "at least 6," in str(error)
            else:
                assert mode == "keep_end" or length == 6


# ---- what the model can take ----


def test_tokens_and_positions_beyond_the_model_are_named(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"<new{i}>" for i in range(20)])
    config = GPT2Config(vocab_size=len(make_tokenizer()), n_embd=8, n_layer=1, n_head=1, n_positions=16)
    limits = model_limits(GPT2LMHeadModel(config))
    assert limits == (len(make_tokenizer()), 16)
    assert model_limits(make_model()) == (64, None)  # rotary positions go on

    unknown, long = _changed(4, chosen="<new7>"), _changed(6, chosen=f"{SAME} {SAME}")
    with pytest.raises(ValueError, match=r"Row 4 of the x data have tokens without an embedding .*resize_token"):
        check_tokens(tokenise_pairs(unknown, tokenizer, "x"), "x", None, "keep_start", limits)
    with pytest.raises(ValueError, match=r"Row 6 of the x data are longer than the 16 positions .*at most 16"):
        check_tokens(tokenise_pairs(long, tokenizer, "x"), "x", None, "keep_start", limits)
    check_tokens(tokenise_pairs(long, tokenizer, "x"), "x", 16, "keep_start", limits)


def test_a_path_is_enough_to_know_the_limits(tmp_path: Path, tiny_model_path: str) -> None:
    assert model_limits(tiny_model_path) == ModelLimits(64, None)
    assert model_limits("no/such-model") == (None, None)
    T5Config(vocab_size=10, decoder_start_token_id=0).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"encoder-decoder \(t5\); FairPOTrainer trains causal"):
        model_limits(str(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "adapter_config.json")
    with pytest.raises(ValueError, match=r"holds an adapter, not a model: .*PeftModel\.from_pretrained"):
        fairpo(tmp_path / "out", data(), str(tmp_path), ref=None)


# ---- tokenizers and templates ----


def test_what_the_tokenizer_lacks_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="train data are messages, but the tokenizer has no chat template"):
        tokenise_pairs(Dataset.from_list(_messages(make_rows(2))), tokenizer, "train")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token.*`tokenizer.eos_token`"):
        tokenise_pairs(Dataset.from_list(make_rows(2)), tokenizer, "train")


def test_other_errors_are_not_blamed_on_a_template_that_was_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairpo_trl.generation.token_check.DPOTrainer._prepare_dataset", full)
    for rows in (make_rows(2), _messages(make_rows(2))):
        with pytest.raises(OSError, match="No space left on device"):
            tokenise_pairs(Dataset.from_list(rows), make_tokenizer(), "train")


def test_the_row_that_a_template_refuses_is_named() -> None:
    tokenizer = make_tokenizer()
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    rows = _messages(make_rows(8))
    rows[5]["prompt"] = _say("system", "one") + rows[5]["prompt"]
    with pytest.raises(ValueError, match="chat template refuses row 5 of the train data: System role not supported"):
        tokenise_pairs(Dataset.from_list(rows), tokenizer, "train")

    rows = [
        row | {"chat_template_kwargs": None if i == 3 else {"x": 1}} for i, row in enumerate(_messages(make_rows(5)))
    ]
    with pytest.raises(ValueError, match=r"Row 3 of the train data has no `chat_template_kwargs` \(null\)"):
        tokenise_pairs(Dataset.from_list(rows), make_tokenizer(), "train")


# ---- one form of the rows ----


def _implicit(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(
        [
            {name: row["prompt"] + row[name] for name in ("chosen", "rejected")} | {"attribute": row["attribute"]}
            for row in rows
        ]
    )


@pytest.mark.parametrize("form", [list, _messages])
def test_prompts_that_are_implicit_are_checked_like_others(tmp_path: Path, form: Any) -> None:
    rows = form(make_rows(12))
    with pytest.raises(ValueError, match="have a prompt of the training data"):
        _train(tmp_path, _implicit(rows), eval_dataset=_implicit(rows), allow_prompt_overlap=False)
    prepared, counts = prepare_rows(_implicit(rows), "train", "attribute")
    assert sum(counts.values()) == 12
    if form is _messages:
        assert prepared["prompt"] == [row["prompt"] for row in rows]


def test_pairs_without_a_common_prompt_are_refused() -> None:
    rows = make_rows(4)
    rows[2].update(prompt="", chosen="red cat ", rejected="blue dog")
    message = "Row 2 of the train data have no prompt: chosen and rejected share no beginning"
    with pytest.raises(ValueError, match=message):
        prepare_rows(_implicit(rows), "train", "attribute")
    with pytest.raises(ValueError, match=message):
        prepare_rows(_implicit(rows).to_iterable_dataset(), "train", "attribute")


@pytest.mark.parametrize("form", [list, _messages])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_check_without_a_trainer_sees_the_tokens_that_are_trained_on(form: Any, implicit: bool) -> None:
    rows = form(make_rows(12))
    dataset = _implicit(rows) if implicit else Dataset.from_list(rows)
    prepared, _ = prepare_rows(dataset, "train", "attribute")
    tokenised = tokenise_pairs(prepared, make_tokenizer(), "train")
    for row, raw in zip(tokenised, dataset, strict=True):
        assert {name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} == tokenize_pair(
            make_tokenizer(), raw
        )


def test_text_parts_are_the_text_they_hold(tmp_path: Path) -> None:
    rows = _messages(make_rows(6))
    parts = [
        row
        | {
            name: [
                {
                    "role": m["role"],
                    "content": [{"type": "text", "text": part} for part in (m["content"][:3], m["content"][3:])],
                }
                for m in row[name]
            ]
            for name in ("prompt", "chosen", "rejected")
        }
        for row in rows
    ]
    trainer, plain = (_train(tmp_path, Dataset.from_list(form)) for form in (parts, rows))
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert trainer.train_dataset[column] == plain.train_dataset[column]
    streamed, _ = prepare_rows(Dataset.from_list(parts).to_iterable_dataset(), "train", "attribute")
    assert next(iter(streamed))["prompt"] == rows[0]["prompt"]


def test_parts_that_are_no_text_are_refused() -> None:
    rows = _messages(make_rows(3))
    for i, row in enumerate(rows):
        for name in ("prompt", "chosen", "rejected"):
            part = {"type": "text", "text": row[name][0]["content"]}
            row[name] = _say("user", [part | ({"type": "image", "text": None} if (i, name) == (1, "prompt") else {})])
    with pytest.raises(ValueError, match=r"Row 1 of the train data: a message of 'prompt' holds the part .*no text"):
        prepare_rows(Dataset.from_list(rows), "train", "attribute")


def test_formats_and_columns_of_an_earlier_run_make_no_difference(tmp_path: Path) -> None:
    plain = _train(tmp_path, data(6), eval_dataset=data(4, seed=2), precompute_ref_log_probs=True)
    again = _train(
        tmp_path,
        data(6).with_format("torch"),
        eval_dataset=plain.eval_dataset.add_column("chosen_logps", [0.0] * 4),
        precompute_ref_log_probs=True,
    )
    assert again.train_dataset["chosen_ids"] == plain.train_dataset["chosen_ids"]
    assert again.evaluate()["eval_loss"] == plain.evaluate(plain.eval_dataset)["eval_loss"]


def test_pairs_can_be_grouped_by_length(tmp_path: Path) -> None:
    trainer = _train(tmp_path, data(12), train_sampling_strategy="group_by_length", max_steps=1)
    row = trainer.train_dataset[3]
    assert row["length"] == len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    trainer.train()
    assert trainer.state.global_step == 1


def test_markup_in_names_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(tmp_path, data(12, attributes=("concise", "[safety]", "[/b]")), disable_tqdm=False)
    shown = capsys.readouterr().out
    assert "[safety]" in shown
    assert "[/b]" in shown


def test_an_evaluation_set_called_train_is_another_column(tmp_path: Path) -> None:
    trainer = _train(tmp_path, data(12), eval_dataset={"train": data(6, seed=4)})
    assert trainer._pair_counts["train"] == dict.fromkeys(NAMES, 4)
    assert trainer._pair_counts["train (evaluation)"] == dict.fromkeys(NAMES, 2)
