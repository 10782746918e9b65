"""Files that are either whole or not there: atomic writes, and hashes of what is on disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".gz")


def looks_like_path(name: str) -> bool:
    """
    Whether a name is written like a path, as no Hub id is: it begins with `.`, `/` or `~`, has more than one slash, or
    ends like a file of data. It says nothing about what is on disk.
    """
    path = Path(name)
    begins = name.startswith((".", "/", "~")) or path.is_absolute()  # the latter for drive letters
    return begins or name.count("/") > 1 or path.suffix in DATA_SUFFIXES


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """
    Writes a text file atomically: whoever reads it sees the old text or the new one, also after a power cut.

    Args:
        path (`str` or `os.PathLike`):
            The file; its folder must exist.
        text (`str`):
            What it holds, written as UTF-8.

    Raises:
        OSError: If it cannot be written (a full disk, no permission). The old file stays as it was.
    """
    path = Path(path)
    # The number of the process: two processes that write the same file do not write into each other's draft.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """
    Writes JSON atomically, see [`write_text`].

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


def sha256_of(path: str | os.PathLike[str], sync: bool = False) -> str:
    """
    The SHA-256 of a file, in hexadecimal.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        sync (`bool`, *optional*, defaults to `False`):
            Whether to make the content durable before it is read, so that the hash is of what a power cut leaves.
    """
    with open(path, "rb") as file:
        if sync and os.name != "nt":  # Windows flushes only files opened for writing
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
