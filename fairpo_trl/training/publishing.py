"""Folders that are ready for the Hub, and the model a card is about."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache

from fairpo_trl.hub.privacy import is_hub_id, last_part, public_config, snapshot_id


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


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The model that was trained: its name for people, its Hub id if it has one, and where its card may lie."""

    name: str
    hub_id: str | None
    folder: Path | None

    @classmethod
    def of(cls, name_or_path: str) -> BaseModel:
        """From what a config notes: a Hub id, a path, or a path in the Hub cache."""
        hub_id = snapshot_id(name_or_path)
        if hub_id:  # a Hub model, loaded by its place in the cache
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
