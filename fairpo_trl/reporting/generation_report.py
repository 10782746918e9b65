"""The report of a language model: its results as tables of typed cells, texts and curves."""

from __future__ import annotations

from collections.abc import Callable

from fairpo_trl.reporting.blocks import (
    Block,
    Lines,
    Report,
    Row,
    Sections,
    Shown,
    Text,
    Texts,
    known,
    sections_of,
    with_content,
)
from fairpo_trl.reporting.cells import Mean, Outcome, Value, difference, text_of
from fairpo_trl.reporting.documents import ROLES
from fairpo_trl.reporting.numbers import ABSENT, Unit, duration, judge_text, role_text, share
from fairpo_trl.reporting.results import AttributeResult, Regression, Results, Sample
from fairpo_trl.reporting.verdict import generation_verdict


GUARDS: dict[str, tuple[str, Unit]] = {
    "completions": ("completions", "count"),
    "mean_words": ("words per completion", "decimal"),
    "repeating_share": ("repeats a run of 4 words, %", "percent"),
    "short_share": ("3 words or fewer, %", "percent"),
    "unended_share": ("cut at the length limit, %", "percent"),
    "distinct_share": ("distinct texts, %", "percent"),
    "mean_token_log_prob": ("log-prob. per token under the reference, nats", "decimal"),
}
"""Name of a guard -> how it is called and written; others are called by their names."""


def generation_report(results: Results) -> Report:
    """
    What every medium shows of a run; a part without numbers is left out.

    A new part is one more function from the results to a [`Block`] (or `None`), named in the list below.
    """
    further: list[Shown | None] = [
        scores_block(results),
        negative_flips_block(results),
        pairs_block(results),
        Lines("Group weights during training", "weight", results.weights_history, results.partition),
        Lines("Margins of the pairs over the reference", "nats", results.margins_history, results.partition, 0.0),
        guards_block(results),
        judges_block(results),
        Texts("What the models write", tuple(map(_sample, results.samples))),
        Texts("Worst regressions", tuple(map(_regression, results.regressions)), regressions=True),
    ]
    facts = {
        "model": results.model,
        "data": results.data,
        "hardware": results.hardware,
        **{role_text(role): ", ".join(results.names_of(role)) or ABSENT for role in ROLES},
        "seeds": ", ".join(map(str, results.seeds)),
        "time": None if results.seconds is None else duration(results.seconds),
    }
    return Report(
        title=results.title,
        kind="language model",
        first=(win_rate_block(results),),
        further=with_content(further),
        facts=known(facts),
        settings=results.settings,
        command=results.command,
        verdict=generation_verdict(results),
        name=results.name or results.title,
        reference_name=results.reference_name,
    )


def win_rate_block(results: Results) -> Block:
    """Win rates against the reference, one row per attribute and judge; attributes without any show dashes."""
    controlled = any(entry.length_controlled for entry in results.attributes)

    def rows(entry: AttributeResult) -> list[Row]:
        found: list[Row] = []
        for judge, rates in entry.win_rate.items():
            at_length = (Mean(entry.length_controlled.get(judge)),) if controlled else ()
            found.append(
                (
                    entry.attribute,
                    judge_text(judge),
                    difference(rates.difference),
                    Outcome(rates.difference),
                    Mean(rates.trained),
                    Mean(rates.reference_vs_itself),
                    *at_length,
                )
            )
        return found or [(entry.attribute, ABSENT, *[ABSENT] * (5 if controlled else 4))]

    judged = [rates for entry in results.attributes for rates in entry.win_rate.values()]
    prompts = {rates.trained.n for rates in judged}
    counted = f" Mean over {prompts.pop()} held-out prompts." if len(prompts) == 1 and None not in prompts else ""
    note = (
        f"Win rates of fresh completions against the reference; .50 is as good as it.{counted} The difference is "
        "trained minus reference against itself with another seed, paired by prompt. In brackets: 95 % intervals."
    )
    if controlled:
        note += " At equal length: the win rate predicted for completions as long as the reference's."
    if not results.shared_draws:
        note += (
            " The texts were written elsewhere, with draws that the models do not share: intervals hold the noise of "
            "two draws, and are wider than they would be here."
        )
    differences = any(rates.difference for rates in judged)
    at_length = ("at equal\nlength",) if controlled else ()
    return Block(
        "Win rates against the reference",
        ("attribute", "judge", "difference", "", "trained", "reference\nvs itself", *at_length),
        _sections(results, rows),
        texts=2,
        note=note,
        wide=controlled,
        roles=tuple(entry.role for entry in results.by_role() for _ in entry.win_rate or [None]),
        drawn=(2 if differences else 4) if judged else None,
    )


