"""A local folder of data that somebody else made names only files inside itself: no other file, no address."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from fairpo_trl.core.messages import shortened


_CARDS = ("README.md", ".huggingface.yaml")
"""Where `datasets` reads which files belong to a data set."""


def check_data_folder(folder: str | os.PathLike[str]) -> None:
    """
    Looks at a folder of data files, or one written by `save_to_disk`, before `datasets` reads it, which would follow
    whatever its README or its state names; anything else passes.

    Raises:
        ValueError: If a link in it, its README, or the state of a saved data set names a file outside it or an
            address; says which, and what to do.
    """
    root = Path(folder)
    if not root.is_dir():
        return
    home = _own_root(root.resolve())
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise ValueError(f"{path} is a link out of the data folder: put the file itself there.")
        for name in ("state.json", "dataset_dict.json"):
            if name in files:
                _check(Path(place, name), _saved_names(Path(place, name)))
    for name in _CARDS:
        if (root / name).is_file():
            _check(root / name, _card_names(root / name))


def _own_root(root: Path) -> Path:
    """What belongs to the folder: in the Hub's cache, the files of a snapshot are links to its blobs."""
    return next((parent for parent in root.parents if parent.name.startswith("datasets--")), root)


def _check(place: Path, names: Iterator[str]) -> None:
    for name in names:
        parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
        if ".." in parts or name[:1] in ("/", "\\", "~") or re.match(r"[A-Za-z][\w+.-]*:", name) or "::" in name:
            raise ValueError(
                f"{place} names {shortened(name)}, which is not in this folder: put the file there, or take the line "
                "out."
            )


def _card_names(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".md":
        found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---", text, re.DOTALL)
        text = found[1] if found else ""
    try:
        facts = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"The metadata of {path} cannot be read ({' '.join(str(error).split())[:100]}).") from error
    configs = facts.get("configs") if isinstance(facts, dict) else None
    for config in configs if isinstance(configs, list) else [configs]:
        named = [config.get("data_files"), config.get("data_dir")] if isinstance(config, dict) else config
        yield from _texts(named)


def _saved_names(path: Path) -> Iterator[str]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({str(error)[:100]}): save the data set again.") from error
    if isinstance(facts, dict):
        yield from _texts([facts.get("_data_files"), facts.get("splits")])


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
