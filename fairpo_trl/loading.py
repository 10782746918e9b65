"""Loading what others saved: no code of theirs runs, nothing is asked, and what cannot be read is one error."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open


class UnreadableModel(ValueError):
    """A saved model, tokenizer or adapter that cannot be loaded; says why and what to do."""


@contextlib.contextmanager
def explained(place: str | Path, what: str = "model") -> Iterator[None]:
    """
    What a loader raises within becomes one error of ours that names the place and what to do.

    Args:
        place (`str` or `Path`):
            Folder or Hub id of what is loaded.
        what (`str`, *optional*, defaults to `"model"`):
            What it is.

    Raises:
        UnreadableModel: If it needs code of its own, which is never run, or cannot be read.
    """
    try:
        yield
    except (UnreadableModel, MemoryError, ImportError):  # said already, or not of the files
        raise
    except Exception as error:  # tokenizers raise this very class; the configurations of transformers their own
        if "trust_remote_code" in str(error):
            raise UnreadableModel(
                f"The {what} {str(place)!r} needs code of its own (`auto_map`), which is never run here: name one "
                "whose class transformers has, or convert it."
            ) from error
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableModel(
            f"The {what} {str(place)!r} cannot be loaded: {told.rstrip('.!')}. Look at the name; if it is right, a "
            "file is damaged or missing: save or download it again."
        ) from error


@contextlib.contextmanager
def explained_within(place: str | Path) -> Iterator[None]:
    """
    As [`explained`], for a library that loads a model among other things: errors of the loading alone, and of them
    those that are no message to a user (`RuntimeError` for other shapes, `KeyError` for an unknown activation).
    """
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        loading = any(frame.name == "from_pretrained" for frame in traceback.extract_tb(error.__traceback__))
        if not loading or type(error).__name__ == "OutOfMemoryError":
            raise
        with explained(place):
            raise


@contextlib.contextmanager
def rendered(tokenizer: Any) -> Iterator[None]:
    """
    Errors of a chat template name the tokenizer.

    Raises:
        ValueError: If the template has a mistake, or does what no template may.
    """
    try:
        yield
    except TemplateError as error:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ValueError(
            f"The chat template of {name!r} cannot be used: {' '.join(str(error).split())[:200]}. Mend or replace its "
            "chat_template.jinja."
        ) from error


def check_model_folder(folder: str | os.PathLike[str]) -> None:
    """
    Looks at a saved model before anything is loaded: JSON files that parse, weights whose headers fit their length. A
    name that is no folder here is left to whoever loads it.

    Raises:
        ValueError: Names the file that is damaged, or asks for code.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({str(error)[:100]}): save or download the model again.") from error
        if path.name == "config.json" and isinstance(found, dict) and found.get("auto_map"):
            from transformers import CONFIG_MAPPING  # seconds, and only for models like this

            if found.get("model_type") not in CONFIG_MAPPING:
                raise ValueError(
                    f"{path} has `auto_map`: the model needs code of its own, which is never run here. Name one whose "
                    "class transformers has."
                )
        if path.name == "adapter_config.json" and isinstance(found, dict) and found.get("megatron_config"):
            raise ValueError(
                f"{path} has `megatron_config`, for which PEFT imports the module that `megatron_core` names: that is "
                "never done here. Take both out of the file; the weights do not need them."
            )
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is cut or damaged ({error}): save or download the model again.") from error
