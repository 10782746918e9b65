"""Preference pairs from the Hub or from disk."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict, IterableDatasetDict, load_dataset

from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.files import looks_like_path
from fairpo_trl.preferences.read import as_dataset, read_splits


_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


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
    path = Path(name).expanduser()
    if not streaming and (path.exists() or looks_like_path(name)):
        return DatasetDict({split: as_dataset(rows, path.name) for split, rows in read_splits(path).items()})
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            raise ValueError(f"{path.name} was written by `save_to_disk`: load it without streaming.")
        check_data_folder(path)
        return load_dataset(str(path), name=config, streaming=True)
    if path.is_file():
        if path.suffix not in _BUILDERS:
            raise ValueError(f"{path.name}: unknown file type {path.suffix!r}; use one of {sorted(_BUILDERS)}.")
        data = load_dataset(_BUILDERS[path.suffix], data_files=str(path), streaming=True)
        if "split" in (data["train"].column_names or ()):
            raise ValueError(f"{path.name} is divided by its column 'split': load it without streaming.")
        return data
    if path.suffix in _BUILDERS or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"There is no file {path.name!r} to read pairs from: check `dataset_name`.")
    return load_dataset(name, name=config, streaming=streaming)
