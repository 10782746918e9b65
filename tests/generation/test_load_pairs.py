"""Preference pairs from every place they may be in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import make_rows
from datasets import Dataset, DatasetDict, IterableDataset

from fairpo_trl.generation import data as module
from fairpo_trl.generation.data import load_pairs


ROWS = make_rows(6)
SPLITS = ["train", "test", "train", "validation", "test", "train"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """Calls of `load_dataset`, which answers nothing."""
    calls: list[tuple[tuple, dict]] = []

    def load_dataset(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "from the Hub"

    monkeypatch.setattr(module, "load_dataset", load_dataset)
    return calls


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` in the format of the suffix."""
    dataset = Dataset.from_list(rows)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        dataset.to_csv(str(path))
    else:
        dataset.to_parquet(str(path))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_file_without_splits_is_all_train(suffix: str, tmp_path: Path) -> None:
    loaded = load_pairs(str(write(tmp_path / f"pairs{suffix}", ROWS)))
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train"]
    assert loaded["train"].to_list() == ROWS


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_split_divides_a_file(suffix: str, tmp_path: Path) -> None:
    rows = [{**row, "split": split} for row, split in zip(ROWS, SPLITS, strict=True)]
    loaded = load_pairs(str(write(tmp_path / f"pairs{suffix}", rows)))
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train", "test", "validation"]
    for name in loaded:
        assert loaded[name].to_list() == [row for row in rows if row["split"] == name]


def test_lists_of_attributes_and_messages_survive(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "attribute": ["concise", "polite"],
        }
        for row in ROWS
    ]
    assert load_pairs(str(write(tmp_path / "pairs.jsonl", rows)))["train"].to_list() == rows


def test_a_saved_dataset_is_train(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    loaded = load_pairs(str(tmp_path / "saved"))
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train"]
    assert loaded["train"].to_list() == ROWS


def test_saved_splits_stay(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS[:4]), "dev": Dataset.from_list(ROWS[4:])}).save_to_disk(
        tmp_path / "saved"
    )
    loaded = load_pairs(str(tmp_path / "saved"))
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train", "dev"]
    assert loaded["train"].to_list() == ROWS[:4] and loaded["dev"].to_list() == ROWS[4:]


def test_a_folder_of_data_files_has_their_splits(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS[:4])
    write(folder / "test.jsonl", ROWS[4:])
    loaded = load_pairs(str(folder))
    assert set(loaded) == {"train", "test"}
    assert loaded["train"].to_list() == ROWS[:4] and loaded["test"].to_list() == ROWS[4:]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pairs.jsonl", ROWS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_pairs("~/pairs.jsonl")["train"].to_list() == ROWS


def test_streaming_reads_the_same_rows(tmp_path: Path) -> None:
    loaded = load_pairs(str(write(tmp_path / "pairs.jsonl", ROWS)), streaming=True)
    assert isinstance(loaded["train"], IterableDataset)
    assert list(loaded["train"]) == ROWS


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_streaming_a_file_divided_by_a_column_is_refused(suffix: str, tmp_path: Path) -> None:
    rows = [{**row, "split": split} for row, split in zip(ROWS, SPLITS, strict=True)]
    path = write(tmp_path / f"pairs{suffix}", rows)
    with pytest.raises(ValueError, match=f"pairs{suffix} is divided by its column 'split'.*without streaming"):
        load_pairs(str(path), streaming=True)


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "data/missing.parquet", "./missing", "/nowhere/at/all", "~/missing"]
)
def test_a_missing_path_is_not_looked_up_on_the_hub(name: str, hub: list) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file or folder .*{Path(name).name}"):
        load_pairs(name)
    assert hub == []


@pytest.mark.parametrize("suffix", [".txt", ".arrow", ""])
def test_an_unknown_file_type_is_named_with_the_known_ones(suffix: str, tmp_path: Path, hub: list) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"pairs{suffix}: unknown file type '{suffix}'.*'\.jsonl'.*'\.csv'"):
        load_pairs(str(path))
    assert hub == []


def test_a_hub_id_goes_to_the_hub_with_configuration_and_streaming(hub: list) -> None:
    assert load_pairs("someone/pairs", "polite", streaming=True) == "from the Hub"
    assert load_pairs("someone/pairs") == "from the Hub"
    assert hub == [
        (("someone/pairs",), {"name": "polite", "streaming": True}),
        (("someone/pairs",), {"name": None, "streaming": False}),
    ]
