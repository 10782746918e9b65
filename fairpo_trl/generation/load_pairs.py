"""Preference pairs from the Hub or from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset, load_from_disk


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
        ValueError: If the file type is unknown, or a file divided by a column `split` is to be streamed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded: Any = load_from_disk(str(path))
            return loaded if isinstance(loaded, DatasetDict) else DatasetDict({"train": loaded})
        return load_dataset(str(path), name=config, streaming=streaming)
    if path.is_file():
        if path.suffix not in _BUILDERS:
            raise ValueError(f"{path.name}: unknown file type {path.suffix!r}; use one of {sorted(_BUILDERS)}.")
        data = load_dataset(_BUILDERS[path.suffix], data_files=str(path), streaming=streaming)
        if "split" not in (data["train"].column_names or ()):
            return data
        if streaming:
            raise ValueError(f"{path.name} is divided by its column 'split': load it without streaming.")
        names = list(dict.fromkeys(data["train"]["split"]))
        return DatasetDict(
            {s: data["train"].filter(lambda value, s=s: value == s, input_columns="split") for s in names}
        )
    if path.suffix in _BUILDERS or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"There is no file {path.name!r} to read pairs from: check `dataset_name`.")
    return load_dataset(name, name=config, streaming=streaming)
