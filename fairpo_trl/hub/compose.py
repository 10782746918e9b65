"""The card of a pushed model: what the trainer wrote, completed with results, limits, licences and how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fairpo_trl.classification import model_card as classifier_card
from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation import model_card as language_card
from fairpo_trl.hub.card import BaseModel, as_list, escaped, fill, markdown_table, public_card
from fairpo_trl.hub.contents import Kind, has_chat_template, has_tokenizer, read_json
from fairpo_trl.hub.privacy import is_hub_id, last_part, one_line, public_value
from fairpo_trl.hub.results import AnyResults, became_worse, evaluation_results, evaluation_section
from fairpo_trl.reporting.numbers import role_text
from fairpo_trl.training.checkpoints import list_checkpoints
from fairpo_trl.training.state import STATE_NAME


UNKNOWN = "unknown: look it up"
"""Said of a licence that nothing on this machine tells."""

_BOILERPLATE = "[More Information Needed]"  # of the card PEFT writes
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class CardFacts:
    """
    What the author says and the folder does not.

    Attributes:
        license (`str`, *optional*): Licence of these weights, as the Hub spells it (`apache-2.0`).
        dataset (`str`, *optional*): Hub id or name of the training data.
        dataset_license (`str`, *optional*): Its licence.

    Raises:
        ValueError: If a licence is not spelt as on the Hub.
    """

    license: str | None = None
    dataset: str | None = None
    dataset_license: str | None = None

    def __post_init__(self) -> None:
        for option in ("license", "dataset_license"):
            value = getattr(self, option)
            if value is not None and not _LICENCE.fullmatch(value):
                spelt = re.sub(r"[^a-z0-9.+]+", "-", value.lower()).strip("-") or "apache-2.0"
                raise ValueError(f"`--{option}` is spelt as on the Hub, in small letters, got {value!r}: `{spelt}`?")


def compose_card(
    folder: str | Path,
    kind: Kind,
    repo_id: str,
    results: AnyResults | None = None,
    facts: CardFacts | None = None,
    adapter: str | Path | None = None,
) -> str:
    """
    The card, front matter and Markdown; nothing is written to disk.

    The card in the folder stays, but for how to load the model (the repository has its name now) and what the results
    replace; a section on use, limits or licences that is there already is the author's.

    Args:
        folder (`str` or `Path`):
            The saved model.
        kind (`str`):
            What it is.
        repo_id (`str`):
            Hub id it will have.
        results ([`~fairpo_trl.reporting.Results`] or [`~fairpo_trl.reporting.LabelResults`], *optional*):
            Those of the run.
        facts ([`CardFacts`], *optional*):
            Licences and data.
        adapter (`str` or `Path`, *optional*):
            For a merged model: the adapter, whose card, partition and base it has.

    Raises:
        ValueError: If the card in the folder cannot be read, or the results are of another model.
    """
    folder, facts = Path(folder), facts or CardFacts()
    origin = Path(adapter) if adapter is not None else folder
    metadata, text = _existing(origin)
    partition = _partition(origin, kind, results)
    datasets = [facts.dataset] if facts.dataset else as_list(metadata.get("datasets"))
    if kind == "classifier":
        about = _about_classifier(folder, repo_id, datasets)
    else:
        about = _about_language_model(folder, kind, repo_id, datasets, metadata, origin, partition is not None)
    introduction, sections = _split(text)
    privileged = partition.privileged if partition is not None else ()
    fell = became_worse(results) if results is not None else []
    mine = {
        "Quick start": about.snippet,
        "Evaluation": evaluation_section(results) if results is not None else "",
        "Partition": _partition_table(partition) if "Attributes and results" not in sections else "",
        "Intended use": fill("intended_use", kind=kind, names=", ".join(map(escaped, privileged))),
        "Limits": fill("limits", kind=kind, base=about.base, compared=results is not None, fell=fell),
        "Licences": _licences(about.base, datasets, facts, metadata),
    }
    authors = {"Intended use", "Limits"} | ({"Licences"} if not (facts.license or facts.dataset_license) else set())
    mine |= {name: sections[name] for name in authors if name in sections}
    if results is not None and kind == "classifier":  # the evaluation has both, with intervals
        sections = {name: body for name, body in sections.items() if name not in ("Results", "Labels")}
    head = introduction or f"# Model Card for {escaped(repo_id.rpartition('/')[2])}\n\n{about.introduction}"
    merged = "\n\nThe adapter is merged into the base model here." if adapter is not None else ""
    body = {**mine, **{name: body for name, body in sections.items() if name not in mine}}
    parts = [head + merged, *(f"## {name}\n\n{section}" for name, section in body.items() if section)]
    data = _metadata(metadata, repo_id, kind, about, datasets, facts, results, partition is not None)
    written = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"
    ModelCard(written)  # what the Hub will read; raises for metadata it cannot
    return written


# ---- what the folder tells ----


@dataclass(frozen=True)
class _About:
    introduction: str
    snippet: str
    base: BaseModel
    method: str | None = None


def _about_classifier(folder: Path, repo_id: str, datasets: list[str]) -> _About:
    config = MultiLabelClassifierConfig.from_pretrained(folder)
    spec = str((config.backbone or {}).get("spec", ""))
    base = BaseModel.of(spec.partition(":")[2])
    if "/" not in (base.hub_id or ""):  # timm's own name of a model, which is no Hub id
        base = replace(base, hub_id=None)
    return _About(
        classifier_card.introduction(config, public_value(datasets[0]) if datasets else None),
        classifier_card.loading_snippet(repo_id, config),
        base,
    )


def _about_language_model(
    folder: Path,
    kind: Kind,
    repo_id: str,
    datasets: list[str],
    metadata: Mapping[str, Any],
    origin: Path,
    by_fairpo: bool,
) -> _About:
    adapter = origin / "adapter_config.json"
    config = read_json(adapter) if adapter.is_file() else {}
    base = BaseModel.of(config.get("base_model_name_or_path") or str(metadata.get("base_model") or ""))
    method = str(config.get("peft_type") or "").lower() or None if kind == "adapter" else None
    if by_fairpo or "fairpo" in as_list(metadata.get("tags")):
        told = f"{language_card.introduction(base, method, datasets)}\n\n{language_card.about_fairpo()}"
    else:
        what = f"A PEFT adapter ({method}) of {escaped(base.name or 'an unnamed model')}" if method else "A model"
        told = f"{what}. How it was trained is not recorded in its folder."
    snippet = language_card.loading_snippet(repo_id, base, method, has_chat_template(folder), has_tokenizer(folder))
    return _About(told, snippet, base, method)


def _existing(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of the card in a folder, without local paths; no text where it is only PEFT's form."""
    path = folder / "README.md"
    if not path.is_file():
        return {}, ""
    try:
        card = ModelCard.load(path)
        metadata, text = public_card(card)
    except (ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: the metadata between the `---` lines cannot be read ({told}).") from error
    metadata["eval_results"] = card.data.eval_results
    return metadata, "" if _BOILERPLATE in text else text


def _partition(folder: Path, kind: Kind, results: AnyResults | None) -> Partition | None:
    """Who is privileged: from the classifier, the last checkpoint or the results, which must not contradict."""
    saved: dict[str, Any] | None = None
    if kind == "classifier":
        config = read_json(folder / "config.json")
        saved = config.get("partition")
        if results is not None and sorted(results.partition) != sorted(config.get("label_names", ())):
            raise ValueError("The results are of another model: their labels are not those of this classifier.")
    else:
        states = [path / STATE_NAME for path in (folder, *reversed(list_checkpoints(folder)))]
        found = next((path for path in states if path.is_file()), None)
        saved = read_json(found)["partition"] if found is not None else None
    known = Partition.from_dict(saved) if saved else None
    if results is None:
        return known
    roles = results.partition
    told = Partition.by_name(tuple(roles), [name for name, role in roles.items() if role == "privileged"])
    if known is not None and set(known.privileged) != set(told.privileged):
        raise ValueError(
            f"The results are of another run: there {sorted(told.privileged)} is privileged, in this model "
            f"{sorted(known.privileged)}. Name its own with `--results`."
        )
    return told


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first `## ` heading, and the text below each; headings in code blocks are code."""
    introduction, current, fence = "", "", ""
    sections: dict[str, str] = {}
    for line in text.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        if line.startswith("## ") and not fence:
            current = line.removeprefix("## ").strip()
            sections.setdefault(current, "")
        elif current:
            sections[current] += line + "\n"
        else:
            introduction += line + "\n"
    return introduction.strip(), {name: body.strip() for name, body in sections.items()}


# ---- the parts of the card ----


def _metadata(
    found: Mapping[str, Any],
    repo_id: str,
    kind: Kind,
    about: _About,
    datasets: Sequence[str],
    facts: CardFacts,
    results: AnyResults | None,
    by_fairpo: bool,
) -> ModelCardData:
    tags = {*as_list(found.get("tags")), *(["fairpo", "group-robust"] if by_fairpo else [])}
    if about.method:
        tags.add(about.method)
    elif kind == "model":
        tags -= {"lora"}
    stated = {key: found[key] for key in ("license", "license_name", "license_link") if found.get(key)}
    licence = {"license": facts.license} if facts.license else stated or about.base.licence()
    hub_id = about.base.hub_id
    kept = {
        key: value
        for key, value in found.items()
        if key not in ("model-index", "eval_results", "licence", "license", "license_name", "license_link")
    }
    entries = {
        **kept,
        **licence,
        "model_name": one_line(repo_id.rpartition("/")[2]),
        "base_model": hub_id,
        "base_model_relation": None if not hub_id else "adapter" if kind == "adapter" else "finetune",
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "image-classification" if kind == "classifier" else "text-generation",
        "datasets": [name for name in datasets if is_hub_id(name) and "/" in name] or None,
        "tags": sorted(tag for tag in tags if not tag.startswith("base_model:")) or None,
        "eval_results": _together(found.get("eval_results") or [], evaluation_results(results)) or None,
    }
    return ModelCardData(**{key: value for key, value in entries.items() if value is not None})


def _together(old: Iterable[EvalResult], new: Iterable[EvalResult]) -> list[EvalResult]:
    """Each metric once, the newer value of two."""
    by_name = {(result.metric_type, result.metric_name): result for result in [*old, *new]}
    return list(by_name.values())


def _partition_table(partition: Partition | None) -> str:
    if partition is None:
        return "Which names were privileged is not recorded in the folder of this model."
    rows = [
        [role_text(role), str(len(names)), ", ".join(map(escaped, names)) or "none"]
        for role, names in (("privileged", partition.privileged), ("non_privileged", partition.non_privileged))
    ]
    return (
        markdown_table(["Role", "Number", "Names"], rows)
        + "\n\n*Privileged*: should get better than the reference. *Held*: must not get worse. Names, not people."
    )


def _licences(base: BaseModel, datasets: Sequence[str], facts: CardFacts, metadata: Mapping[str, Any]) -> str:
    own = facts.license or metadata.get("license_name") or metadata.get("license")
    of_base = base.licence()
    of_base_name = of_base.get("license_name") or of_base.get("license")
    what = f"[{base.hub_id}](https://huggingface.co/{base.hub_id})" if base.hub_id else escaped(base.name)
    data = ", ".join(escaped(name if is_hub_id(name) else last_part(name)) for name in datasets)

    def told(licence: str | None) -> str:
        return escaped(licence) if licence else UNKNOWN

    rows = [
        ["these weights", "", told(own or of_base_name)],
        ["base model", what or "not recorded", told(of_base_name)],
        ["training data", data or "not recorded", told(facts.dataset_license)],
    ]
    return markdown_table(["What", "Which", "Licence"], rows)
