"""Pairs as other tools write them, one rule set for check, loading and trainer, and what must not pass as text."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import make_rows, make_tokenizer
from datasets import Dataset
from helpers_trainer import fairpo
from rich.console import Console

from fairpo_trl.commands import check
from fairpo_trl.generation.data import DataArguments, load_data
from fairpo_trl.generation.data_check import check_overlap, prepare_rows
from fairpo_trl.generation.token_check import check_tokens
from fairpo_trl.preferences import check_preferences, load_preferences, mix, pairs_from_ratings, read_pairs
from fairpo_trl.preferences.rules import explicit_pair
from fairpo_trl.preferences.tokens import token_problems, tokenize_pair


MIGRATE = Path(__file__).parents[1] / "data" / "migrate"


def quiet() -> Console:
    return Console(file=io.StringIO(), width=300)


def say(role: str, text: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]


PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "attribute": "a"}
CHAT = {
    "prompt": say("user", "Why?"),
    "chosen": say("assistant", "So."),
    "rejected": say("assistant", "No."),
    "attribute": "a",
}


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def checked(path: Path, *options: str) -> tuple[Any, str]:
    """What `fairpo check` finds, and what it prints."""
    console = quiet()
    (args,) = check.make_parser().parse([str(path), *options])
    report = check.run(args, console)
    return report, console.file.getvalue()


# ---- the forms of other tools ----


@pytest.mark.parametrize(
    "name",
    [
        "llama_factory_sharegpt.jsonl",
        "llama_factory_alpaca.json",
        "ms_swift.jsonl",
        "axolotl_chat_template_argilla.jsonl",
        "axolotl_chat_template.jsonl",
    ],
)
def test_pairs_of_other_tools_are_read_directly(name: str) -> None:
    pairs = load_preferences(MIGRATE / name, console=quiet())["train"]
    assert [row["attribute"] for row in pairs] == ["helpful", "polite", "helpful", "concise"]
    for row, question in zip(pairs, ("basil", "stretch", "bread", "hobby"), strict=True):
        assert row["prompt"][-1]["role"] == "user" and question in row["prompt"][-1]["content"]
        assert [message["role"] for message in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
    assert pairs[2]["chosen"][0]["content"].startswith("Its starch")
    assert pairs[2]["rejected"][0]["content"] == "Bread is bread."
    report, _ = checked(MIGRATE / name)
    assert report.refused == ()


def test_system_and_input_columns_of_other_tools_are_part_of_the_prompt() -> None:
    rows = load_preferences(MIGRATE / "llama_factory_sharegpt.jsonl", console=quiet())["train"].to_list()
    assert [len(row["prompt"]) for row in rows] == [1, 2, 1, 2]
    assert rows[1]["prompt"][0] == {"role": "system", "content": "You are brief."}
    first = load_preferences(MIGRATE / "llama_factory_alpaca.json", console=quiet())["train"][0]
    assert first["prompt"] == say("user", "How do I keep basil alive indoors?\nIt stands in a north-facing kitchen.")


def test_what_was_taken_for_what_is_said() -> None:
    console = quiet()
    load_preferences(MIGRATE / "ms_swift.jsonl", console=console)
    said = console.file.getvalue()
    assert "The column 'channel' is the attribute (4 rows)" in said
    assert "'rejected_response' is read as 'rejected' (4 rows)" in said


def test_history_becomes_earlier_turns() -> None:
    row = {"instruction": "And now?", "history": [["One?", "Two."]], "chosen": "x", "rejected": "y", "attribute": "a"}
    (read,) = read_pairs([row]).rows
    assert read["prompt"] == [*say("user", "One?"), *say("assistant", "Two."), *say("user", "And now?")]


def test_an_unknown_speaker_is_named() -> None:
    row = {**PAIR, "prompt": None, "conversations": [{"from": "tool", "value": "x"}]}
    with pytest.raises(ValueError, match=r"Row 0, column 'conversations': a turn is from 'tool'; known are"):
        read_pairs([row])


def test_comparisons_from_argilla() -> None:
    pairs = load_preferences(MIGRATE / "argilla_comparisons.json", console=quiet())["train"].to_list()
    helpful = [row for row in pairs if row["attribute"] == "helpful"]
    assert [row["chosen"][0]["content"][:4] for row in helpful] == ["Give", "Stan", "Draw"]  # a tie is no pair
    concise = [row["chosen"][0]["content"][:4] for row in pairs if row["attribute"] == "concise"]
    assert concise == ["Give", "You ", "Its ", "Draw"]  # by rank


def test_ratings_from_argilla_are_means_of_people() -> None:
    console = quiet()
    pairs = load_preferences(MIGRATE / "argilla_ratings.json", console=console)["train"].to_list()
    assert [row["attribute"] for row in pairs] == ["helpful", "helpful"]
    assert "dropped 2 pairs with equal scores" in console.file.getvalue()


def test_comparisons_from_label_studio() -> None:
    pairs = load_preferences(MIGRATE / "label_studio_pairs.json", console=quiet())["train"].to_list()
    found = [(row["attribute"], row["chosen"][0]["content"][:4]) for row in pairs]
    assert [start for name, start in found if name == "helpful"] == ["Give", "Stan", "Its ", "Draw"]
    assert [start for name, start in found if name == "polite"] == ["Give", "Its ", "Draw"]  # a tie is no pair


def test_an_answer_that_names_nothing_is_refused(tmp_path: Path) -> None:
    record = json.loads((MIGRATE / "argilla_comparisons.json").read_text())[0]
    record["responses"]["helpful"][0]["value"] = "response_9"
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(
        ValueError, match="Record 0 of the Argilla export, question 'helpful'.*'response_9' names none"
    ):
        load_preferences(tmp_path / "r.json", console=quiet())


# ---- structure is never text ----


def test_messages_and_lists_that_pandas_wrote_are_read(tmp_path: Path) -> None:
    rows = [{**CHAT, "attribute": ["a", "b"]}, {**CHAT, "prompt": say("user", 'It\'s "when"?')}]
    path = write(tmp_path / "pairs.csv", rows)
    pairs = load_preferences(path, console=quiet())["train"].to_list()
    assert pairs == [rows[0], {**rows[1], "attribute": ["a"]}]
    assert checked(path)[0].refused == ()


@pytest.mark.parametrize(
    ("changes", "rule", "message"),
    [
        ({"prompt": str(say("user", "Why?"))}, "structure_as_text", "read_pairs"),
        ({"chosen": json.dumps(say("assistant", "So."))}, "structure_as_text", "'chosen' is a list of messages"),
        ({"chosen": "[{'role': 'assistant', 'content': 'a'}\n {'role': 'x'}]"}, "structure_as_text", "'chosen'"),
        ({"attribute": "['a', 'b']"}, "malformed_attribute", "the text of a list"),
        ({"attribute": "3"}, "malformed_attribute", "'3' is a number, perhaps a score"),
    ],
)
def test_the_trainer_refuses_structure_that_is_text(changes: dict, rule: str, message: str) -> None:
    rows = [{**PAIR, **changes}, {**PAIR, **changes, "rejected": "Never."}]
    with pytest.raises(ValueError, match=message):
        prepare_rows(Dataset.from_list(rows), "train", "attribute")
    assert [problem.rule for problem in check_preferences(rows).refused] == [rule]


@pytest.mark.parametrize("text", ['["a", "b"]', '{"value": 3}', "[x] done", "{'type': oh", "(maybe)"])
def test_answers_that_are_json_or_look_a_little_like_it_are_text(text: str) -> None:
    assert check_preferences([{**PAIR, "chosen": text}]).refused == ()
    assert read_pairs([{**PAIR, "chosen": text}]).rows[0]["chosen"] == text


WRITTEN = {
    "list": lambda text: str([text]),
    "object": lambda text: str({"text": text}),
    "bytes": lambda text: str(text.encode()),
    "quotes": json.dumps,
    "turns": lambda text: str([{"speaker": "user", "text": text}]),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_columns_that_hold_literals_alone_are_refused(how: str, tmp_path: Path) -> None:
    written = [
        {name: WRITTEN[how](f"{row[name]} {i}") for name in ("prompt", "chosen", "rejected")} | {"attribute": "a"}
        for i, row in enumerate([PAIR] * 3)
    ]
    path = write(tmp_path / "pairs.csv", written)
    with pytest.raises(ValueError, match="Rows 0, 1, 2 of .*and so all, hold texts as Python or JSON writes values"):
        load_preferences(path, console=quiet())
    with pytest.raises(ValueError, match="hold texts as Python or JSON writes values"):
        prepare_rows(Dataset.from_list(written), "training", "attribute")
    plain = {**PAIR, "attribute": "a"}  # with one that is none they are what was asked for
    assert len(load_preferences(write(path, [*written, plain]), console=quiet())["train"]) == 4


def test_answers_in_json_are_no_literals(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"{i}?", "chosen": f'{{"a": [{i}]}}', "rejected": '["b"]'} for i in range(3)]
    assert len(load_preferences(write(tmp_path / "pairs.csv", rows), console=quiet())["train"]) == 3


def test_lists_of_texts_are_no_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{**PAIR, "chosen": ["So."], "rejected": ["No."]}])
    with pytest.raises(ValueError, match="message 0 of 'chosen' must have a role and a content, got 'So.'"):
        load_preferences(path, console=quiet())


def test_other_names_of_a_role_are_read_and_refused_by_the_trainer(tmp_path: Path) -> None:
    row = {"prompt": say("human", "Why?"), "chosen": say("GPT", "So."), "rejected": say("Assistant", "No.")}
    row |= {"attribute": "a"}
    assert load_preferences(write(tmp_path / "pairs.jsonl", [row]), console=quiet())["train"][0] == CHAT
    with pytest.raises(ValueError, match="message 0 of 'prompt' has the role 'human', which .* know as 'user'"):
        prepare_rows(Dataset.from_list([row]), "training", "attribute")


@pytest.mark.parametrize("attribute", ["{'helpful': 1, 'polite': 0}", "[helpful, polite]", "{helpful,polite}"])
def test_a_list_that_nobody_reads_says_how_to_write_one(attribute: str, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [{**PAIR, "attribute": attribute}])
    with pytest.raises(ValueError, match=r'the text of a list, .*; write \["helpful", "polite"\] or helpful\|polite'):
        load_preferences(path, console=quiet())


def test_parts_of_text_are_joined_and_others_refused() -> None:
    row = {**CHAT, "prompt": say("user", [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}])}
    assert read_pairs([row]).rows == [CHAT]
    assert check_preferences([row]).refused == ()  # the trainer joins them too
    picture = {**CHAT, "prompt": say("user", [{"type": "image", "url": "x.png"}, {"type": "text", "text": "Why?"}])}
    (problem,) = check_preferences([picture]).refused
    assert problem.rule == "structure_as_text" and "which is no text" in problem.message


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["helpful", "Helpful", "polite"], (1,)),
        (["helpful", "polite", "helpful "], (2,)),
        (["café", "cafe\u0301"], (1,)),
    ],
)
def test_second_spellings_of_an_attribute_are_refused_everywhere(
    names: list[str], rows: tuple[int, ...], tmp_path: Path
) -> None:
    pairs = [{**PAIR, "prompt": f"{n}?", "attribute": name} for n, name in enumerate(names)]
    path = write(tmp_path / "pairs.jsonl", pairs)
    report, _ = checked(path)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("second_spelling", rows)]
    with pytest.raises(ValueError, match="differ only in case"):
        load_data(DataArguments(dataset_name=str(path)), console=quiet())
    with pytest.raises(ValueError, match="differ only in case"):
        prepare_rows(Dataset.from_list(pairs), "train", "attribute")


def test_joined_attributes_are_read_or_refused_by_rule(tmp_path: Path) -> None:
    names = ["a|b", "b", "a"]
    rows = [{**PAIR, "prompt": f"{n}?", "attribute": name} for n, name in enumerate(names)]
    assert [row["attribute"] for row in read_pairs(rows).rows] == [["a", "b"], ["b"], ["a"]]
    rows = [{**row, "attribute": name} for row, name in zip(rows, ("a, b", "b", "a"), strict=True)]
    path = write(tmp_path / "pairs.jsonl", rows)
    report, _ = checked(path)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("joined_attributes", (0,))]
    read = load_preferences(path, attribute_separator=",", console=quiet())["train"]
    assert read["attribute"][:] == [["a", "b"], ["b"], ["a"]]
    as_names = load_preferences(path, attribute_separator="|", console=quiet())["train"]
    assert as_names["attribute"][:] == [["a, b"], ["b"], ["a"]]  # said: the comma belongs to the name
    assert checked(path, "--attribute_separator", ",")[0].refused == ()


# ---- one rule set ----


def test_implicit_prompts_are_read_and_checked(tmp_path: Path) -> None:
    rows = [
        {"chosen": CHAT["prompt"] + CHAT["chosen"], "rejected": CHAT["prompt"] + CHAT["rejected"], "attribute": "a"}
    ]
    path = write(tmp_path / "pairs.jsonl", rows)
    assert load_preferences(path, console=quiet())["train"].to_list()[0] == CHAT
    assert checked(path)[0].refused == ()
    data = Dataset.from_list(rows)
    assert prepare_rows(data, "train", "attribute")[1] == {"a": 1}
    with pytest.raises(ValueError, match="Row 0 of the eval data have a prompt of the training data"):
        check_overlap(data, {"eval": data})
    nothing = [{"chosen": "yes w2", "rejected": "no w5", "attribute": "a"}]
    with pytest.raises(ValueError, match="no prompt: chosen and rejected share no beginning"):
        prepare_rows(Dataset.from_list(nothing), "train", "attribute")


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("Q: a? yes", "Q: a? yellow", ("Q: a?", " yes", " yellow")),  # no word is cut
        ("Q: a? yes ", "Q: a? no", ("Q: a?", " yes ", " no")),
        ("same", "same", ("same", "same", "same")),
        ("a b", "a b c", ("a", " b", " b c")),
    ],
)
def test_the_implicit_prompt_of_text_ends_at_a_blank(chosen: str, rejected: str, expected: tuple) -> None:
    assert explicit_pair({"chosen": chosen, "rejected": rejected}) == expected


def test_a_prompt_that_both_completions_repeat_is_there_once(tmp_path: Path) -> None:
    whole = {**CHAT, "chosen": CHAT["prompt"] + CHAT["chosen"], "rejected": CHAT["prompt"] + CHAT["rejected"]}
    for row in (whole, {**whole, "prompt": "Why?"}):
        path = write(tmp_path / "pairs.jsonl", [row])
        assert load_preferences(path, console=quiet())["train"].to_list() == [CHAT]
    with pytest.raises(ValueError, match=r"which would be there twice.*remove_columns\('prompt'\)"):
        prepare_rows(Dataset.from_list([whole]), "train", "attribute")


def test_prompts_in_two_splits_are_refused_by_the_check_as_by_the_trainer(tmp_path: Path) -> None:
    rows = [
        {**PAIR, "prompt": f"p{i % 3}", "chosen": f"c{i}", "split": "train" if i < 4 else "test"} for i in range(6)
    ]
    path = write(tmp_path / "pairs.jsonl", rows)
    report, text = checked(path)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("prompt_overlap", (0, 1))]
    assert "would accept" not in text
    data = load_data(DataArguments(dataset_name=str(path)), console=quiet())
    with pytest.raises(ValueError) as error:
        check_overlap(data["train"], {"test": data["test"]})
    assert str(error.value) == report.refused[0].message
    assert checked(path, "--allow_prompt_overlap", "true")[0].refused == ()
    assert checked(path, "--dataset_test_split", "other")[0].refused == ()  # not evaluated on


def test_rows_may_lack_a_column_and_what_is_not_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [PAIR, {**PAIR, "prompt": "q", "system": "Be kind.", "context": "c"}])
    report, text = checked(path)
    assert report.refused == () and "columns that are not read: system, context" in text
    assert load_preferences(path, console=quiet())["train"]["system"][:] == [None, "Be kind."]


def test_no_attribute_column_says_how_to_have_one(tmp_path: Path) -> None:
    rows = [{key: value for key, value in PAIR.items() if key != "attribute"}]
    path = write(tmp_path / "pairs.jsonl", rows)
    for message in (r"--attribute_column", r"--mixture helpful=a.jsonl", r"add_column\('attribute'"):
        with pytest.raises(ValueError, match=message):
            load_preferences(path, console=quiet())
        with pytest.raises(ValueError, match=message):
            prepare_rows(Dataset.from_list(rows), "train", "attribute")


def test_source_is_the_attribute_unless_it_names_web_pages(tmp_path: Path) -> None:
    rows = [
        {**{k: v for k, v in PAIR.items() if k != "attribute"}, "prompt": f"p{n}", "source": f"s{n}"}
        for n in range(70)
    ]
    assert read_pairs(rows[:3]).rows[2]["attribute"] == "s2"
    with pytest.raises(ValueError, match="lacks column 'attribute'"):
        load_preferences(write(tmp_path / "pairs.jsonl", rows), console=quiet())


# ---- on tokens ----


def test_tokens_are_those_of_the_trainer(tmp_path: Path) -> None:
    rows = [*make_rows(4), {**make_rows(1)[0], "chosen": "sea moon <eos>", "attribute": "polite"}]
    chat = [
        {key: say("user" if key == "prompt" else "assistant", row[key]) for key in ("prompt", "chosen", "rejected")}
        | {"attribute": row["attribute"]}
        for row in rows
    ]
    tokenizer = make_tokenizer()
    for data in (rows, chat):
        trained = fairpo(tmp_path, Dataset.from_list(data)).train_dataset
        for row, made in zip(data, trained, strict=True):
            ours = tokenize_pair(tokenizer, row)
            assert ours == {name: made[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}


@pytest.mark.parametrize(
    ("row", "limit", "mode", "rule"),
    [
        (([1, 2], [3], [4]), None, "keep_start", None),
        (([1, 2], [3], []), None, "keep_start", "no_tokens"),
        (([1, 2], [3], [3]), 9, "keep_start", "equal_tokens"),
        (([1, 2, 3], [4], [5]), 3, "keep_start", "prompt_fills_max_length"),
        (([1, 2, 3], [4], [5]), 3, "keep_end", None),
        (([1], [3, 4, 5], [3, 4, 6]), 3, "keep_start", "equal_after_truncation"),
        (([1], [3, 4, 5], [3, 4, 6]), 4, "keep_start", None),
        (([1], [7, 4, 5], [8, 4, 5]), 2, "keep_end", "equal_after_truncation"),
        (([1], [7, 4, 5], [8, 4, 5]), 3, "keep_end", None),
        (([1], [3], [3, 4]), 2, "keep_start", "equal_after_truncation"),
        (([], [3], [4]), 2, "keep_start", "no_prompt_tokens"),
    ],
)
def test_the_rules_for_tokens(row: tuple, limit: int | None, mode: str, rule: str | None) -> None:
    tokens = dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), row, strict=True))
    problems = token_problems([(7, tokens)], "train", limit, mode)
    assert [(problem.rule, problem.rows) for problem in problems] == ([(rule, (7,))] if rule else [])
    if rule:
        with pytest.raises(ValueError, match="train data"):
            check_tokens([tokens], "train", limit, mode)


def test_the_check_looks_at_tokens_with_a_model_and_says_so_without(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "model")
    rows = make_rows(4)
    rows[2] |= {"prompt": "the cat ", "chosen": "unheard", "rejected": "unseen"}  # both are unknown words
    path = write(tmp_path / "pairs.jsonl", rows)
    report, text = checked(path)
    assert report.refused == () and "As text, the trainer would accept" in text and "--model_name_or_path" in text
    report, _ = checked(path, "--model_name_or_path", str(tmp_path / "model"))
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("equal_tokens", (2,))]
    assert report.lengths.limit == 1024  # the trainer's default
    report, text = checked(write(path, make_rows(4)), "--tokenizer", str(tmp_path / "model"), "--max_length", "64")
    assert report.refused == () and "The trainer would accept these pairs." in text


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    tokenizer = make_tokenizer()
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    rows = [
        CHAT,
        {**CHAT, "prompt": say("system", "Be kind.") + CHAT["prompt"], "chosen": say("assistant", "the cat")},
    ]
    rows[0] = {**CHAT, "chosen": say("assistant", "the dog")}
    report = check_preferences(rows, tokenizer=tokenizer)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("chat_template", (1,))]
    assert "no system here" in report.refused[0].message


# ---- weights ----


def test_weights_are_checked_and_kept_through_loading_and_dividing(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"p{n}", "weight": n / 2} for n in range(10)]
    for suffix in (".jsonl", ".csv"):
        path = write(tmp_path / f"pairs{suffix}", rows)
        data = load_data(DataArguments(dataset_name=str(path), test_share=0.3, as_messages=True), console=quiet())
        kept = {row["prompt"][0]["content"]: row["weight"] for part in data.values() for row in part}
        assert kept == {row["prompt"]: row["weight"] for row in rows}


def test_half_a_character_is_refused_by_the_check_too(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{**PAIR, "chosen": "So \ud83d."}])
    report, said = checked(path)
    assert [problem.rule for problem in report.refused] == [
        "malformed_text"
    ] and "'chosen' holds half of a character" in " ".join(said.split())
    with pytest.raises(ValueError, match="'chosen' holds half of a character"):
        load_preferences(path, console=quiet())
    with pytest.raises(ValueError, match="names no attribute in row 0: .* holds half of a character"):
        load_preferences(write(path, [{**PAIR, "attribute": "a\ud83d"}]), console=quiet())


@pytest.mark.parametrize("weight", [10**400, -1, float("nan"), float("inf"), None, "x"])
def test_a_weight_that_is_none_is_named(weight: Any, tmp_path: Path) -> None:
    rows = [{**PAIR, "weight": 1.0}, {**PAIR, "prompt": "q", "weight": weight}]
    report = check_preferences(rows)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("malformed_weight", (1,))]
    with pytest.raises(ValueError, match="Row 1 .*'weight' must hold a finite number of 0 or more"):
        load_preferences(write(tmp_path / "pairs.jsonl", rows), console=quiet())


def test_weights_that_are_all_zero_would_teach_nothing() -> None:
    (problem,) = check_preferences([{**PAIR, "weight": 0}]).refused
    assert "Every 'weight' of the train data is 0" in problem.message


def test_a_mixture_keeps_weights_of_all_or_none(tmp_path: Path) -> None:
    rows = [{k: v for k, v in PAIR.items() if k != "attribute"} | {"weight": 2.0}]
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows)
    assert mix({"x": a, "y": b}, console=quiet())["train"]["weight"][:] == [2.0, 2.0]
    write(b, [{k: v for k, v in rows[0].items() if k != "weight"}])
    with pytest.raises(ValueError, match="'x' has a column 'weight' and another one has none"):
        mix({"x": a, "y": b}, console=quiet())


# ---- consistent pairs, and published judgements ----


RATED = pd.DataFrame(
    {
        "prompt": ["p"] * 4,
        "response": ["w", "x", "y", "z"],
        "helpful": [4, 3, 1, 2],
        "polite": [1, 1, 2, None],
    }
)


def pairs_of(attribute: str, **options: Any) -> set[tuple[str, str]]:
    rows = pairs_from_ratings(RATED, ["helpful", "polite"], **options).rows
    return {(row["chosen"], row["rejected"]) for row in rows if row["attribute"] == attribute}


def test_consistent_pairs_have_winners_that_are_not_worse_elsewhere() -> None:
    every = {("w", "x"), ("w", "y"), ("w", "z"), ("x", "y"), ("x", "z"), ("z", "y")}
    assert pairs_of("helpful") == every
    consistent = {("w", "x"), ("w", "z"), ("x", "z"), ("z", "y")}  # y is politer than w and x; z is not rated
    with pytest.raises(ValueError, match=r"'polite' give no pair \(.*inconsistent 2"):
        pairs_of("helpful", pairing="consistent")
    assert pairs_of("helpful", pairing="consistent", tolerance=3) == every
    kept = pairs_from_ratings(
        pd.concat(
            [RATED, pd.DataFrame({"prompt": ["q"] * 2, "response": ["s", "t"], "helpful": 1, "polite": [1, 2]})],
            ignore_index=True,
        ),
        ["helpful", "polite"],
        pairing="consistent",
    )
    assert {(r["chosen"], r["rejected"]) for r in kept.rows if r["attribute"] == "helpful"} == consistent
    assert kept.dropped_by_attribute["helpful"]["inconsistent"] == 2


def test_consistent_pairs_on_the_command_line(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": r, "a": x, "b": y} for r, x, y in (("s", 2, 2), ("t", 1, 1), ("u", 3, 0))]
    path = str(write(tmp_path / "r.csv", rows))
    options = {"dataset_name": path, "ratings": ["a", "b"]}
    assert len(load_data(DataArguments(**options), console=quiet())["train"]) == 6
    consistent = load_data(DataArguments(**options, pairing="consistent"), console=quiet())["train"]
    assert {(row["chosen"], row["attribute"]) for row in consistent} == {("s", "a"), ("s", "b")}
    with pytest.raises(ValueError, match="`pairing_tolerance` has no effect without"):
        load_data(DataArguments(**options, pairing_tolerance=1.0), console=quiet())


def test_one_cell_that_is_no_number_blames_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("prompt,response,good,note\np,a,1,x\np,b,N/A,y\nq,c,3,z\nq,d,4.5,\n")
    with pytest.raises(ValueError, match=r"row 1 holds another value \('N/A' in row 1\)"):
        load_preferences(tmp_path / "r.csv", ratings=["good"], console=quiet())


DATA = Path(__file__).parents[1] / "data"


def test_truthfulqa_in_both_published_forms(tmp_path: Path) -> None:
    splits = load_preferences(DATA / "truthfulqa.jsonl", source="truthfulqa", console=quiet())
    found = {
        (row["attribute"], row["chosen"][0]["content"][:2], row["rejected"][0]["content"][:2])
        for row in splits["train"]
    }
    assert found == {
        ("truthful", "No", "Ye"),
        ("truthful", "I ", "Ye"),
        ("informative", "No", "I "),
        ("informative", "Ye", "I "),
    }
    assert len(splits["test"]) == 1
    rows = [json.loads(line) for line in (DATA / "truthfulqa.jsonl").read_text().splitlines()]
    tuned = [
        {"prompt": f"Q: {row['prompt']}\nA: {row['response']}\n{asked}:", "completion": " yes" if row[name] else " no"}
        for row in rows[:3]
        for asked, name in (("True", "truthful"), ("Helpful", "informative"))
    ]
    again = load_preferences(write(tmp_path / "t.jsonl", tuned), source="truthfulqa", console=quiet())
    assert again["train"].to_list() == splits["train"].to_list()
    consistent = load_preferences(
        DATA / "truthfulqa.jsonl", source="truthfulqa", console=quiet(), pairing="consistent"
    )
    # "I would rather not say" is truer than the wrong answer but tells less, and the other way round
    assert {(r["attribute"], r["rejected"][0]["content"][:2]) for r in consistent["train"]} == {
        ("truthful", "Ye"),
        ("informative", "I "),
    }
    assert len(consistent["train"]) == 2


def test_tmu_as_published_and_renamed(tmp_path: Path) -> None:
    published = load_preferences(DATA / "tmu_gfm.csv", source="tmu_gfm", console=quiet())["train"].to_list()
    found = [(row["attribute"], row["chosen"][0]["content"][:7]) for row in published]
    assert found[0] == ("grammar", "He goes") and ("meaning", "He goes") in found
    assert "He go to school by foots ." in published[0]["prompt"][0]["content"]
    table = pd.read_csv(DATA / "tmu_gfm.csv")
    renamed = [
        {"prompt": r.source, "response": r.output, "grammar": r.ave_g, "fluency": r.ave_f, "meaning": r.ave_m}
        for r in table.itertuples()
    ]
    path = write(tmp_path / "t.jsonl", renamed)
    assert load_preferences(path, source="tmu_gfm", console=quiet())["train"].to_list() == published
    plain = load_preferences(path, source="tmu_gfm", console=quiet(), task="{sentence}")["train"][0]
    assert plain["prompt"] == say("user", "He go to school by foots .")
    with pytest.raises(ValueError, match="`task` must say where the sentence goes"):
        load_preferences(path, source="tmu_gfm", console=quiet(), task="Correct it.")


def test_the_check_knows_the_limits_of_the_model_and_the_end_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    model = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 12, "n_embd": 8, "n_layer": 1, "n_head": 1}
    (tmp_path / "model" / "config.json").write_text(json.dumps(model))
    rows = make_rows(3)
    rows[1]["chosen"] = " ".join(["tea"] * 20)
    path = write(tmp_path / "pairs.jsonl", rows)
    report, _ = checked(path, "--model_name_or_path", str(tmp_path / "model"))
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("too_long", (1,))]
    tokenizer.eos_token = None
    assert [problem.rule for problem in check_preferences(rows, tokenizer=tokenizer).refused] == ["no_end_token"]
