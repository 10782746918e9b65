"""Which prompts a run was trained on: digests beside its model, so that it is not tested on them by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fairpo_trl.files import write_json
from fairpo_trl.hashing import sha256
from fairpo_trl.preferences.rules import prompt_key
from fairpo_trl.training.checkpoints import checkpoint_step
from fairpo_trl.training.run_folder import current_run
from fairpo_trl.training.state import run_of


PROMPTS_NAME = "fairpo_prompts.json"
"""Digests only: no text of the data lies in it, and `fairpo push` leaves it where it is."""


def keep_prompts(folder: str | os.PathLike[str], prompts: Iterable[Any]) -> None:
    """Writes the digests of the distinct prompts of a training set into the folder of its run."""
    write_json(Path(folder) / PROMPTS_NAME, sorted({_digest(prompt) for prompt in prompts}))


class ForgetPrompts(TrainerCallback):
    """When training begins, takes away what an earlier run left in the folder: it says nothing of this one."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer's first event: by now the folder is this run's."""
        if args.should_save:
            (Path(args.output_dir) / PROMPTS_NAME).unlink(missing_ok=True)


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
    folder = Path(folder)
    path = next((p for p in (folder / PROMPTS_NAME, folder.parent / PROMPTS_NAME) if p.is_file()), None)
    if path is None or (path.parent != folder and _is_of_earlier_run(folder)):
        return []
    try:
        known = set(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"The list of training prompts {path} is damaged ({error}): delete it.") from error
    return [prompt for prompt in prompts if _digest(prompt) in known]


def _is_of_earlier_run(checkpoint: Path) -> bool:
    """Whether a checkpoint was left by another run than the last one of its folder, whose prompts are listed there."""
    run, last = run_of(checkpoint), current_run(checkpoint.parent)
    return run is not None and last is not None and not last.owns(run, checkpoint_step(checkpoint) or 0)


def _digest(prompt: Any) -> str:
    return sha256([prompt_key(prompt).encode()])[:16]
