"""What may leave the machine: names without local paths, commands without secrets, folders ready for the Hub."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


# `hub_token`, but neither `max_new_tokens` nor `tokenizer`.
_SECRET_OPTION = re.compile(r"token(?!s\b|s_|iz)|secret|password|api_?key", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{8,}")
# A path of two or more parts inside a longer text, not the part of a URL.
_INNER_PATH = re.compile(r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?(?:[/\\][^\s\"'/\\,;:=]+){2,}[/\\]?")
_ABSOLUTE = re.compile(r"(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\]+){2,}[/\\]?|~[/\\][^\s/\\]+")
# Somebody's home folder, whoever's; not a part of a URL.
_HOME = re.compile(r"(?<![\w.:/\\-])(?:/(?:home|Users)/[\w.-]+|/root(?=/)|[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+)")
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)[/\\]snapshots")


def make_publishable(folder: str | os.PathLike[str]) -> None:
    """
    Takes out of a saved model what should not leave the machine.

    - `adapter_config.json`: PEFT notes the path of a local base model, which names the user and works nowhere else.
      Its last part stays.
    - `config.json` of a classifier: the same for the folder of a local backbone. Pass `backbone=` when loading it.
    - `README.md`: the same path, in a card that PEFT wrote.
    - `training_args.bin`: a pickle with the output path and, if it was set, `hub_token` in clear text. It is deleted;
      nothing reads it.

    Args:
        folder (`str` or `os.PathLike`):
            A folder written by `save_model`.
    """
    folder = Path(folder)
    for name in ("adapter_config.json", "config.json"):
        path = folder / name
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        public = public_config(config)
        if public != config:
            path.write_text(json.dumps(public, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    card_path = folder / "README.md"
    if card_path.is_file():
        card = ModelCard.load(card_path, ignore_metadata_errors=True)
        named = card.data.get("base_model")
        if isinstance(named, str) and BaseModel.of(named).name != named:
            facts, text = public_card(card)
            ModelCard(f"---\n{ModelCardData(**facts).to_yaml()}\n---\n{text}").save(card_path)
    (folder / "training_args.bin").unlink(missing_ok=True)


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """
    A configuration (of an adapter, a model or a tokenizer) with the last part of each path where the path was.

    Args:
        config (`Mapping[str, Any]`):
            The parsed JSON. A Hub id stays, also where the config names its snapshot in the cache.

    Returns:
        `dict[str, Any]`: equal to `config` if nothing in it is local.
    """
    public = {key: _without_path(value) for key, value in config.items()}
    for key in ("base_model_name_or_path", "_name_or_path", "name_or_path"):
        if isinstance(config.get(key), str):
            public[key] = BaseModel.of(config[key]).name or config[key]
    backbone = config.get("backbone")
    if isinstance(backbone, dict) and "spec" in backbone:
        library, _, source = backbone["spec"].partition(":")
        if not is_hub_id(source) and last_part(source) != source:
            public["backbone"] = {**backbone, "spec": f"{library}:{last_part(source)}", "name": last_part(source)}
    return public


def public_card(card: ModelCard) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a card, without the path of a local base model (PEFT's card has it three times)."""
    facts, text = card.data.to_dict(), card.text
    named = facts.get("base_model")
    if isinstance(named, str) and BaseModel.of(named).name != named:
        base = BaseModel.of(named)
        text = text.replace(named, base.name)
        facts["tags"] = [tag for tag in facts.get("tags", []) if named not in tag]
        facts["base_model"] = base.hub_id
    return facts, text


