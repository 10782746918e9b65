"""Which prompts a run was trained on: digests beside its model, so that it is not tested on them by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fairpo_trl.files import write_json
from fairpo_trl.hashing import sha256
from fairpo_trl.preferences.rules import prompt_key


PROMPTS_NAME = "fairpo_prompts.json"
"""Digests only: no text of the data lies in it, and `fairpo push` leaves it where it is."""


def keep_prompts(folder: str | os.PathLike[str], prompts: Iterable[Any]) -> None:
    """Writes the digests of the distinct prompts of a training set into the folder of its run."""
    write_json(Path(folder) / PROMPTS_NAME, sorted({_digest(prompt) for prompt in prompts}))


def trained_on(folder: str | os.PathLike[str], prompts: Sequence[Any]) -> list[Any]:
    """
    The prompts that the model in a folder was trained on.

    Args:
        folder (`str` or `os.PathLike`):
            A saved model, or a checkpoint in the folder of its run.
        prompts (`Sequence`):
            Prompts that it is to be tested on.

    Returns:
        `list`: those among `prompts`; empty too where the folder does not say what it was trained on.

    Raises:
        ValueError: If the file is damaged.
    """
    path = next((p for p in (Path(folder) / PROMPTS_NAME, Path(folder).parent / PROMPTS_NAME) if p.is_file()), None)
    if path is None:
        return []
    try:
        known = set(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"The list of training prompts {path} is damaged ({error}): delete it.") from error
    return [prompt for prompt in prompts if _digest(prompt) in known]


def _digest(prompt: Any) -> str:
    return sha256([prompt_key(prompt).encode()])[:16]
