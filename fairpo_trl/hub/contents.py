"""Which files of a saved model may leave, and with what content: named one by one, mended where we know how."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open

from fairpo_trl.hub.privacy import plain_file, private_places, public_config
from fairpo_trl.training.checkpoints import checkpoint_step, list_checkpoints, require_complete


Kind = Literal["adapter", "model", "classifier"]

CLASSIFIER_TYPE = "fairpo_multilabel"
"""`model_type` of a `MultiLabelClassifier`."""

# Everything else stays on this machine.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "chat_template.json"),
)
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")
_STATE = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "trainer_state.json", "fairpo_state.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5")
_OWN_PICKLES = ("training_args.bin", "optimizer*", "scheduler*", "scaler.pt", "rng_state*.pth")
_SCANNED = ("*.json", "*.md", "*.jinja", "*.txt", *_LICENCES)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
# What a template needs for no conversation, and an attack on whoever renders it does.
_CODE = re.compile(
    r"__\w+__|\|\s*attr\b|\{%-?\s*(?:include|import|from|extends)\b|\b(?:lipsum|cycler|joiner)\b|\.(?:mro|format_map)\s*\("
    r"|\b(?:popen|subprocess|getattr|globals|eval|exec)\b\s*[(.\[]|\[\s*(['\"])[^\]]*\1\s*[~+]"
)


@dataclass(frozen=True)
class PlannedFile:
    """
    One file of the repository.

    Attributes:
        name (`str`): Its path in the repository.
        content (`Path` or `bytes`): The local file, or what is sent instead where that names this machine or there is
            none.
    """

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        """What is sent."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def model_files(folder: str | os.PathLike[str], kind: Kind) -> list[PlannedFile]:
    """
    The files of a saved model, or of a checkpoint, that may leave, without its card; what is not named here stays.

    Raises:
        FileNotFoundError: If weights are missing.
        ValueError: If a file is damaged, is a link, lies elsewhere, or runs code.
    """
    folder = Path(folder)
    _refuse_pickles(folder)
    names = [*_weight_files(folder, kind), "adapter_config.json" if kind == "adapter" else "config.json"]
    if kind == "model" and (folder / "generation_config.json").exists():
        names.append("generation_config.json")
    present = sorted(path.name for path in folder.iterdir())
    if kind != "classifier":
        names += [name for name in _TOKENIZER if name in present]
        templates = folder / "chat_templates"  # further templates of a tokenizer
        names += [f"chat_templates/{path.name}" for path in sorted(templates.glob("*.jinja"))]
    names += [name for name in present if any(fnmatch(name, pattern) for pattern in _LICENCES)]
    return [_planned(folder, name) for name in names]


def checkpoint_files(folder: str | os.PathLike[str], kind: Kind) -> list[PlannedFile]:
    """
    The files of a checkpoint that a run on another machine goes on from: the model, and the states beside it.

    Arguments, logs and whatever else lies there stay; paths in the trainer's state keep their last part.
    """
    folder = Path(folder)
    names = [name for name in _STATE if (folder / name).is_file()]
    names += sorted(path.name for path in folder.glob("rng_state*.pth"))
    return [*model_files(folder, kind), *(_planned(folder, name) for name in names)]


def refuse_private(files: Sequence[PlannedFile], folder: Path) -> None:
    """
    Looks at every text that would be sent; what is left after the known places were mended is its author's to mend.

    Raises:
        ValueError: If a text names this machine, somebody's home or a secret, or a chat template could run code; names
            the file, the line and what is there (no secret).
    """
    local = [str(path) for path in (folder.resolve(), folder.resolve().parent, Path.cwd()) if len(path.parts) > 2]
    for file in files:
        if Path(file.name).name in _VOCABULARIES or not any(fnmatch(file.name, pattern) for pattern in _SCANNED):
            continue
        text = file.read().decode(errors="replace")
        place = folder / file.name
        for line, what in private_places(text, local, get_token())[:1]:
            if file.name == "README.md":  # its lines are not those of the local file
                raise ValueError(f"The card would publish {what}: take it out of {place} or the results.")
            raise ValueError(f"{file.name}, line {line}, would publish {what}: take it out of {place}.")
        for template in _templates(file.name, text):
            if found := _CODE.search(template):
                raise ValueError(
                    f"{file.name} holds a chat template with {found[0]!r}, which can run code on the machine of "
                    f"whoever uses the model: take it out of {place}, or write the base model's template there."
                )


def _templates(name: str, text: str) -> Iterator[str]:
    """The chat templates in a file."""
    if name.endswith(".jinja"):
        yield text
    elif name in ("tokenizer_config.json", "chat_template.json"):
        found = json.loads(text).get("chat_template")
        for entry in found if isinstance(found, list) else [found]:
            template = entry.get("template") if isinstance(entry, dict) else entry
            if isinstance(template, str):
                yield template


