"""The check of preference data: every number by hand, the trainer's rules, the terminal and the plot."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_rows, make_tokenizer
from datasets import Dataset, DatasetDict
from matplotlib.image import imread
from rich.console import Console

from fairpo_trl.generation.data_check import prepare_rows
from fairpo_trl.preferences import check_preferences, load_preferences, plot_conflicts, print_report
from fairpo_trl.preferences.rules import find_problems


def row(prompt: str, chosen: str, rejected: str, attribute: str | list[str]) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "attribute": attribute}


JUDGED = [
    row("p1", "xx", "y", "a"),
    row("p2", "xx", "y", "a"),
    row("p3", "xx", "y", "a"),
    row("p5", "xx", "y", "a"),
    row("p5", "y", "zzz", "a"),
    row("p1", "y", "xx", "b"),  # the reverse of a's pair
    row("p2", "xx", "y", "b"),  # the same pair
    row("p3", "y", "zzz", "b"),  # y is rejected for a, but xx over y over zzz satisfies both
    row("p5", "y", "w", "b"),  # w is not in a's ranking
    row("p6", "xx", "y", "a"),
    row("p6", "y", "zzz", "a"),
    row("p6", "zzz", "xx", "b"),  # the reverse of what follows from a's two pairs
    row("p1", "u", "v", "c"),  # other responses
    row("p9", "u", "u2", "c"),
]


def printed(report, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    return console.file.getvalue()


def test_counts_per_attribute_split_and_role():
    data = DatasetDict(
        {
            "train": Dataset.from_list([*JUDGED[:3], *JUDGED[5:7]]),
            "test": Dataset.from_list([row("p7", "x", "y", "b"), row("p7", "x", "y2", "b")]),
        }
    )
    report = check_preferences(data, privileged=["b"])
    assert report.splits == {"train": 5, "test": 2}
    assert [(a.name, a.role, a.pairs, a.prompts) for a in report.attributes] == [
        ("a", "non_privileged", {"train": 3}, 3),
        ("b", "privileged", {"train": 2, "test": 2}, 3),
    ]
    assert report.roles == {"non_privileged": 3, "privileged": 4}
    assert check_preferences(data).roles == {} and check_preferences(data).attributes[0].role is None
    assert report.refused == () and report.overlaps == () and report.duplicates == {} and report.lengths is None


def test_a_pair_of_several_attributes_counts_for_each_and_once_per_role():
    rows = [row("p", "x", "y", ["a", "b", "a"]), row("q", "x", "y", ["b", "c"])]
    report = check_preferences(rows, privileged=["a"])
    assert {a.name: a.pairs["train"] for a in report.attributes} == {"a": 1, "b": 2, "c": 1}
    assert report.roles == {"privileged": 1, "non_privileged": 2}


def test_conflicts_by_hand():
    report = check_preferences(JUDGED)
    found = [(c.first, c.second, c.shared, c.comparable, c.disagree, c.exact_reverses) for c in report.conflicts]
    assert found == [("a", "b", 5, 3, 2, 1), ("a", "c", 1, 0, 0, 0), ("b", "c", 1, 0, 0, 0)]
    np.testing.assert_array_equal(
        report.conflict_matrix(), [[np.nan, 2 / 3, np.nan], [2 / 3, np.nan, np.nan], [np.nan] * 3]
    )


def test_conversational_pairs_conflict_like_plain_ones():
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    chat = [pair | {name: [{"role": role, "content": pair[name]}] for name, role in roles.items()} for pair in JUDGED]
    assert check_preferences(Dataset.from_list(chat)) == check_preferences(JUDGED)


def test_an_attribute_that_contradicts_itself():
    rows = [row("p", "x", "y", "a"), row("P ", "y", "x", "a"), row("q", "x", "y", "a")]
    report = check_preferences(rows)
    assert report.attributes[0].reversed_prompts == 1
    assert "'a' prefers x to y and y to x on 1 prompts" in printed(report)


def test_length_bias_by_hand():
    a, b, _ = check_preferences(JUDGED).attributes
    assert a.chosen_longer == 5 / 7  # xx over y five times, y over zzz twice
    assert a.chosen_length == 12 / 7 and a.rejected_length == 11 / 7
    assert b.chosen_longer == 2.5 / 5  # y < xx, xx > y, y < zzz, y = w, zzz > xx
    text = printed(check_preferences(JUDGED))
    assert "the chosen response of 'a' is the longer one in 71 % of pairs" in text
    assert "'b' is the" not in text


def test_repeats_and_leaks_are_named():
    train = [row("p", "x", "y", "a"), row("q", "x", "y", "a"), row("p", "x", "y", "a"), row("p", "x", "y", "b")]
    test = [row("  P", "x", "z", "a"), row("p", "z", "y", "a"), row("r", "x", "y", "a")]
    report = check_preferences({"train": train, "test": test})
    assert report.duplicates == {"train": (2,)}
    (overlap,) = report.overlaps
    assert (overlap.first, overlap.second, overlap.prompts, overlap.pairs) == ("train", "test", 1, 2)
    assert overlap.example == "p"
    text = printed(report)
    assert "row 2 of train repeat an earlier row" in text
    assert "1 prompts of train are in test too (2 of its pairs), for example: 'p'" in text


# ---- tokens ----


def test_tokens_and_cuts_by_hand():
    tokenizer = make_tokenizer()
    rows = [
        row("the cat ", "sea moon tea", "warm", "a"),  # 2 + 3 + eos
        row("the cat ", "warm", "cold <eos>", "a"),  # 2 + 1 + eos
        row("the big red cat sleep ", "tea", "sea tea", "b"),  # 5 + 2 + eos
    ]
    report = check_preferences(rows, tokenizer=tokenizer, max_length=5)
    measured = report.lengths
    assert (measured.median, measured.p95, measured.longest) == (6, 8, 8)
    assert measured.cut == {"a": 1, "b": 1} and measured.pairs == {"a": 2, "b": 1}
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("prompt_fills_max_length", (2,))]
    assert "prompt alone fills max_length=5 (the longest has 5 tokens)" in report.refused[0].message
    assert "Cut at 5: a 1 (50 %), b 1 (100 %)" in printed(report, 200)
    without_limit = check_preferences(rows, tokenizer=tokenizer)
    assert without_limit.lengths.longest == 8 and set(without_limit.lengths.cut.values()) == {0}
    assert without_limit.refused == ()


def test_conversational_pairs_are_measured_with_the_chat_template():
    rows = [
        {
            "prompt": [{"role": "user", "content": "the cat"}],
            "chosen": [{"role": "assistant", "content": "sea moon"}],
            "rejected": [{"role": "assistant", "content": "tea"}],
            "attribute": "a",
        }
    ]
    report = check_preferences(rows, tokenizer=make_tokenizer(), max_length=6)
    # <|user|> the cat <eos> <|assistant|> sea moon <eos>; the prompt alone ends with <|assistant|>
    assert report.lengths.longest == 8 and report.lengths.cut == {"a": 1} and report.refused == ()
    assert check_preferences(rows, tokenizer=make_tokenizer(), max_length=5).refused[0].rows == (0,)


def test_lengths_agree_with_the_tokens_that_the_trainer_makes(tmp_path: Path):
    from helpers_trainer import fairpo

    rows = make_rows(12)
    trainer = fairpo(tmp_path, Dataset.from_list(rows))
    tokens = [
        len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))
        for example in trainer.train_dataset
    ]
    lengths = check_preferences(rows, tokenizer=make_tokenizer()).lengths
    assert lengths.longest == max(tokens) and lengths.median == sorted(tokens)[6]


# ---- what the trainer refuses ----


def changed(index: int, **values) -> list[dict]:
    rows = make_rows(6)
    rows[index] |= values
    return rows


def without(column: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key != column} for row in make_rows(3)]


@pytest.mark.parametrize(
    ("rows", "rules"),
    [
        (make_rows(6), []),
        ([{**row, "attribute": ["polite", "concise"]} for row in make_rows(3)], []),
        (changed(3, attribute=""), ["malformed_attribute"]),
        (changed(3, attribute=None), ["malformed_attribute"]),
        (changed(2, chosen="  "), ["empty_completion"]),
        (changed(2, rejected=None), ["empty_completion"]),
        (changed(4, chosen="a cat", rejected="a cat"), ["identical_completions"]),
        ([{**row, "images": 0} for row in make_rows(2)], ["vision"]),
        (without("attribute"), ["missing_column"]),
        (without("rejected"), ["missing_column"]),
        ([{**row, "attribute": "funny"} for row in make_rows(2)], ["unknown_attribute"]),
    ],
)
def test_the_rules_are_those_of_the_trainer(rows: list[dict], rules: list[str]):
    names = ("concise", "polite", "factual")
    data = Dataset.from_list(rows)
    problems, counts = find_problems(data, data.column_names, "train", "attribute", names)
    assert [problem.rule for problem in problems] == rules
    if rules:
        with pytest.raises(ValueError) as error:
            prepare_rows(data, "train", "attribute", names)
        assert str(error.value) == problems[0].message
    else:
        assert prepare_rows(data, "train", "attribute", names)[1] == counts


def test_everything_refused_is_reported_and_counts_nowhere_else():
    rows = make_rows(9)
    rows[1]["attribute"] = " "
    rows[2]["chosen"] = ""
    rows[4]["rejected"] = rows[4]["chosen"]
    report = check_preferences(rows)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [
        ("malformed_attribute", (1,)),
        ("empty_completion", (2,)),
        ("identical_completions", (4,)),
    ]
    assert {a.name: a.pairs["train"] for a in report.attributes} == {"concise": 3, "factual": 2, "polite": 1}
    text = printed(report, 250)
    assert "Refused by the trainer: Row 2 of the train data have an empty completion" in text
    assert "would accept" not in text


def test_a_split_that_cannot_be_used_leaves_the_others():
    report = check_preferences({"train": make_rows(3), "test": without("chosen"), "empty": []})
    assert [problem.rule for problem in report.refused if "test data" in problem.message] == ["missing_column"]
    assert "The empty data has no column 'attribute'" in " ".join(problem.message for problem in report.refused)
    assert [a.pairs for a in report.attributes] == [{"train": 1}] * 3


def test_prompts_and_responses_of_different_formats_are_refused_with_a_tokenizer():
    rows = [row("the cat ", "sea", "tea", "a"), row("the cat ", [{"role": "assistant", "content": "x"}], "y", "a")]
    report = check_preferences(rows, tokenizer=make_tokenizer(), max_length=9)
    assert [(problem.rule, problem.rows) for problem in report.refused] == [("mixed_format", (1,))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privileged": ["polit"]}, r"'polit' \(did you mean 'polite'\?\)"),
        ({"privileged": "polite"}, "must be a list of names, got the string 'polite'"),
        ({"max_length": 5}, "`max_length` needs a tokenizer"),
        ({"attribute_column": "aspect"}, None),
    ],
)
def test_options_that_are_wrong(options: dict, message: str | None):
    if message is None:  # a finding, not an error
        assert check_preferences(make_rows(3), **options).refused[0].rule == "missing_column"
        return
    with pytest.raises(ValueError, match=message):
        check_preferences(make_rows(3), **options)


def test_no_split_is_an_error():
    with pytest.raises(ValueError, match="There is no split to check"):
        check_preferences({})


# ---- what is shown ----


def test_the_report_fits_a_terminal_and_json():
    report = check_preferences(JUDGED, privileged=["a"])
    text = printed(report, 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in ("Pairs: train 14; privileged 7; held 7", "2 (.67)", "As text, the trainer would accept these pairs."):
        assert part in text
    data = json.loads(json.dumps(report.to_dict()))
    assert data["conflicts"][0]["share"] == 2 / 3 and data["attributes"][0]["pairs"] == {"train": 7}
    assert data["conflicts"][1]["share"] is None


def test_a_conflict_on_most_prompts_says_what_can_be_done():
    text = " ".join(printed(check_preferences(JUDGED), 80).split())
    assert "'a' and 'b' on 67 % of the prompts that both rank" in text and "`--pairing consistent`" in text
    agreeing = [row(f"p{i}", "x", "y", name) for i in range(3) for name in ("a", "b")]
    assert "no model can please" not in printed(check_preferences(agreeing), 80)


def test_of_many_attributes_the_largest_are_shown():
    rows = [row(f"p{i}", "x", "y", f"a{k}") for k in range(30) for i in range(1 + (k > 5))]
    report = check_preferences(rows)
    narrow = printed(report, 80)
    assert "…" not in narrow and narrow.count(".00") >= 24 * 23, "every share of the matrix, in several tables"
    text = printed(report, 250)
    assert "Conflicts: the 24 largest of 435" in text
    assert "\n 24 a29 " in text and "\n 1 a6 " in text  # the first six have the fewest pairs


def test_the_plot_shows_every_attribute(tmp_path: Path):
    path = plot_conflicts(check_preferences(JUDGED), tmp_path / "plots" / "conflicts.png")
    small = imread(path).shape
    more = [row("p", "x", "y", f"attribute $ {k}") for k in range(8)]
    large = imread(plot_conflicts(check_preferences(more), tmp_path / "more.png")).shape
    assert small[0] > 400 and large[0] > 1.5 * small[0]
    with pytest.raises(ValueError, match="No two attributes rank the same responses"):
        plot_conflicts(check_preferences([row("p", "x", "y", "a"), row("p", "x", "z", "b")]), tmp_path / "none.png")


def test_published_data_can_be_checked_after_loading():
    path = Path(__file__).parents[1] / "data" / "safe_rlhf.jsonl"
    data = load_preferences(path, source="safe_rlhf", console=Console(file=io.StringIO()))
    report = check_preferences(data, privileged=["helpfulness"])
    (conflict,) = report.conflicts
    assert (conflict.shared, conflict.disagree, conflict.exact_reverses) == (2, 1, 1)
    assert report.roles == {"privileged": 3, "non_privileged": 2}


def test_preference_data_needs_neither_torch_nor_a_trainer():
    package = Path(__file__).parents[2] / "fairpo_trl" / "preferences"
    allowed = {*sys.stdlib_module_names, "datasets", "matplotlib", "numpy", "pandas", "pyarrow", "rich"}
    inside = (
        "fairpo_trl.preferences",
        "fairpo_trl.tables",
        "fairpo_trl.data_folder",
        "fairpo_trl.core.messages",
        "fairpo_trl.core.options",
        "fairpo_trl.lazy",
        "fairpo_trl.reporting",
    )
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in allowed or name.startswith(inside), f"{path.name} imports {name}"