def scores_block(results: Results) -> Block:
    """Mean scores of both models, one row per attribute and judge."""

    def rows(entry: AttributeResult) -> list[Row]:
        return [
            (
                entry.attribute,
                judge_text(judge),
                Mean(found.reference),
                Mean(found.trained),
                difference(found.difference),
                Outcome(found.difference),
            )
            for judge, found in entry.scores.items()
        ]

    return Block(
        "Mean scores",
        ("attribute", "judge", "reference", "trained", "difference", ""),
        _sections(results, rows),
        texts=2,
        note="In each judge's own unit; the difference is paired by prompt.",
        wide=True,
    )


def negative_flips_block(results: Results) -> Block:
    """Prompts that every sample of the trained model loses, one row per attribute and judge."""

    def rows(entry: AttributeResult) -> list[Row]:
        return [
            (
                entry.attribute,
                judge_text(judge),
                Value(found.trained, "percent"),
                Value(found.reference_vs_itself, "percent"),
                Value(found.n, "count"),
            )
            for judge, found in entry.negative_flips.items()
        ]

    return Block(
        "Negative flips: prompts that are lost wholly, %",
        ("attribute", "judge", "trained", "reference\nvs itself", "prompts"),
        _sections(results, rows),
        texts=2,
        note="A prompt on which every sample of the trained model loses to every one of the reference's. The "
        "reference against itself says how often chance alone does that.",
    )


def pairs_block(results: Results) -> Block | None:
    """Held-out pairs of every attribute: count, accuracy, share inside the hinge, final weight; `None` without any."""

    def rows(entry: AttributeResult) -> list[Row]:
        accuracy = entry.pair_accuracy
        return [
            (
                entry.attribute,
                Value(entry.pairs, "count"),
                Value(accuracy.reference if accuracy else None),
                Value(accuracy.trained if accuracy else None),
                Value(entry.inside_hinge),
                Value(entry.final_weight),
            )
        ]

    parts = {"pairs", "pair_accuracy", "inside_hinge", "final_weight"}
    if not any(parts & entry.model_fields_set for entry in results.attributes):
        return None
    return Block(
        "Held-out preference pairs",
        ("attribute", "pairs", "accuracy,\nreference", "accuracy,\ntrained", "inside\nhinge", "final\nweight"),
        _sections(results, rows),
        note="Accuracy: share of pairs whose preferred text is the more probable one. Inside hinge: share of pairs "
        "without hinge loss. Final weight: of the attribute's group at the end of training.",
    )


def guards_block(results: Results) -> Block | None:
    """Guards against degenerate text, reference against trained; `None` if they were not computed."""
    if results.guards is None:
        return None
    reference, trained = results.guards.reference, results.guards.trained
    rows: list[Row] = []
    for name in dict.fromkeys([*GUARDS, *reference, *trained]):
        if name in reference or name in trained:
            unit: Unit = "percent" if name.endswith("_share") else "decimal"
            label, unit = GUARDS.get(name, (name.replace("_", " "), unit))
            rows.append((label, Value(reference.get(name), unit), Value(trained.get(name), unit)))
    return Block("Does the text stay sound?", ("", "reference", "trained"), (("", tuple(rows)),))


def judges_block(results: Results) -> Block | None:
    """What the judges were and did; `None` if it is not known."""
    if not results.judges:
        return None
    rows: tuple[Row, ...] = tuple(
        (judge_text(name), calls.kind, *(Value(n, "count") for n in (calls.calls, calls.cached, calls.failures)))
        for name, calls in results.judges.items()
    )
    note = "Failed calls are left out of every number."
    return Block("Judges", ("judge", "kind", "calls", "from cache", "failures"), (("", rows),), texts=2, note=note)


def _sample(sample: Sample) -> Text:
    said = tuple(
        (name, f"{name} {share(found.reference)} → {share(found.trained)}") for name, found in sample.scores.items()
    )
    return Text(sample.prompt, sample.reference, sample.trained, said)


def _regression(found: Regression) -> Text:
    told = f"{found.attribute} {text_of(Value(found.change, signed=True))} by the {judge_text(found.judge)}"
    return Text(found.prompt, found.reference, found.trained, ((found.attribute, told),))


def _sections(results: Results, rows: Callable[[AttributeResult], list[Row]]) -> Sections:
    return sections_of([(role_text(entry.role), row) for entry in results.by_role() for row in rows(entry)])
