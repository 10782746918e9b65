"""FineGrainedRLHF (QA-Feedback): labelled errors with a correction, and comparisons of four answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from fairpo_trl.preferences.rows import Collector, Converted, as_number, field, list_field, text_field, user


ATTRIBUTES = ("relevance", "factuality", "completeness", "overall")

_ATTRIBUTE_OF = {
    "Irrelevant": "relevance",
    "Redundant": "relevance",
    "Incoherent": "relevance",
    "Wrong-Grounding": "factuality",
    "Unverifiable": "factuality",
}


def convert(rows: Iterable[Mapping[str, Any]], *, passages: bool = True) -> Converted:
    """
    Pairs from the questions in `train_feedback.json` and `dev_feedback.json` of FineGrainedRLHF (Apache-2.0).

    The files are published at https://github.com/allenai/FineGrainedRLHF in `tasks/qa_feedback/data`, not on the Hub.
    A row has `question`, `passages` (lists of a title and sentences), `prediction 1` to `prediction 4`, `preference`
    (six comparisons, of predictions 1-2, 1-3, 1-4, 2-3, 2-4, 3-4: 1 or 2 for the better one, 0 for none) and
    `feedback` on prediction 1: `errors` (spans with an `error type`), `missing-info`, `corrected-prediction`.

    The human correction is chosen over prediction 1, once for each attribute with a labelled error: `relevance`
    (irrelevant, redundant or incoherent spans), `factuality` (wrongly grounded or unverifiable spans), `completeness`
    (missing information). A correction mends all errors at once, so an answer with errors of several kinds gives the
    same pair to several attributes. The comparisons say which answer is better as a whole; the other three answers
    have no labelled errors, so no comparison can be given to one of these attributes: they are the attribute
    `overall`.

    The ids of pairs name the row and the two answers (`c` is the correction).

    Dropped: labelled errors without a correction (`no_correction`), error labels of unknown type
    (`unknown_error_type`), comparisons without a preference (`no_preference`), rows without a question
    (`empty_prompt`), pairs with an empty response (`empty_response`) or the same response twice
    (`identical_responses`).

    Args:
        passages (`bool`, *optional*, defaults to `True`):
            Whether the passages stand before the question in the prompt: factuality means agreement with them.
    """
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of FineGrainedRLHF"
        question = text_field(row, "question", where)
        answers = [text_field(row, f"prediction {k}", where) for k in range(1, 5)]
        comparisons = _comparisons(row, where)
        feedback = field(row, "feedback", where)
        corrected = text_field(feedback, "corrected-prediction", f"{where}, feedback")
        attributes, unknown = _labelled(feedback, f"{where}, feedback")
        context = _passages(row, where) if passages else ""
        if not question.strip():
            collected.drop("empty_prompt")
            continue
        collected.drop("unknown_error_type", count=unknown)
        prompt = user(f"{context}Question: {question.strip()}" if context else question.strip())
        for attribute in attributes:
            if not corrected.strip() or corrected.strip() == answers[0].strip():
                collected.drop("no_correction", attribute)
            else:
                collected.keep(f"finegrained_rlhf-{index}-c-1", prompt, corrected, answers[0], attribute)
        for (first, second), better in zip(combinations(range(4), 2), comparisons, strict=True):
            if better not in (1, 2):
                collected.drop("no_preference", "overall")
                continue
            chosen, rejected = (first, second) if better == 1 else (second, first)
            identity = f"finegrained_rlhf-{index}-{chosen + 1}-{rejected + 1}"
            collected.keep(identity, prompt, answers[chosen], answers[rejected], "overall")
    return collected.done()


def _comparisons(row: Mapping[str, Any], where: str) -> list[float | None]:
    """The six comparisons; all without a preference if there are none."""
    values = list_field(row, "preference", where)
    if len(values) not in (0, 6):
        raise ValueError(f"{where}: `preference` must hold 6 comparisons of 4 answers, got {len(values)}.")
    return [as_number(value) for value in values] or [None] * 6


def _labelled(feedback: Mapping[str, Any], where: str) -> tuple[list[str], int]:
    """The attributes with a labelled error, and the number of errors of unknown type."""
    types = [field(error, "error type", where) for error in list_field(feedback, "errors", where)]
    names = {_ATTRIBUTE_OF[kind] for kind in types if isinstance(kind, str) and kind in _ATTRIBUTE_OF}
    if list_field(feedback, "missing-info", where):
        names.add("completeness")
    unknown = sum(not isinstance(kind, str) or kind not in _ATTRIBUTE_OF for kind in types)
    return [name for name in ATTRIBUTES if name in names], unknown


def _passages(row: Mapping[str, Any], where: str) -> str:
    """The passages as text, each under its title."""
    blocks = []
    for passage in list_field(row, "passages", where):
        if not isinstance(passage, (list, tuple)) or not all(isinstance(sentence, str) for sentence in passage):
            raise ValueError(f"{where}: each of the `passages` must be a list of a title and sentences.")
        blocks.append("\n".join([*passage[:1], " ".join(passage[1:])]).strip())
    return "".join(f"{block}\n\n" for block in blocks)