def private_places(text: str, folders: Sequence[str] = (), token: str | None = None) -> list[tuple[int, str]]:
    """
    Where a text that is to be published names this machine, somebody's home folder or a token.

    Args:
        text (`str`):
            What would be published.
        folders (`Sequence[str]`, *optional*):
            Paths that must not be in it.
        token (`str`, *optional*):
            The token in use; what looks like one of the Hub's is found without it.

    Returns:
        `list[tuple[int, str]]`: line (from 1) and what is there; a token is not shown.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if _HUB_TOKEN.search(line) or (token and token in line):
            found.append((number, "a Hub token"))
        elif match := _HOME.search(line):
            found.append((number, f"the path {match[0]!r}"))
        else:
            found += [(number, f"the path {folder!r}") for folder in folders if folder in line][:1]
    return found


def _without_path(value: Any) -> Any:
    """A value of a configuration; a text that is the absolute path of something here keeps its last part."""
    if isinstance(value, dict):
        return {key: _without_path(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_path(inner) for inner in value]
    # That it exists tells it from a name with slashes, such as the labels `/m/01g317` of Open Images.
    if isinstance(value, str) and _ABSOLUTE.fullmatch(value) and os.path.exists(os.path.expanduser(value)):
        return BaseModel.of(value).name or "."
    return value


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The model that was trained: its name for people, its Hub id if it has one, and where its card may lie."""

    name: str
    hub_id: str | None
    folder: Path | None

    @classmethod
    def of(cls, name_or_path: str) -> BaseModel:
        """From what a config notes: a Hub id, a path, or a path in the Hub cache."""
        cached = _SNAPSHOT.search(name_or_path)
        if cached:  # a Hub model, loaded by its place in the cache
            hub_id = f"{cached['owner']}/{cached['name']}"
            return cls(hub_id, hub_id, Path(name_or_path))
        if is_hub_id(name_or_path):
            return cls(name_or_path, name_or_path, None)
        return cls(last_part(name_or_path), None, Path(name_or_path) if name_or_path else None)

    def licence(self) -> dict[str, str]:
        """The licence as the base model's card states it, if that card is on this machine; else nothing."""
        found: Any = self.folder / "README.md" if self.folder is not None else None
        if self.folder is None and self.hub_id is not None:
            found = try_to_load_from_cache(self.hub_id, "README.md")
        if not isinstance(found, str | Path) or not Path(found).is_file():
            return {}
        try:
            data = ModelCard.load(found).data
        except (ValueError, OSError, yaml.YAMLError):  # somebody else's card: its errors are not ours
            return {}
        stated = {key: data.get(key) for key in ("license", "license_name", "license_link")}
        if str(stated["license_link"] or "").partition("://")[0] not in ("http", "https"):
            stated["license_link"] = None  # relative to the other repository
        return {key: value for key, value in stated.items() if isinstance(value, str) and value}


def is_hub_id(name: str) -> bool:
    """Whether a name can be a Hub id, rather than a path on this machine."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    looks_like_file = name.count("/") != 1 and PurePosixPath(name).suffix in (".jsonl", ".json", ".csv", ".parquet")
    return bool(name) and not looks_like_file and not os.path.exists(name)


def last_part(path: str) -> str:
    """The last component of a path, whatever system it is from; the home folder has none."""
    if path and Path(path).expanduser() == Path.home():
        return "~"
    parts = PureWindowsPath(path).parts if "\\" in path else PurePosixPath(path).parts
    return parts[-1] if parts and parts[-1] not in ("/", "\\", "..", ".") else ""


def without_paths(value: str) -> str:
    """A command-line value in which local paths are reduced to their last component and tokens are masked."""
    if value[:1] in "{[":
        try:
            return json.dumps(_walk(json.loads(value)), ensure_ascii=False)
        except json.JSONDecodeError:
            pass
    value = _HUB_TOKEN.sub("***", value)
    if "://" not in value:
        absolute = value.startswith(("/", "~", "./", "../", ".\\", "..\\")) or re.match(r"[A-Za-z]:[/\\]", value)
        if value and (absolute or os.path.exists(value)):
            return last_part(value) or "."
    return _INNER_PATH.sub(lambda found: last_part(found[0]), value)


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "***" if _SECRET_OPTION.search(key) else _walk(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner) for inner in value]
    return without_paths(value) if isinstance(value, str) else value


def public_command(arguments: Sequence[str]) -> str:
    """`sys.argv` as a line for the shell, without local paths and secrets; empty in a notebook or for `python -c`."""
    program = arguments[0] if arguments else ""
    if program in ("", "-c", "-m") or "ipykernel" in program:
        return ""
    shown, secret_follows = [last_part(program)], False
    if shown == ["__main__.py"]:
        shown = ["-m", Path(program).parent.name]
    for argument in arguments[1:]:
        option, equals, value = argument.partition("=")
        is_option = argument.startswith("-")
        if secret_follows and not is_option:
            shown.append("***")
            secret_follows = False
            continue
        secret_follows = is_option and not equals and bool(_SECRET_OPTION.search(option))
        if is_option and equals:
            shown.append(f"{option}={'***' if _SECRET_OPTION.search(option) else without_paths(value)}")
        else:
            shown.append(argument if is_option else without_paths(argument))
    if shown[:1] == ["fairpo"]:  # the console script
        return shlex.join(printable(argument) for argument in shown)
    return "python " + shlex.join(printable(argument) for argument in shown)


def printable(text: str) -> str:
    """One line, without control and direction characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
