"""
The labels: for each one which folders, keywords and words of a title or file name say that the picture shows it.

The library has 2,000 free keywords and 150 folders. A rule of labels.yaml joins what people wrote for one visible
thing: synonyms, plurals, the Italian and French of two prolific authors. A label stands for something a person can
point at in the picture. So these keywords have no label:

- what one must know, not see: countries and continents of flags, membership of the United Nations, names of persons;
- formats, tools and authors: icon, clip art, menu, theme, webpage, hash, names of artists, unsorted;
- purposes and wide headings: recreation, special, work, education, security, entertainment, study, religion.

A narrow label brings its wide one (`implies`): a picture filed under dog also shows a mammal and an animal. People tag
one or the other, so without this the wide label would be missing at random.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from .sources import Picture


@dataclass(frozen=True)
class Rule:
    """Any one of `folders`, `keywords` and `words` is enough; the other fields take the label away or pass it on."""

    folders: str | None = None
    """Regular expression, matched at the beginning of a folder's path."""

    keywords: tuple[str, ...] = ()
    """Whole keywords of the drawing's RDF."""

    words: tuple[str, ...] = ()
    """Words of titles and file names."""

    but_not: tuple[str, ...] = ()
    """Words that rule the label out, whatever said it: a teddy bear is no animal."""

    not_in: str | None = None
    """Folders that rule it out, as a regular expression."""

    unless: tuple[str, ...] = ()
    """Labels that rule it out: flags carry the keyword sign."""

    implies: tuple[str, ...] = ()
    """Labels that come with it."""


def read_rules(path: Path) -> dict[str, Rule]:
    """The rules of a YAML file by label, in its order; labels in `implies` and `unless` must exist."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    rules = {
        label: Rule(**{field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()})
        for label, fields in entries.items()
    }
    for label, rule in rules.items():
        unknown = set(rule.implies + rule.unless) - set(rules)
        if unknown:
            raise ValueError(f"{path.name}: label {label!r} names labels that do not exist: {sorted(unknown)}.")
    return rules


RULES = read_rules(Path(__file__).with_name("labels.yaml"))


def _within(pattern: str | None, folders: set[str]) -> bool:
    return pattern is not None and any(re.match(pattern, folder) for folder in folders)


def labels_of(picture: Picture) -> list[str]:
    """The labels of a picture in the order of `RULES`, implied ones included."""
    found, ruled_out = set(), set()
    for label, rule in RULES.items():
        if (
            not picture.keywords.isdisjoint(rule.keywords)
            or not picture.words.isdisjoint(rule.words)
            or _within(rule.folders, picture.folders)
        ):
            found.add(label)
        if not picture.words.isdisjoint(rule.but_not) or _within(rule.not_in, picture.folders):
            ruled_out.add(label)
    found -= ruled_out
    found -= {label for label in found if not found.isdisjoint(RULES[label].unless)}
    waiting = list(found)
    while waiting:
        # What is ruled out stays out, even if a narrower label would bring it.
        implied = set(RULES[waiting.pop()].implies) - found - ruled_out
        found |= implied
        waiting += implied
    return [label for label in RULES if label in found]