def saved_kind(folder: str | os.PathLike[str]) -> Kind:
    """
    What a folder holds.

    Raises:
        FileNotFoundError: If there is no such folder; proposes near names beside it.
        ValueError: If it is no saved model of these kinds; proposes the saved models below it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        near = difflib.get_close_matches(folder.name, beside, n=2)
        hint = f" Did you mean {' or '.join(repr(str(folder.parent / name)) for name in near)}?" if near else ""
        raise FileNotFoundError(f"There is no folder {str(folder)!r}.{hint}")
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        config = read_json(plain_file(folder, "config.json"))
        if config.get("model_type") == CLASSIFIER_TYPE:
            return "classifier"
        if config.get("auto_map"):
            raise ValueError(
                f"{folder}/config.json has `auto_map`: this model needs code of its own to be loaded, which is not "
                "published from here."
            )
        architectures = config.get("architectures") or ["none"]
        if architectures[0].endswith("ForCausalLM"):
            return "model"
        raise ValueError(
            f"{folder} holds a {architectures[0]}: `fairpo push` publishes language models (...ForCausalLM), their "
            "adapters and MultiLabelClassifiers."
        )
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if weights:
        raise ValueError(
            f"{folder} holds {weights[0]} but neither adapter_config.json nor config.json: save the model again "
            "(`save_model`), or copy the file from where it was trained."
        )
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _looks_saved(path)]
    checkpoints = [path for path in list_checkpoints(folder) if path in below]
    if checkpoints:
        raise ValueError(
            f"{folder} holds checkpoints only, so its training is not over: go on with "
            f"`--resume_from_checkpoint true`, or push {str(checkpoints[-1])!r}."
        )
    there = f" There is one in {' and '.join(repr(str(path)) for path in below[:3])}." if below else ""
    raise ValueError(
        f"{folder} is not a saved model: it has neither adapter_config.json nor config.json.{there} `save_model` and "
        "the recipes write such a folder."
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in a folder."""
    return (folder / "tokenizer_config.json").is_file()


def has_chat_template(folder: Path) -> bool:
    """Whether that tokenizer knows conversations."""
    if (folder / "chat_template.jinja").is_file():
        return True
    return has_tokenizer(folder) and bool(read_json(folder / "tokenizer_config.json").get("chat_template"))


def read_json(path: Path) -> dict[str, Any]:
    """
    A JSON object from a file.

    Raises:
        ValueError: If it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also not UTF-8
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return found


def _looks_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("adapter_config.json", "config.json"))


def _weight_files(folder: Path, kind: Kind) -> list[str]:
    """Names of the weights, after a look at whether they are whole, and in this folder."""
    if checkpoint_step(folder) is not None:
        require_complete(folder)
    weights = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    index = folder / f"{weights}.index.json"
    if index.is_file():
        listed = read_json(plain_file(folder, index.name)).get("weight_map", {})
        shards = sorted({str(name) for name in listed.values()} if isinstance(listed, dict) else ())
        names = [index.name, *shards]
    elif (folder / weights).exists():
        shards = names = [weights]
    else:
        raise FileNotFoundError(
            f"{folder} has no {weights}: the save was not finished, or the weights are in another format. Save the "
            "model again (`save_model`), which writes safetensors."
        )
    for name in shards:
        if not name.endswith(".safetensors"):
            raise ValueError(f"{index} lists {name!r}, which is no safetensors file: it is not sent.")
        try:
            with safe_open(plain_file(folder, name), framework="pt") as file:
                file.keys()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{folder} has no {name}, which {index.name} lists: save it again.") from error
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} is cut or damaged ({error}): save the model again.") from error
    return names


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and any(fnmatch(path.name, pattern) for pattern in _PICKLES)
        and not any(fnmatch(path.name, pattern) for pattern in _OWN_PICKLES)
    )
    if pickles:
        raise ValueError(
            f"{folder} holds {', '.join(pickles)}: such files can run code when they are loaded, so a folder with "
            "them is not pushed. Save the weights as safetensors, or move these files elsewhere."
        )


def _planned(folder: Path, name: str) -> PlannedFile:
    path = plain_file(folder, name)
    if name.endswith(".json") and name not in _VOCABULARIES and not name.endswith(".index.json"):
        config = read_json(path)
        if config.get("auto_map"):
            raise ValueError(f"{path} has `auto_map`: it asks for code of its own, which is not published from here.")
        public = public_config(config)
        if public != config:
            text = json.dumps(public, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            return PlannedFile(name, text.encode())
    return PlannedFile(name, path)
