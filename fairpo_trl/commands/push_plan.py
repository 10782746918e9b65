"""What a push would send: the files of a saved model that belong on the Hub, their public content, and the card."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from fairpo_trl.hub.privacy import private_places, public_config
from fairpo_trl.training.checkpoints import checkpoint_step, list_checkpoints, require_complete


Kind = Literal["adapter", "model", "classifier"]

CLASSIFIER_TYPE = "fairpo_multilabel"
"""`model_type` of a `MultiLabelClassifier`."""

_WEIGHTS = {
    "adapter": "adapter_model.safetensors",
    "model": "model.safetensors",
    "classifier": "model.safetensors",
}
_CONFIGS = ("adapter_config.json", "config.json", "generation_config.json", "tokenizer_config.json")
# Everything else stays on this machine.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "chat_template.json"),
)
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5")
_OWN_PICKLES = ("training_args.bin", "optimizer*", "scheduler*", "scaler.pt", "rng_state*.pth")
_SCANNED = ("*.json", "*.md", "*.jinja", "*.txt", *_LICENCES)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")


@dataclass(frozen=True)
class PlannedFile:
    """
    One file of the repository.

    Attributes:
        name (`str`): Its path in the repository.
        source (`Path`, *optional*): The local file, where it is sent as it is.
        content (`bytes`, *optional*): What is sent instead, where the local file names this machine or there is none.
    """

    name: str
    source: Path | None = None
    content: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        if self.content is not None:
            return len(self.content)
        assert self.source is not None
        return self.source.stat().st_size


@dataclass(frozen=True)
class PushPlan:
    """
    A push, ready to be looked at or sent.

    Attributes:
        repo_id (`str`): Hub id of the repository.
        private (`bool`): Whether only its owner may see it.
        kind (`str`): `"adapter"`, `"model"` or `"classifier"`.
        files (`tuple[PlannedFile, ...]`): What is sent, the card among it, by name.
        card (`str`): `README.md`.
        left_out (`tuple[str, ...]`): Names in the folder that stay on this machine; folders end in a slash.
    """

    repo_id: str
    private: bool
    kind: Kind
    files: tuple[PlannedFile, ...]
    card: str
    left_out: tuple[str, ...]


def plan_push(folder: str | os.PathLike[str], repo_id: str | None, card: str, *, private: bool = True) -> PushPlan:
    """
    Plans a push; reads the folder, writes and sends nothing.

    Args:
        folder (`str` or `os.PathLike`):
            A saved adapter, language model or `MultiLabelClassifier`; a checkpoint of a run is one too.
        repo_id (`str`, *optional*):
            `owner/name`; required, `None` gives the error that says so.
        card (`str`):
            The card with its front matter; `compose_card` writes it.
        private (`bool`, *optional*, defaults to `True`):
            Whether only its owner may see the repository.

    Returns:
        [`PushPlan`]

    Raises:
        FileNotFoundError: If there is no such folder, or weights are missing.
        ValueError: If the folder is not a saved model or not a whole one, holds files that run code when they are
            loaded, or something private would be published; names the file and the mend.
    """
    repo_id, folder = check_repo_id(repo_id, folder), Path(folder)
    kind = saved_kind(folder)
    _refuse_unsafe(folder)
    names = [*_weight_files(folder, kind), "adapter_config.json" if kind == "adapter" else "config.json"]
    if kind != "adapter" and (folder / "generation_config.json").is_file():
        names.append("generation_config.json")
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    if kind == "model" and not has_tokenizer(folder):
        raise FileNotFoundError(f"{folder} has no tokenizer: save it there (`tokenizer.save_pretrained(...)`).")
    names += [name for name in _TOKENIZER if name in present and kind != "classifier"]
    names += [name for name in present if any(fnmatch(name, pattern) for pattern in _LICENCES)]
    files = [PlannedFile("README.md", content=card.encode()), *(_planned(folder, name) for name in names)]
    templates = folder / "chat_templates"  # further templates of a tokenizer
    if kind != "classifier" and templates.is_dir():
        files += [PlannedFile(f"chat_templates/{path.name}", path) for path in sorted(templates.glob("*.jinja"))]
    _refuse_private(files, folder)
    sent = {Path(file.name).parts[0] for file in files}
    left_out = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir() if path.name not in sent)
    return PushPlan(repo_id, private, kind, tuple(sorted(files, key=lambda file: file.name)), card, tuple(left_out))


def check_repo_id(repo_id: str | None, folder: str | os.PathLike[str]) -> str:
    """
    A repository the Hub can have.

    Raises:
        ValueError: If it is missing, without an owner, or not a name for the Hub; proposes one.
    """
    wanted = (repo_id or "").rpartition("/")[2] or Path(folder).resolve().name
    name = re.sub(r"[^\w.-]+|--+|\.\.+", "-", wanted).strip("-.")
    owner = re.sub(r"[^\w-]+", "-", (repo_id or "").rpartition("/")[0]).strip("-") or "YOUR-NAME"
    proposal = f"{owner}/{name[:90] or 'model'}"
    if not repo_id:
        raise ValueError(f"Name the repository on the Hub: `--repo_id {proposal}`.")
    if repo_id.count("/") != 1:
        raise ValueError(
            f"`--repo_id` is the owner and the name, got {repo_id!r}: for example `--repo_id {proposal}`."
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise ValueError(
            f"`--repo_id` {repo_id!r} cannot be a name on the Hub (letters, digits, '-', '_', '.', at most 96 "
            f"characters): for example `--repo_id {proposal}`."
        ) from None
    return repo_id


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
        config = read_json(folder / "config.json")
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
    """Names of the weights, after a look at whether they are whole."""
    if checkpoint_step(folder) is not None:
        require_complete(folder)
    weights, index = _WEIGHTS[kind], folder / f"{_WEIGHTS[kind]}.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        names = [index.name, *shards]
    elif (folder / weights).is_file():
        shards = names = [weights]
    else:
        raise FileNotFoundError(
            f"{folder} has no {weights}: the save was not finished, or the weights are in another format. Save the "
            "model again (`save_model`), which writes safetensors."
        )
    for name in shards:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}, which {index.name} lists: save the model again.")
        try:
            with safe_open(folder / name, framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} is cut or damaged ({error}): save the model again.") from error
    return names


def _refuse_unsafe(folder: Path) -> None:
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
    if name in _CONFIGS:
        config = read_json(folder / name)
        public = public_config(config)
        if public != config:
            text = json.dumps(public, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            return PlannedFile(name, content=text.encode())
    return PlannedFile(name, folder / name)


def _refuse_private(files: Sequence[PlannedFile], folder: Path) -> None:
    """Whatever is left after the known places were mended has to be taken out by its author."""
    local = [str(path) for path in (folder.resolve(), folder.resolve().parent, Path.cwd()) if len(path.parts) > 2]
    for file in files:
        if file.name in _VOCABULARIES or not any(fnmatch(file.name, pattern) for pattern in _SCANNED):
            continue
        content = file.content if file.content is not None else file.source.read_bytes()  # type: ignore[union-attr]
        found = private_places(content.decode(errors="replace"), local, get_token())
        if found:
            line, what = found[0]
            if file.name == "README.md":  # its lines are not those of the local file
                raise ValueError(f"The card would publish {what}: take it out of {folder / file.name} or the results.")
            raise ValueError(f"{file.name}, line {line}, would publish {what}: take it out of {folder / file.name}.")
