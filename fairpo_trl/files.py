"""Files that are either whole or not there: the one atomic writer of the package, and names that are paths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")


def looks_like_path(name: str) -> bool:
    """
    Whether a name is written like a path, as no Hub id is: it begins with `.`, `/` or `~`, has more than one slash, or
    ends like a file of data. It says nothing about what is on disk.
    """
    path = Path(name)
    begins = name.startswith((".", "/", "~")) or path.is_absolute()  # the latter for drive letters
    return begins or name.count("/") > 1 or path.suffix in DATA_SUFFIXES


def local_path(name: str | os.PathLike[str]) -> Path | None:
    """
    The path that a name of data or of a model stands for; `None` for a Hub id. What is on the disk is a path, and so
    is what is written like one.

    Raises:
        FileNotFoundError: If it is written like a path and nothing is there.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if looks_like_path(str(name)):
        raise FileNotFoundError(f"There is no file or folder {str(name)!r}.")
    return None


def write_file(path: str | os.PathLike[str], content: Callable[[BinaryIO], object]) -> None:
    """
    Writes a file atomically: whoever reads it sees the old file or the new one, also after a power cut.

    Args:
        path (`str` or `os.PathLike`):
            The file; its folder must exist.
        content (`Callable[[BinaryIO], object]`):
            Writes the content into the open file that it is given.

    Raises:
        OSError: If it cannot be written (a full disk, no permission). The old file stays as it was.
    """
    path = Path(path)
    # The number of the process: two processes that write the same file do not write into each other's draft.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())  # before the name: a name never stands for what is not on the disk yet
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, see [`write_file`]."""
    write_file(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """
    Writes JSON, see [`write_file`].

    Raises:
        ValueError: If the value holds NaN or an infinity, which are not JSON.
        OSError: If the file cannot be written.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Makes the names in a folder durable, where the system can do that (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
