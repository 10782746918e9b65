"""Own data: pairs from ratings, pairs from files, mixtures, and division by prompt."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_rows
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fairpo_trl.preferences import check_preferences, load_preferences, mix, pairs_from_ratings, split_by_prompt


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def ratings() -> pd.DataFrame:
    """Two prompts with three responses, one with one; `kind` misses a rating."""
    return pd.DataFrame(
        {
            "prompt": ["p", "p", "p", "q", "q", "q", "r"],
            "response": ["p1", "p2", "p3", "q1", "q2", "q3", "r1"],
            "clear": [1, 2, 4, 3, 3, 3, 5],
            "kind": [5.0, 4.5, 1.0, np.nan, 2.0, 4.0, 1.0],
        }
    )


def compared(rows: list[dict]) -> list[tuple[str, str, str]]:
    return [(row["attribute"], row["chosen"], row["rejected"]) for row in rows]


# ---- ratings ----


def test_every_pair_with_different_ratings_by_hand():
    converted = pairs_from_ratings(ratings(), ["clear", "kind"])
    assert compared(converted.rows) == [
        ("clear", "p2", "p1"),
        ("clear", "p3", "p1"),
        ("clear", "p3", "p2"),
        ("kind", "p1", "p2"),
        ("kind", "p1", "p3"),
        ("kind", "p2", "p3"),
        ("kind", "q3", "q2"),
    ]
    assert converted.rows[0] == {"id": "1-0", "prompt": "p", "chosen": "p2", "rejected": "p1", "attribute": "clear"}
    assert converted.dropped_by_attribute == {
        "clear": {"equal": 3, "single_response": 1},
        "kind": {"no_score": 1, "single_response": 1},
    }


def test_margin_and_limit_per_prompt_by_hand():
    for seed in range(8):
        converted = pairs_from_ratings(ratings(), ["clear", "kind"], min_margin=1.5, max_pairs_per_prompt=1, seed=seed)
        assert compared(converted.rows) == [("clear", "p3", "p1"), ("kind", "p1", "p3"), ("kind", "q3", "q2")]
    assert converted.dropped_by_attribute["clear"] == {
        "below_margin": 1,
        "equal": 3,
        "over_limit": 1,
        "single_response": 1,
    }
    assert converted.summary().to_dict("index")["kind"] == {
        "pairs": 2,
        "prompts": 2,
        "below_margin": 1,
        "equal": 0,
        "no_score": 1,
        "over_limit": 1,
        "single_response": 1,
    }


def test_a_seed_chooses_among_equal_margins():
    frame = pd.DataFrame({"prompt": ["p"] * 6, "response": list("abcdef"), "good": [1, 1, 1, 2, 2, 2]})
    chosen = [compared(pairs_from_ratings(frame, ["good"], max_pairs_per_prompt=1, seed=s).rows) for s in range(20)]
    assert len({str(pair) for pair in chosen}) > 5
    assert chosen[3] == compared(pairs_from_ratings(frame, ["good"], max_pairs_per_prompt=1, seed=3).rows)


def test_own_ids_and_messages_are_kept():
    frame = pd.DataFrame(
        {
            "id": ["x", "y"],
            "prompt": [[{"role": "user", "content": "p"}]] * 2,
            "response": ["one", [{"role": "assistant", "content": "two"}]],
            "good": [True, False],
        }
    )
    assert pairs_from_ratings(frame, ["good"]).rows == [
        {
            "id": "x-y",
            "prompt": [{"role": "user", "content": "p"}],
            "chosen": [{"role": "assistant", "content": "one"}],
            "rejected": [{"role": "assistant", "content": "two"}],
            "attribute": "good",
        }
    ]


def with_(row: int, column: str, value: Any) -> pd.DataFrame:
    frame = ratings().astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (ratings(), {"attributes": ["clear", "knd"]}, r"lacks column 'knd'.*did you mean 'kind'"),
        (ratings().rename(columns={"prompt": "promt"}), {}, r"lacks column 'prompt'.*did you mean 'promt'"),
        (with_(2, "clear", "good"), {}, r"of 'clear' must be finite numbers, but row 2 holds .*\('good' in row 2\)"),
        (with_(2, "clear", "4"), {}, r"'4' in row 2"),
        (with_(4, "kind", np.inf), {}, r"inf in row 4"),
        (with_(4, "kind", 10**400), {}, r"in row 4"),
        (with_(4, "kind", [1]), {}, r"\[1\] in row 4"),
        (with_(3, "response", " "), {}, "Row 3: column 'response' has no text"),
        (with_(0, "prompt", None), {}, "Row 0: column 'prompt' has no text"),
        (with_(0, "prompt", 7), {}, "Row 0: column 'prompt' has no text"),
        (with_(5, "response", "q1 "), {}, r"Row 5: the same response.*\(row 5 as row 3\)"),
        (with_(2, "prompt", [{"content": "p"}]), {}, r"text in some rows and messages in others \(row 2\)"),
        (with_(2, "response", [{"content": "p"}]), {}, r"prompts are text, but the response is not in row 2"),
        (ratings(), {"missing": "raise"}, "Row 3: no rating of 'kind'"),
        (ratings(), {"ties": "raise"}, "Equal ratings of 'clear' for the same prompt among rows 3, 4, 5"),
        (ratings(), {"ties": "skip"}, "`ties` must be 'drop' or 'raise', got 'skip'"),
        (ratings(), {"min_margin": float("nan")}, "`min_margin` must be 0 or more"),
        (ratings(), {"max_pairs_per_prompt": 0}, "pairs per prompt must be 1 or more"),
        (ratings(), {"attributes": "clear"}, "must list the rating columns, got 'clear'"),
        (ratings(), {"attributes": []}, "must list the rating columns"),
        (ratings(), {"attributes": ["kind", "kind"]}, "may be named once"),
        (ratings(), {"min_margin": 3.5}, r"ratings of 'clear' give no pair \(.*below_margin 3"),
        (ratings().iloc[:0], {}, "has no rows"),
        (ratings().rename(columns={"clear": "kind"}), {"attributes": ["kind"]}, "'kind' more than once"),
    ],
)
def test_what_is_wrong_with_ratings_is_named(frame: pd.DataFrame, options: dict, message: str):
    options = {"attributes": ["clear", "kind"], **options}
    with pytest.raises(ValueError, match=message):
        pairs_from_ratings(frame, **options)


@given(
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.none() | st.integers(-3, 3) | st.floats(-3, 3), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.none() | st.integers(1, 3),
)
@settings(deadline=None)
def test_every_pair_is_ordered_by_its_ratings_with_the_margin(table: list, margin: float, limit: int | None):
    frame = pd.DataFrame(
        [(prompt, f"response {i}", a, b) for i, (prompt, a, b) in enumerate(table)],
        columns=["prompt", "response", "a", "b"],
    )
    try:
        converted = pairs_from_ratings(frame, ["a", "b"], min_margin=margin, max_pairs_per_prompt=limit)
    except ValueError as error:
        assert "give no pair" in str(error)
        return
    score = {(name, row["response"]): row[name] for row in frame.to_dict("records") for name in "ab"}
    prompt_of = dict(zip(frame["response"], frame["prompt"], strict=True))
    for row in converted.rows:
        assert prompt_of[row["chosen"]] == prompt_of[row["rejected"]] == row["prompt"]
        difference = score[row["attribute"], row["chosen"]] - score[row["attribute"], row["rejected"]]
        assert difference > 0 and difference >= margin - 1e-6
    kept = Counter((row["attribute"], row["prompt"]) for row in converted.rows)
    assert limit is None or max(kept.values()) <= limit
    sizes = Counter(prompt for prompt, _, b in table)
    possible = sum(n * (n - 1) // 2 for n in sizes.values())
    b = converted.dropped_by_attribute.get("b", Counter())
    counted = sum(row["attribute"] == "b" for row in converted.rows) + b["equal"] + b["below_margin"] + b["over_limit"]
    assert counted == possible  # `b` has no missing value: every possible pair is accounted for


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_ratings_from_every_kind_of_file_give_the_same_pairs(suffix: str, tmp_path: Path):
    frame, path = ratings(), tmp_path / f"ratings{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        Dataset.from_pandas(frame).save_to_disk(path)
    console = quiet()
    loaded = load_preferences(path, ratings=["clear", "kind"], min_margin=1, console=console)
    assert loaded["train"].to_list() == pairs_from_ratings(ratings(), ["clear", "kind"], min_margin=1).rows
    assert f"ratings{suffix}, train: 6 pairs (clear 3, kind 3)" in console.file.getvalue()
    assert "dropped 1 responses without a score (no_score)" in console.file.getvalue()
    with pytest.raises(ValueError, match=r"option of ratings: 'max_pairs'.*did you mean 'max_pairs_per_prompt'"):
        load_preferences(path, ratings=["clear"], max_pairs=1, console=quiet())


def test_a_split_column_divides_ratings_and_rows_keep_their_number(tmp_path: Path):
    frame = ratings().assign(split=["train"] * 3 + ["test"] * 3 + ["train"])
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    loaded = load_preferences(tmp_path / "ratings.csv", ratings=["kind"], console=quiet())
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3, "test": 1}
    frame.loc[4, "response"] = "q1"
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    with pytest.raises(ValueError, match="row 4 as row 3"):
        load_preferences(tmp_path / "ratings.csv", ratings=["kind"], console=quiet())


def test_a_csv_keeps_text_that_looks_like_a_number_or_like_nothing(tmp_path: Path):
    (tmp_path / "r.csv").write_text("prompt,response,good\n2+2?,4,1\n2+2?,None,0\n2+2?,007,2\n", encoding="utf-8")
    loaded = load_preferences(tmp_path / "r.csv", ratings=["good"], console=quiet())
    assert loaded["train"]["chosen"][:] == ["4", "007", "007"]
    assert loaded["train"]["rejected"][:] == ["None", "4", "None"]
    (tmp_path / "r.csv").write_text("prompt,response,good\np,a,1\np,b,N/A\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'N/A' in row 1.*a missing rating is an empty cell"):
        load_preferences(tmp_path / "r.csv", ratings=["good"], console=quiet())


# ---- own pairs ----


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    else:
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_own_pairs_come_as_they_are(suffix: str, tmp_path: Path):
    console = quiet()
    loaded = load_preferences(write(tmp_path / f"pairs{suffix}", make_rows(9)), console=console)
    assert loaded["train"].to_list() == make_rows(9)
    assert f"pairs{suffix}: train 9 pairs (concise 3, polite 3, factual 3)" in console.file.getvalue()


def test_own_pairs_of_some_attributes_under_another_column_name(tmp_path: Path):
    rows = [{**row, "aspect": [row.pop("attribute"), "all"]} for row in make_rows(6)]
    path = write(tmp_path / "pairs.jsonl", rows)
    loaded = load_preferences(path, attribute_column="aspect", attributes=["polite", "all"], console=quiet())
    assert loaded["train"].to_list() == [rows[1], rows[4]]


def pair(index: int, **values: Any) -> list[dict]:
    rows = make_rows(6)
    rows[index] |= values
    return rows


def renamed(column: str, name: str) -> list[dict]:
    return [{name if key == column else key: value for key, value in row.items()} for row in make_rows(3)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (renamed("attribute", "atribute"), "lacks column 'attribute'.*'atribute'"),
        (renamed("chosen", "choosen"), "lacks column 'chosen'.*'choosen'"),
        (pair(2, chosen=" "), "Row 2 of the pairs.jsonl data have an empty completion"),
        (pair(2, prompt=""), "Row 2 of the pairs.jsonl data have no prompt"),
        (pair(2, prompt=None), "Row 2 of the pairs.jsonl data have no prompt"),
        (pair(4, chosen="same", rejected="same"), "Row 4 of the pairs.jsonl data have identical completions"),
        (pair(3, attribute=None), "names no attribute in row 3"),
        (pair(1, chosen=[{"role": "assistant", "content": "x"}]), "In row 1 .* not all text or all messages"),
        (pair(1, prompt=5), "Row 1 .* 'prompt' is neither text nor a list of messages, but 5"),
        ([{"prompt": "p", "response": "r", "good": 1}], r"holds responses, not pairs.*ratings=\['good'\]"),
        ([{"chosen": "x", "rejected": "y"}], "looks like hh-rlhf: pass `--dataset_source hh_rlhf.*source='hh_rlhf'"),
        ([], "pairs.jsonl has no rows"),
    ],
)
def test_what_is_wrong_with_own_pairs_is_named(rows: list[dict], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        load_preferences(write(tmp_path / "pairs.jsonl", rows), console=quiet())


def test_repeated_pairs_are_named_by_the_loader_and_the_check_and_refused_by_neither(tmp_path: Path):
    rows, console = pair(5, **make_rows(6)[1]), quiet()
    loaded = load_preferences(write(tmp_path / "pairs.jsonl", rows), console=console)
    assert len(loaded["train"]) == 6
    assert "Row 5 of the pairs.jsonl data repeat an earlier pair: they weigh twice." in console.file.getvalue()
    report = check_preferences(rows)
    assert report.duplicates == {"train": (5,)} and report.refused == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.jsonl", '{"prompt": 1}\n{"prompt"', "pairs.jsonl, line 2 is not JSON"),
        ("pairs.json", '{"prompt": 1}', "must hold a list of rows, or end with .jsonl"),
        ("pairs.json", "[1]", "row 0 is no JSON object"),
        ("pairs.txt", "x", r"pairs.txt: unknown file type '.txt'.*'\.csv'"),
        ("pairs.csv", "", "pairs.csv cannot be read as CSV"),
        ("pairs.csv", "prompt,chosen\n", "pairs.csv has no rows"),
        ("pairs.jsonl", '{"prompt": "p", "split": "train"}\n{"prompt": "q"}', "some rows have no split"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_preferences(tmp_path / name, console=quiet())


def test_options_that_do_not_go_together(tmp_path: Path):
    path = write(tmp_path / "pairs.jsonl", make_rows(3))
    with pytest.raises(ValueError, match="Own pairs take no 'min_margin'"):
        load_preferences(path, min_margin=1, console=quiet())
    with pytest.raises(ValueError, match="`ratings` are for own data"):
        load_preferences(path, source="multipref", ratings=["x"], console=quiet())
    rows = [{**row, "split": split} for row, split in zip(make_rows(3), ("train", "train", "test"), strict=True)]
    path = write(tmp_path / "divided.jsonl", rows)
    with pytest.raises(ValueError, match="has a split 'test' already"):
        load_preferences(path, test_share=0.5, console=quiet())


# ---- mixtures ----


def without_attribute(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "attribute"} for row in rows]


def test_a_mixture_names_each_source(tmp_path: Path):
    first = write(tmp_path / "a.jsonl", without_attribute(make_rows(3)))
    second = write(tmp_path / "b.parquet", [{**row, "id": i} for i, row in enumerate(without_attribute(make_rows(2)))])
    console = quiet()
    mixed = mix({"helpful": first, "kind": second}, console=console)
    expected = [{**row, "attribute": "helpful"} for row in make_rows(3)]
    assert mixed["train"].to_list() == [*expected, *({**row, "attribute": "kind"} for row in make_rows(2))]
    assert "Mixture: train 5 pairs (helpful 3, kind 2)" in console.file.getvalue()


def test_sources_that_do_not_mix(tmp_path: Path):
    plain = write(tmp_path / "plain.jsonl", without_attribute(make_rows(3)))
    named = write(tmp_path / "named.jsonl", make_rows(3))
    divided = write(tmp_path / "divided.jsonl", [{**row, "split": "test"} for row in without_attribute(make_rows(3))])
    chat = write(
        tmp_path / "chat.jsonl",
        [
            {name: [{"role": role, "content": row[name]}] for name, role in zip(row, "uaa", strict=True)}
            for row in without_attribute(make_rows(3))
        ],
    )
    for sources, message in (
        ({"a": plain}, "takes two sources or more"),
        ({"a": plain, "b": named}, "named.jsonl has a column 'attribute' already"),
        ({"a": plain, "b": divided}, "source of 'a' has no split 'test'"),
        ({"a": plain, "b": chat}, "sources of 'a' and 'b' have different formats"),
        ({"a": plain, " ": plain}, "named after its attribute, got ' '"),
    ):
        with pytest.raises(ValueError, match=message):
            mix(sources, console=quiet())
    with pytest.raises(FileNotFoundError, match="no file or folder 'nowhere'"):
        mix({"a": plain, "b": "nowhere"}, console=quiet())


# ---- splits ----


def test_no_prompt_is_on_both_sides():
    rows = [{"prompt": f"{'  ' * k}Prompt {i}" if k else f"prompt {i}", "n": i} for k in range(3) for i in range(10)]
    first, second = split_by_prompt(rows, 0.3, seed=1)
    assert len(second) == 9 and len(first) == 21
    assert not {row["n"] for row in first} & {row["n"] for row in second}
    as_data = split_by_prompt(Dataset.from_list(rows), 0.3, seed=1)
    assert [part.to_list() for part in as_data] == [first, second]
    assert split_by_prompt(rows, 0.3, seed=2) != (first, second)
    assert split_by_prompt(list(reversed(rows)), 0.3, seed=1)[1] == list(reversed(second))  # whatever the order


def test_at_least_one_prompt_goes_to_each_side():
    rows = [{"prompt": text} for text in "ab"]
    assert [len(part) for part in split_by_prompt(rows, 0.01)] == [1, 1]
    assert [len(part) for part in split_by_prompt(rows, 0.99)] == [1, 1]
    with pytest.raises(ValueError, match="1 different prompts: to divide by prompt takes two"):
        split_by_prompt([{"prompt": "A"}, {"prompt": "a "}], 0.5)
    with pytest.raises(ValueError, match="`share` must be between 0 and 1, got 1"):
        split_by_prompt(rows, 1)
