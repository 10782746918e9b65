"""The results of one language model against its reference: `results.json` of `fairpo evaluate` and of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import model_validator

from fairpo_trl.reporting.documents import (
    ROLES,
    Both,
    Count,
    Document,
    Facts,
    History,
    Interval,
    Number,
    Part,
    Role,
    require,
)


class JudgeWinRates(Part):
    """
    Win rates against the reference as seen by one judge (0 to 1; 0.5 is as good as the reference).

    `difference` is `trained - reference_vs_itself`, paired by prompt; the latter compares two seeds of the reference.
    """

    trained: Interval
    reference_vs_itself: Interval | None = None
    difference: Interval | None = None


class PairAccuracy(Part):
    """Share of held-out pairs whose preferred text is the more probable one (0 to 1)."""

    trained: Number
    reference: Number | None = None


class JudgeScores(Part):
    """Mean scores by one judge, in its own unit; `difference` is paired by prompt."""

    trained: Interval
    reference: Interval
    difference: Interval | None = None


class NegativeFlips(Part):
    """Share of `n` prompts on which every sample loses to all of the reference's; its second writing shows chance."""

    trained: Number
    reference_vs_itself: Number
    n: Count


class AttributeResult(Part):
    """
    One attribute.

    Attributes:
        attribute (`str`): Its name.
        role (`str`): `privileged` or `non_privileged`.
        pairs (`int`, *optional*): Number of held-out pairs.
        win_rate (`dict[str, JudgeWinRates]`, *optional*): By judge; the first one is the attribute's own.
        length_controlled (`dict[str, Interval]`, *optional*): Win rate at equal length (0 to 1), by judge.
        scores (`dict[str, JudgeScores]`, *optional*): Mean scores, by judge.
        negative_flips (`dict[str, NegativeFlips]`, *optional*): Prompts that were lost wholly, by judge.
        pair_accuracy ([`PairAccuracy`], *optional*): On held-out pairs.
        inside_hinge (`float`, *optional*): Share of pairs without hinge loss.
        final_weight (`float`, *optional*): Weight of its group at the end of training.
    """

    attribute: str
    role: Role
    pairs: Count | None = None
    win_rate: dict[str, JudgeWinRates] = {}
    length_controlled: dict[str, Interval] = {}
    scores: dict[str, JudgeScores] = {}
    negative_flips: dict[str, NegativeFlips] = {}
    pair_accuracy: PairAccuracy | None = None
    inside_hinge: Number | None = None
    final_weight: Number | None = None

    @property
    def first_difference(self) -> Interval | None:
        """Its difference to the reference against itself, as its first judge sees it."""
        return next((rates.difference for rates in self.win_rate.values()), None)


class Sample(Part):
    """
    One prompt with what either model wrote, word for word.

    `scores`: attribute -> how much of it the first judge saw in either text, in its own unit.
    """

    prompt: str
    reference: str
    trained: str
    scores: dict[str, Both[Number]] = {}


class Regression(Sample):
    """A prompt on which the trained model became worse in one attribute, by `change` of the judge's unit (< 0)."""

    attribute: str
    judge: str
    change: Number


class JudgeCalls(Part):
    """What a judge was and what it did: `failures` were left out of every number."""

    kind: str
    calls: Count
    cached: Count
    failures: Count


class Results(Document):
    """
    One run.

    Attributes:
        title (`str`): Title of its reports.
        partition (`dict[str, str]`): Attribute -> role.
        attributes (`list[AttributeResult]`): What was measured of each.
        command, model, data, hardware (`str`, *optional*): How it came about.
        settings (`dict`, *optional*): Options by name.
        seeds (`list[int]`, *optional*): Seeds of the training.
        seconds (`float`, *optional*): Wall-clock seconds.
        guards (`Both[dict[str, float]]`, *optional*): Whether the text stays sound: means and shares by name (see
            `TextGuards.to_dict`) of either model's completions.
        weights_history, margins_history (`list[dict[str, float]]`, *optional*): Group weights (or multipliers), and
            margins per attribute (nats: log-ratio difference of preferred and rejected text against the reference),
            by optimizer step.
        samples (`list[Sample]`, *optional*): Prompts with both texts.
        regressions (`list[Regression]`, *optional*): The worst changes of each attribute, worst first.
        name, reference_name (`str`, *optional*): What a report calls the two models.
        judges (`dict[str, JudgeCalls]`, *optional*): What the judges of these attributes did.
        shared_draws (`bool`, *optional*, defaults to `True`): Whether both models shared their random numbers while
            they wrote; texts from a server or a file do not.
    """

    VERBATIM: ClassVar[Mapping[str, frozenset[str]]] = {
        "samples": frozenset({"prompt", "reference", "trained"}),
        "regressions": frozenset({"prompt", "reference", "trained"}),
    }

    title: str
    partition: dict[str, Role]
    attributes: list[AttributeResult]
    command: str | None = None
    model: str | None = None
    data: str | None = None
    settings: Facts = {}
    seeds: list[Count] = []
    hardware: str | None = None
    seconds: Number | None = None
    guards: Both[dict[str, Number]] | None = None
    weights_history: History = []
    margins_history: History = []
    samples: list[Sample] = []
    regressions: list[Regression] = []
    name: str | None = None
    reference_name: str = "reference"
    judges: dict[str, JudgeCalls] = {}
    shared_draws: bool = True

    @model_validator(mode="after")
    def _roles_agree(self) -> Results:
        for entry in self.attributes:
            require(
                self.partition.get(entry.attribute) == entry.role,
                f"attribute {entry.attribute!r} has the role {entry.role!r}, another than in partition",
            )
        return self

    def by_role(self) -> list[AttributeResult]:
        """The attributes, privileged ones first, otherwise in their order."""
        return sorted(self.attributes, key=lambda entry: ROLES.index(entry.role))

    def names_of(self, role: Role) -> list[str]:
        """The attributes that the partition gives this role, in its order."""
        return [name for name, found in self.partition.items() if found == role]

    def judge_names(self) -> Sequence[str]:
        """All judges of win rates, in order of first appearance."""
        return list(dict.fromkeys(judge for entry in self.attributes for judge in entry.win_rate))
