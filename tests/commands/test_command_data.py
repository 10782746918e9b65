"""From the options of the command line to pairs: files, ratings, mixtures, published sets, Hub ids, streams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_rows
from datasets import Dataset, DatasetDict
from rich.console import Console

from fairpo_trl.generation import data as module
from fairpo_trl.generation.data import DataArguments, load_data


QUIET = Console(quiet=True)


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_own_pairs_are_divided_by_prompt(tmp_path: Path) -> None:
    name = write(tmp_path / "pairs.jsonl", make_rows(10))
    data = load_data(DataArguments(dataset_name=name, test_share=0.3), console=QUIET)
    prompts = {split: set(data[split]["prompt"]) for split in data}
    assert set(data) == {"train", "test"} and not prompts["train"] & prompts["test"]
    assert len(data["train"]) + len(data["test"]) == 10


def test_ratings_become_pairs(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response": "a", "kind": 3, "short": 1},
        {"prompt": "p", "response": "b", "kind": 1, "short": 2},
        {"prompt": "p", "response": "c", "kind": 1.5, "short": 2},
    ]
    args = DataArguments(dataset_name=write(tmp_path / "r.jsonl", rows), ratings=["kind", "short"], min_margin=1)
    pairs = load_data(args, console=QUIET)["train"].to_list()
    found = {(row["attribute"], row["chosen"], row["rejected"]) for row in pairs}
    assert found == {("kind", "a", "b"), ("kind", "a", "c"), ("short", "b", "a"), ("short", "c", "a")}
    args.max_pairs = 1
    assert load_data(args, console=QUIET)["train"]["attribute"] == ["kind", "short"]


def test_a_mixture_names_each_source_after_its_attribute(tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in make_rows(4)]
    first, second = write(tmp_path / "a.jsonl", rows[:2]), write(tmp_path / "b.jsonl", rows[2:])
    args = DataArguments(mixture=[f"kind={first}", f"short={second}"])
    assert load_data(args, console=QUIET)["train"]["attribute"] == ["kind", "kind", "short", "short"]


def test_rows_of_a_published_schema_on_disk(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1},
    ]
    args = DataArguments(dataset_name=write(tmp_path / "safe.jsonl", rows), dataset_source="safe_rlhf")
    pairs = load_data(args, console=QUIET)["train"].to_list()
    assert {(row["attribute"], row["chosen"][0]["content"]) for row in pairs} == {
        ("helpfulness", "a"),
        ("harmlessness", "b"),
    }


def test_an_unknown_hub_id_is_loaded_as_pairs_and_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_pairs(name: str, config: str | None, streaming: bool = False) -> DatasetDict:
        asked.append((name, config, streaming))
        return DatasetDict({"train": Dataset.from_list(make_rows(10))})

    monkeypatch.setattr(module, "load_pairs", load_pairs)
    args = DataArguments(dataset_name="someone/pairs", dataset_config="c", test_share=0.2)
    assert set(load_data(args, console=QUIET)) == {"train", "test"} and asked == [("someone/pairs", "c", False)]


def test_plain_text_becomes_messages_for_chat_models(tmp_path: Path) -> None:
    rows = make_rows(3)
    data = load_data(
        DataArguments(dataset_name=write(tmp_path / "pairs.jsonl", rows), as_messages=True), console=QUIET
    )["train"]
    assert data[0]["prompt"] == [{"role": "user", "content": rows[0]["prompt"]}]
    assert data[1]["rejected"] == [{"role": "assistant", "content": rows[1]["rejected"]}]
    assert data["attribute"] == [row["attribute"] for row in rows]
    saved = write(tmp_path / "messages.jsonl", data.to_list())
    with pytest.raises(ValueError, match="these prompts are messages"):
        load_data(DataArguments(dataset_name=saved, as_messages=True), console=QUIET)


def test_what_would_have_no_effect_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "pairs.jsonl", make_rows(4))
    for args, message in (
        (DataArguments(dataset_name="someone/pairs", min_margin=1.0), "`min_margin` cannot be used"),
        (DataArguments(dataset_name=name, dataset_streaming=True, test_share=0.2), "`test_share` cannot be used"),
        (DataArguments(dataset_name=name, mixture=[f"a={name}"]), "either `dataset_name` or `mixture`"),
        (DataArguments(mixture=["kind:a.jsonl"]), "entries such as helpful=pairs.jsonl, got 'kind:a.jsonl'"),
        (DataArguments(mixture=[f"a={name}", f"a={name}"]), "names 'a' twice"),
        (DataArguments(dataset_name=name, min_margin=1.0), "Own pairs take no 'min_margin'"),
        (DataArguments(dataset_name=name, source_options="{"), "`source_options` must be JSON"),
        (DataArguments(), "Name the preference data"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data(args, console=QUIET)
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        load_data(DataArguments(dataset_name="missing.csv"), console=QUIET)


def test_only_the_main_process_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(tmp_path / "pairs.jsonl", make_rows(4))
    load_data(DataArguments(dataset_name=name))
    assert "pairs.jsonl" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    load_data(DataArguments(dataset_name=name))
    assert capsys.readouterr().out == ""
