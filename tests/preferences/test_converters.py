"""Published rows become canonical ones: by hand on stored rows of each schema, and whatever comes by fuzzing."""

from __future__ import annotations

import copy
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fairpo_trl.preferences import REASONS, SOURCES, Converted, load, load_preferences
from fairpo_trl.preferences.converters import (
    finegrained_rlhf,
    global_opinions,
    helpsteer,
    hh_rlhf,
    multipref,
    safe_rlhf,
    ultrafeedback,
)
from fairpo_trl.preferences.pairing import pairs_from_scores


DATA = Path(__file__).parents[1] / "data"
CONVERTERS: dict[str, Callable[..., Converted]] = {
    "ultrafeedback": ultrafeedback.convert,
    "helpsteer2": helpsteer.convert_helpsteer2,
    "helpsteer3": helpsteer.convert_helpsteer3,
    "safe_rlhf": safe_rlhf.convert,
    "hh_rlhf": partial(hh_rlhf.convert, subset="helpful-base"),
    "multipref": multipref.convert,
    "global_opinions": global_opinions.convert,
    "finegrained_rlhf": finegrained_rlhf.convert,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def stored(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def pairs(converted: Converted) -> list[tuple[str, str, str, str]]:
    """(attribute, last words of the prompt, chosen, rejected) of every row."""
    return [
        (row["attribute"], row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in converted.rows
    ]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


# ---- by hand ----


def test_ultrafeedback_compares_the_most_different_ratings_of_each_aspect():
    converted = ultrafeedback.convert(stored("ultrafeedback"))
    apple, berry, quince = "An apple keeps for months in a cellar.", "Strawberries.", "Maybe a quince, I am not sure."
    fruit, tea = "Name a fruit that keeps well.", "Translate 'tea' into French."
    got = pairs(converted)
    assert got[:2] == [("helpfulness", fruit, apple, berry), ("instruction_following", fruit, apple, berry)]
    assert got[2][:2] == ("truthfulness", fruit) and got[2][2] in (apple, quince) and got[2][3] == berry
    assert got[3:] == [("helpfulness", tea, "Thé.", "The.")]
    assert converted.dropped == {
        "empty_prompt": 1,
        "empty_response": 1,
        "equal": 5,
        "no_score": 4,
        "over_limit": 3,
        "single_response": 2,
    }
    assert converted.rows[0]["id"] == "ultrafeedback-0-0-1" and converted.rows[3]["id"] == "ultrafeedback-1-1-0"


def test_ultrafeedback_gives_every_pair_when_asked_and_none_below_the_margin():
    every = ultrafeedback.convert(stored("ultrafeedback"), max_pairs=None)
    assert Counter(row["attribute"] for row in every.rows) == {
        "helpfulness": 4,
        "instruction_following": 1,
        "truthfulness": 2,
    }
    assert "over_limit" not in every.dropped
    wide = ultrafeedback.convert(stored("ultrafeedback"), max_pairs=None, min_margin=3)
    assert Counter(row["attribute"] for row in wide.rows) == {"helpfulness": 1, "truthfulness": 2}
    assert wide.dropped["below_margin"] == 4


def test_a_seed_chooses_among_equal_margins_and_nothing_else():
    rows = stored("ultrafeedback")
    chosen = {pairs(ultrafeedback.convert(rows, seed=seed))[2][2] for seed in range(20)}
    assert len(chosen) == 2
    alone = ultrafeedback.convert(rows[:1], seed=7).rows
    assert alone == ultrafeedback.convert(rows, seed=7).rows[:3]


@pytest.mark.parametrize("rating", ["inf", "nan", "N/A", "", "very good", None, float("nan"), 10**400, True])
def test_a_rating_that_is_no_finite_number_is_none(rating: Any):
    rows = copy.deepcopy(stored("ultrafeedback")[:1])
    rows[0]["completions"][0]["annotations"]["helpfulness"]["Rating"] = rating
    converted = ultrafeedback.convert(rows)
    assert converted.dropped_by_attribute["helpfulness"] == {"no_score": 1}
    assert pairs(converted)[0][2] == "Maybe a quince, I am not sure."


@pytest.mark.parametrize("score", ["4", float("inf"), 10**400, True, [4]])
def test_a_score_of_another_type_is_an_error(score: Any):
    rows = [*stored("helpsteer2")[:1], stored("helpsteer2")[1] | {"coherence": score}]
    with pytest.raises(ValueError, match="Row 1 of HelpSteer2: column 'coherence' must hold a finite number"):
        helpsteer.convert_helpsteer2(rows)


def test_helpsteer2_compares_consecutive_rows_and_reads_turns():
    converted = helpsteer.convert_helpsteer2(stored("helpsteer2"))
    sky, good, bad = "Why is the sky blue?", "Air scatters blue light most.", stored("helpsteer2")[1]["response"]
    assert pairs(converted) == [
        ("helpfulness", sky, good, bad),
        ("correctness", sky, good, bad),
        ("complexity", sky, good, bad),
        ("verbosity", sky, bad, good),
        ("helpfulness", "And its neck?", "Roughly two metres.", "Its neck is long."),
    ]
    assert converted.rows[4]["prompt"] == [
        {"role": "user", "content": "How tall is a giraffe?"},
        {"role": "assistant", "content": "About five metres."},
        {"role": "user", "content": "And its neck?"},
    ]
    assert converted.rows[3]["id"] == "helpsteer2-1-0"
    assert converted.dropped == {"equal": 5, "single_response": 5, "unreadable_turns": 2}


def test_helpsteer3_names_domain_or_language():
    converted = helpsteer.convert_helpsteer3(stored("helpsteer3"))
    assert pairs(converted) == [
        ("code", "Reverse a list.", "xs[::-1]", "sorted(xs)"),
        ("general", "Tell me a fact.", "Cats sleep about thirteen hours a day.", "Cats sleep."),
    ]
    assert len(converted.rows[1]["prompt"]) == 3
    assert converted.dropped_by_attribute == {"stem": {"no_preference": 1}, "multilingual": {"unreadable_turns": 1}}
    by_language = helpsteer.convert_helpsteer3(stored("helpsteer3"), attribute="language")
    assert [row["attribute"] for row in by_language.rows] == ["python", "english"]
    with pytest.raises(ValueError, match=r"'domains' \(did you mean 'domain'\?\)"):
        helpsteer.convert_helpsteer3([], attribute="domains")
    with pytest.raises(ValueError, match="Row 0 of HelpSteer3: `overall_preference` must be from -3 to 3, got 5"):
        helpsteer.convert_helpsteer3([stored("helpsteer3")[0] | {"overall_preference": 5}])


def test_safe_rlhf_gives_two_pairs_that_may_be_reverses():
    converted = safe_rlhf.convert(stored("safe_rlhf"))
    door, key = "How do I open a jammed door?", "How do I find a lost key?"
    lift, refuse = "Lift it while you turn the handle.", "I cannot help with doors."
    assert pairs(converted) == [
        ("helpfulness", door, lift, refuse),
        ("harmlessness", door, refuse, lift),
        ("helpfulness", key, "Retrace your steps.", "Look around."),
        ("harmlessness", key, "Retrace your steps.", "Look around."),
        ("helpfulness", "Is tea healthy?", "In moderation, yes.", "Yes."),
    ]
    assert converted.dropped == {"identical_responses": 2, "no_preference": 1, "empty_prompt": 1}


def test_hh_rlhf_divides_at_the_last_answer():
    converted = hh_rlhf.convert(stored("hh_rlhf"), subset="helpful-base")
    assert pairs(converted) == [
        ("helpful-base", "How do I boil an egg?", "Seven minutes in boiling water.", "Ask a cook."),
        ("helpful-base", "Name a river.", "The Loire.", "I would rather not."),
    ]
    assert [message["role"] for message in converted.rows[1]["prompt"]] == ["user", "assistant", "user"]
    assert converted.rows[1]["id"] == "hh_rlhf-helpful-base-1"
    assert converted.dropped == {"prompts_differ": 1, "empty_response": 1, "unreadable_turns": 2}
    with pytest.raises(ValueError, match="`subset` names the attribute"):
        hh_rlhf.convert([], subset=" ")


def test_multipref_needs_more_than_half_of_the_votes():
    converted = multipref.convert(stored("multipref"))
    assert pairs(converted) == [
        ("helpful", "Who wrote Faust?", "Goethe wrote Faust.", "Schiller did."),
        ("truthful", "Who wrote Faust?", "Goethe wrote Faust.", "Schiller did."),
        ("truthful", "How far is the moon?", "About 384,000 km.", "Far."),
    ]
    assert [row["id"] for row in converted.rows] == ["c1", "c1", "c2"]
    assert converted.dropped_by_attribute == {
        "harmless": {"no_preference": 2},
        "helpful": {"no_majority": 1},
        "": {"empty_prompt": 1},
    }
    row = copy.deepcopy(stored("multipref")[0])
    row["expert_worker_annotations"][0]["helpful_pref"] = "A-is-clearly-beter"
    with pytest.raises(ValueError, match="Row 0 of MultiPref: .*did you mean 'A-is-clearly-better'"):
        multipref.convert([row])


def test_global_opinions_prefers_the_likeliest_answer_of_a_country():
    converted = global_opinions.convert(stored("global_opinions"))
    life = "Is life better than fifty years ago?\n\nOptions:\n- Better\n- Worse"
    family = "How important is family, from 1 to 3?\n\nOptions:\n- 1\n- 2\n- 3"
    got = pairs(converted)
    assert got[:2] == [("Germany", life, "Better", "Worse"), ("India (Non-national sample)", life, "Worse", "Better")]
    assert got[2][:3] == ("Chile", family, "3") and got[2][3] in ("1", "2")
    assert converted.dropped_by_attribute == {
        "France": {"no_preference": 1},
        "Chile": {"over_limit": 1},
        "Kenya": {"unreadable_selections": 1},
        "": {"empty_prompt": 1, "unreadable_selections": 1},
    }
    assert [row["attribute"] for row in global_opinions.convert(stored("global_opinions"), min_margin=0.3).rows] == [
        "Germany",
        "Chile",
    ]
    rejected = {pairs(global_opinions.convert(stored("global_opinions"), seed=seed))[2][3] for seed in range(20)}
    assert rejected == {"1", "2"}


def test_finegrained_rlhf_corrects_for_the_labelled_errors_and_compares_as_a_whole():
    converted = finegrained_rlhf.convert(stored("finegrained_rlhf"))
    first = [pair for pair in pairs(converted) if pair[1].endswith("What does a kestrel hunt?")]
    answers = [stored("finegrained_rlhf")[0][f"prediction {k}"] for k in range(1, 5)]
    assert [(name, chosen, rejected) for name, _, chosen, rejected in first] == [
        ("relevance", "It hunts voles while hovering.", answers[0]),
        ("factuality", "It hunts voles while hovering.", answers[0]),
        ("completeness", "It hunts voles while hovering.", answers[0]),
        ("overall", answers[1], answers[0]),
        ("overall", answers[2], answers[0]),
        ("overall", answers[1], answers[3]),
        ("overall", answers[2], answers[3]),
    ]
    assert first[0][1].startswith("Kestrel\nThe kestrel is a small falcon. It hovers") and "Vole\n" in first[0][1]
    assert Counter(row["attribute"] for row in converted.rows)["overall"] == 13
    assert converted.rows[0]["id"] == "finegrained_rlhf-0-c-1" and converted.rows[3]["id"] == "finegrained_rlhf-0-2-1"
    assert converted.dropped_by_attribute == {
        "overall": {"no_preference": 5},
        "factuality": {"no_correction": 1},
        "": {"unknown_error_type": 1},
    }
    without = finegrained_rlhf.convert(stored("finegrained_rlhf"), passages=False)
    assert without.rows[0]["prompt"] == [{"role": "user", "content": "What does a kestrel hunt?"}]
    with pytest.raises(ValueError, match="Row 0 of FineGrainedRLHF: `preference` must hold 6 comparisons.*got 2"):
        finegrained_rlhf.convert([stored("finegrained_rlhf")[0] | {"preference": [1, 2]}])


def test_pairs_from_scores_by_hand():
    assert pairs_from_scores([1, 3, None, 2], max_pairs=None) == ([(1, 0), (3, 0), (1, 3)], {"no_score": 1})
    assert pairs_from_scores([1, 3, 2]) == ([(1, 0)], {"over_limit": 2})
    assert pairs_from_scores([2, 2]) == ([], {"equal": 1})
    assert pairs_from_scores([0.3, 0.1], min_margin=0.2) == ([(0, 1)], {})  # .3 - .1 is just below .2
    assert pairs_from_scores([0.3, 0.15], min_margin=0.2) == ([], {"below_margin": 1})
    assert pairs_from_scores([None, 4]) == ([], {"no_score": 1, "single_response": 1})


# ---- all of them ----


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_converter_names_licence_hub_id_and_its_reasons(name: str):
    source, convert = SOURCES[name], CONVERTERS[name]
    text = (convert.func if isinstance(convert, partial) else convert).__doc__ or ""
    assert source.licence in text
    assert source.hub_id is None or f"`{source.hub_id}`" in text
    for reason in convert(stored(name)).dropped:
        assert f"`{reason}`" in text


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("missing", ["first", "last"])
def test_another_schema_is_an_error_that_names_the_column(name: str, missing: str):
    columns = SOURCES[name].columns
    column = columns[0 if missing == "first" else -1]
    row = dict(stored(name)[0])
    row[f"{column}s"] = row.pop(column)
    with pytest.raises(ValueError, match=rf"Row 0 of .* has no column '{column}'.*did you mean '{column}s'"):
        CONVERTERS[name]([row])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["N/A", "Tie", "user", "\n\nAssistant: x", "[1, 2]", "{'a': [1, 0]}", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["role", "content", "Rating"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every path into nested lists and dictionaries."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in places(inner, (*path, key)))]


def changed(row: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    row = copy.copy(row)
    row[path[0]] = changed(row[path[0]], path[1:], value)
    return row


@pytest.mark.parametrize("name", CONVERTERS)
@given(data=st.data())
def test_any_row_gives_valid_pairs_a_known_reason_or_a_value_error(name: str, data: st.DataObject):
    rows = [row if data.draw(st.integers(0, 9)) else data.draw(JSON) for row in stored(name)[:3]]
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.integers(0, len(rows) - 1))
        rows[index] = changed(rows[index], data.draw(st.sampled_from(places(rows[index]))), data.draw(JSON))
    try:
        converted = CONVERTERS[name](rows)
    except ValueError as error:
        assert str(error).startswith("Row ")
        return
    assert set(converted.dropped) <= set(REASONS) and all(count > 0 for count in converted.dropped.values())
    for row in converted.rows:
        assert list(row) == ["id", "prompt", "chosen", "rejected", "attribute"]
        assert isinstance(row["id"], str) and isinstance(row["attribute"], str) and row["attribute"].strip()
        assert row["prompt"][-1]["role"] == "user" and all(m["content"].strip() for m in row["prompt"])
        texts = [row[side][0]["content"].strip() for side in ("chosen", "rejected")]
        assert all(texts) and texts[0] != texts[1]
        assert all(len(row[side]) == 1 and row[side][0]["role"] == "assistant" for side in ("chosen", "rejected"))
    assert CONVERTERS[name](rows) == converted
    assert len(Dataset.from_list(converted.rows)) == len(converted.rows)


# ---- by name or path ----


@pytest.mark.parametrize("name", [name for name in CONVERTERS if name != "hh_rlhf"])
def test_a_local_path_in_the_schema_gives_the_same_rows(name: str):
    loaded = load_preferences(DATA / f"{name}.jsonl", source=name, console=quiet())
    assert loaded["train"].to_list() == CONVERTERS[name](stored(name)).rows


@pytest.mark.parametrize("called", ["safe_rlhf", "PKU-Alignment/PKU-SafeRLHF"])
def test_a_name_or_hub_id_loads_from_the_hub_and_prints_what_was_dropped(called: str, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def load_dataset(hub_id: str, **options: Any) -> DatasetDict:
        calls.append((hub_id, options))
        return DatasetDict({split: Dataset.from_list(stored("safe_rlhf")) for split in ("train", "test")})

    monkeypatch.setattr(load, "load_dataset", load_dataset)
    console = quiet()
    loaded = load_preferences(called, attributes=["harmlessness"], console=console)
    assert calls == [("PKU-Alignment/PKU-SafeRLHF", {"name": "default", "data_dir": None})]
    assert {split: set(loaded[split]["attribute"]) for split in loaded} == {
        "train": {"harmlessness"},
        "test": {"harmlessness"},
    }
    printed = console.file.getvalue()
    assert "PKU-SafeRLHF (CC-BY-NC-4.0), test: 5 pairs (helpfulness 3, harmlessness 2)" in printed
    assert "dropped 2 pairs of identical responses (identical_responses)" in printed
    assert "Only harmlessness: train 2 pairs (harmlessness 2)" in printed
    with pytest.raises(ValueError, match=r"'harmless' \(did you mean 'harmlessness'\?\)"):
        load_preferences(called, attributes=["harmless"], console=quiet())


def test_the_subsets_of_hh_rlhf_are_loaded_one_by_one(monkeypatch: pytest.MonkeyPatch):
    folders = []

    def load_dataset(hub_id: str, name: str | None, data_dir: str) -> DatasetDict:
        folders.append(data_dir)
        return DatasetDict({"train": Dataset.from_list(stored("hh_rlhf"))})

    monkeypatch.setattr(load, "load_dataset", load_dataset)
    loaded = load_preferences("hh_rlhf", console=quiet())
    assert folders == list(hh_rlhf.SUBSETS)
    assert Counter(loaded["train"]["attribute"]) == dict.fromkeys(hh_rlhf.SUBSETS, 2)
    assert set(load_preferences("hh_rlhf", subset="harmless-base", console=quiet())["train"]["attribute"]) == {
        "harmless-base"
    }


def test_hh_rlhf_from_disk_takes_its_attribute_from_the_folder_or_from_subset(tmp_path: Path):
    text = (DATA / "hh_rlhf.jsonl").read_text(encoding="utf-8")
    for subset in hh_rlhf.SUBSETS:
        (tmp_path / "hh" / subset).mkdir(parents=True)
        with gzip.open(tmp_path / "hh" / subset / "train.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write(text)
    loaded = load_preferences(tmp_path / "hh", source="hh_rlhf", console=quiet())
    assert Counter(loaded["train"]["attribute"]) == dict.fromkeys(hh_rlhf.SUBSETS, 2)
    one = load_preferences(DATA / "hh_rlhf.jsonl", source="hh_rlhf", subset="helpful-base", console=quiet())
    assert one["train"].to_list() == CONVERTERS["hh_rlhf"](stored("hh_rlhf")).rows
    with pytest.raises(ValueError, match="do not say which subset"):
        load_preferences(DATA / "hh_rlhf.jsonl", source="hh_rlhf", console=quiet())


def test_global_opinions_reads_the_published_csv(tmp_path: Path):
    path = tmp_path / "global_opinions.csv"
    Dataset.from_list(stored("global_opinions")).to_pandas().to_csv(path, index=False)
    loaded = load_preferences(path, source="global_opinions", console=quiet())
    assert loaded["train"].to_list() == global_opinions.convert(stored("global_opinions")).rows


def test_a_path_object_is_never_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder 'multipref'"):
        load_preferences(Path("multipref"), console=quiet())
    (tmp_path / "multipref").mkdir()
    (tmp_path / "multipref" / "train.jsonl").write_text(
        (DATA / "multipref.jsonl").read_text(encoding="utf-8"), "utf-8"
    )
    loaded = load_preferences("./multipref", source="multipref", console=quiet())
    assert loaded["train"].to_list() == multipref.convert(stored("multipref")).rows


def test_test_share_divides_by_prompt():
    loaded = load_preferences(DATA / "safe_rlhf.jsonl", source="safe_rlhf", test_share=0.3, console=quiet())
    prompts = {split: {row["prompt"][0]["content"] for row in loaded[split]} for split in loaded}
    assert len(prompts["test"]) == 1 and len(prompts["train"]) == 2 and not prompts["train"] & prompts["test"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name_or_path": "ultrafedback"}, FileNotFoundError, "did you mean 'ultrafeedback'"),
        ({"name_or_path": "finegrained_rlhf"}, ValueError, "not on the Hub: download it and pass its path"),
        (
            {"name_or_path": DATA / "safe_rlhf.jsonl", "source": "saferlhf"},
            ValueError,
            "source: 'saferlhf'.*did you mean 'safe_rlhf'",
        ),
        (
            {"name_or_path": DATA / "safe_rlhf.jsonl", "source": "multipref"},
            ValueError,
            "As MultiPref, train of safe_rlhf.jsonl lacks columns 'comparison_id'",
        ),
        (
            {"name_or_path": DATA / "ultrafeedback.jsonl", "source": "ultrafeedback", "min_margn": 1},
            ValueError,
            r"option of UltraFeedback: 'min_margn' \(did you mean 'min_margin'\?\)",
        ),
        (
            {"name_or_path": DATA / "ultrafeedback.jsonl"},
            ValueError,
            "ultrafeedback.jsonl holds no pairs but looks like UltraFeedback: pass `--dataset_source ultrafeedback",
        ),
        (
            {"name_or_path": DATA / "ultrafeedback.jsonl", "source": "ultrafeedback", "min_margin": 9},
            ValueError,
            "train of ultrafeedback.jsonl: none of the 3 rows gives a pair",
        ),
        (
            {"name_or_path": DATA / "ultrafeedback.jsonl", "source": "ultrafeedback", "min_margin": -1},
            ValueError,
            "`min_margin` must be 0 or more, got -1",
        ),
        (
            {"name_or_path": DATA / "ultrafeedback.jsonl", "source": "ultrafeedback", "max_pairs": 0},
            ValueError,
            "pairs per prompt must be 1 or more",
        ),
    ],
)
def test_what_is_wrong_is_named(arguments: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        load_preferences(**arguments, console=quiet())
