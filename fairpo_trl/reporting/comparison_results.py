"""The comparison of many multi-label methods on one split, as a results document."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import model_validator

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.reporting.documents import Count, Interval, Number, Part, one_of, require
from fairpo_trl.reporting.label_results import Hinge, LabelDocument, MaybeNumber


Section: TypeAlias = Literal["reference", "methods", "reweighting", "ablations", "variants"]
"""Part of the table a method stands in, in this order."""

SECTIONS: tuple[Section, ...] = get_args(Section)
CONTINUED = "bce_continued"
"""Name of the control: the reference, trained further for as long as the methods."""


class MethodResult(Part):
    """
    One method with one head: means over its seeds, and what changed.

    Attributes:
        name, label (`str`): For programs and for people.
        section, head (`str`): Part of the table, see [`Section`], and name of its head.
        groups (`dict`): Group -> metric -> mean; `paper_map` follows the per-batch protocol of the slides and is
            comparable with nothing else.
        seeds (`int`, *optional*), seconds (`float`, *optional*): Of its runs.
        seed_sd (`dict`, *optional*): As `groups`: standard deviations over seeds.
        delta_reference, delta_continued (`dict[str, Interval]`, *optional*): Change of mAP by group against the
            reference, and against continued BCE.
        factor (`float`, *optional*): Of a row of the re-weighting curve: how much more privileged labels weigh.
        fell, fell_surely (`list[str]`, *optional*): Held labels that lost more than the allowed points, and those
            with their whole interval.
        hinge ([`Hinge`], *optional*), confusion (`float`, *optional*): See [`LabelResults`].
        bands (`dict`, *optional*): mAP of frequent (`head`), middling and rare (`tail`) labels.
    """

    name: str
    label: str
    section: Annotated[Section, one_of("section", SECTIONS)]
    head: str
    groups: dict[str, dict[str, MaybeNumber]]
    seeds: Count | None = None
    seconds: Number | None = None
    seed_sd: dict[str, dict[str, MaybeNumber]] = {}
    delta_reference: dict[str, Interval] = {}
    delta_continued: dict[str, Interval] = {}
    factor: MaybeNumber = None
    fell: list[str] | None = None
    fell_surely: list[str] | None = None
    hinge: Hinge | None = None
    confusion: MaybeNumber = None
    bands: dict[str, MaybeNumber] = {}

    @property
    def key(self) -> str:
        """`name, head`: the key of a method in `per_label`."""
        return f"{self.name}, {self.head}"


class ConfusedPair(Part):
    """In how many images with `label`, out of `opportunities`, the absent `confused_with` scored as high or higher."""

    label: str
    confused_with: str
    before: Count
    after: Count
    opportunities: Count | None = None
    change: Count | None = None


class ConfusedPairs(Part):
    """The most confused pairs of the reference (`before`) and of a method (`after`, named by `method`)."""

    method: str = ""
    pairs: list[ConfusedPair] = []


class LabelComparison(LabelDocument):
    """
    Many methods on one split. Further attributes than [`LabelDocument`]'s:

    Attributes:
        heads (`dict[str, str]`): Name of a head -> its description.
        trivial (`dict`): Baseline that looks at no image -> group -> metric -> value.
        methods (`list[MethodResult]`): The methods.
        per_label (`dict[str, dict[str, Interval]]`, *optional*): [`MethodResult.key`] -> label -> its change of AP
            against the reference.
        allowed_fall (`float`, *optional*): Fall of AP that a held label was allowed: 0.01 is one point.
        confused_pairs ([`ConfusedPairs`], *optional*): Before and after.
    """

    heads: dict[str, str]
    trivial: dict[str, dict[str, dict[str, MaybeNumber]]]
    methods: list[MethodResult]
    per_label: dict[str, dict[str, Interval]] = {}
    allowed_fall: Number | None = None
    confused_pairs: ConfusedPairs = ConfusedPairs()

    @model_validator(mode="after")
    def _known_methods(self) -> LabelComparison:
        keys = [method.key for method in self.methods]
        for i, method in enumerate(self.methods):
            place = f"methods[{i}] ({method.name})"
            require(
                method.head in self.heads, place + ": " + unknown_names_message("head", [method.head], [*self.heads])
            )
            require(keys.index(method.key) == i, f"methods[{i}]: {method.key!r} stands there twice")
            for part in ("fell", "fell_surely"):
                self.check_labels(f"methods[{i}].{part}", getattr(method, part) or [])
        for key, deltas in self.per_label.items():
            require(key in keys, unknown_names_message("method, head", [key], keys))
            self.check_labels(f"per_label.{key}", deltas)
        return self

    def used_heads(self) -> list[str]:
        """The heads that have a method."""
        return [head for head in self.heads if any(method.head == head for method in self.methods)]

    def of_head(self, head: str) -> list[MethodResult]:
        """The methods of a head in the order of the sections."""
        found = [method for method in self.methods if method.head == head]
        return sorted(found, key=lambda method: SECTIONS.index(method.section))
