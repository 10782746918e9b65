"""Preference pairs from the Hub or from disk."""

from __future__ import annotations

from datasets import DatasetDict, IterableDatasetDict, load_dataset

from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.files import local_path
from fairpo_trl.preferences.read import as_dataset, read_splits
from fairpo_trl.tables import type_of


def load_pairs(name: str, config: str | None = None, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
    """
    Loads preference pairs (`prompt`, `chosen`, `rejected`, attribute) as splits.

    Args:
        name (`str`):
            Hub id, or a path: a folder written by `Dataset.save_to_disk` or holding data files, or one JSONL, JSON,
            CSV or Parquet file. A file with a column `split` is divided by it; otherwise all rows are `train`.
        config (`str`, *optional*):
            Configuration of a Hub dataset.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to stream instead of loading.

    Returns:
        `DatasetDict` or `IterableDatasetDict`: split -> pairs.

    Raises:
        FileNotFoundError: If `name` looks like a path and nothing is there.
        ValueError: If the file type is unknown, or a file divided by a column `split` or a folder written by
            `save_to_disk` is to be streamed.
    """
    path = local_path(name)
    if path is None:
        return load_dataset(name, name=config, streaming=streaming)
    if not streaming:
        return DatasetDict({split: as_dataset(rows, path.name) for split, rows in read_splits(path).items()})
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            raise ValueError(f"{path.name} was written by `save_to_disk`: load it without streaming.")
        check_data_folder(path)
        return load_dataset(str(path), name=config, streaming=True)
    builder = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.get(type_of(path))
    if builder is None:
        raise ValueError(f"{path.name}: files of this type are not streamed; load it without streaming.")
    data = load_dataset(builder, data_files=str(path), streaming=True)
    if "split" in (data["train"].column_names or ()):
        raise ValueError(f"{path.name} is divided by its column 'split': load it without streaming.")
    return data
