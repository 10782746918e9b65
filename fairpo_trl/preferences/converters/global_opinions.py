"""GlobalOpinions: how the people of each country answered survey questions; the country is the attribute."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.pairing import PairingRule, pairs_from_scores
from fairpo_trl.preferences.rows import Collector, Converted, as_number, field, text_field, user


_NO_ANSWER = re.compile(r"(dk|don.?t know|no answer|refused|not asked|not applicable|missing)(\W.*)?", re.I | re.S)


def convert(
    rows: Iterable[Mapping[str, Any]], *, min_margin: float = 0.0, max_pairs: int | None = 1, seed: int = 0
) -> Converted:
    """
    A country's likeliest answer over a less likely one, from `Anthropic/llm_global_opinions` (CC-BY-NC-SA-4.0).

    A row has `question`, `options` (a list) and `selections` (country -> share of each option), the latter two written
    as Python literals, `selections` inside `defaultdict(<class 'list'>, {...})`. The prompt is the question with the
    options below it; the completions are options. Which less likely option is rejected is drawn at random. Options
    that are no answer ("Don't know", "DK/Refused", "No answer", "Missing; ...") are left out, from the prompt too.
    Countries keep their published names, "(Non-national sample)" included. The answers describe a sample of people,
    not what a model should tell a person from that country.

    The ids of pairs name the row and the positions of the two options.

    Dropped: rows without a question (`empty_prompt`), rows or countries whose options or shares cannot be read
    (`unreadable_selections`), countries without a likeliest answer ahead of another by the margin (`no_preference`),
    options beyond the number asked for (`over_limit`), options with the same text (`identical_responses`).

    Args:
        min_margin (`float`, *optional*, defaults to `0.0`):
            Least difference of the two shares, for example `0.1`.
        max_pairs (`int`, *optional*, defaults to `1`):
            Pairs per question and country; `None` for all.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the rejected options.
    """
    PairingRule(min_margin, max_pairs)  # raises for what makes no sense
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of GlobalOpinions"
        question = text_field(row, "question", where)
        options = _options(_literal(row, "options", where))
        shares_of = _literal(row, "selections", where)
        if not question.strip():
            collected.drop("empty_prompt")
            continue
        if options is None or not isinstance(shares_of, Mapping):
            collected.drop("unreadable_selections")
            continue
        answers = [k for k, option in enumerate(options) if not _NO_ANSWER.fullmatch(option.strip())]
        prompt = user(f"{question.strip()}\n\nOptions:\n" + "\n".join(f"- {options[k]}" for k in answers))
        for country, values in shares_of.items():
            shares = _shares(values, len(options))
            if not isinstance(country, str) or not country.strip() or shares is None:
                collected.drop("unreadable_selections", country if isinstance(country, str) else "")
                continue
            scores = [shares[k] for k in answers]
            best = max(range(len(scores)), key=scores.__getitem__, default=None)
            pairs, _ = pairs_from_scores(scores, min_margin=min_margin, max_pairs=None)
            pairs = [pair for pair in pairs if pair[0] == best]
            if not pairs:
                collected.drop("no_preference", country)
            elif max_pairs is not None and len(pairs) > max_pairs:
                collected.drop("over_limit", country, len(pairs) - max_pairs)
                pairs = random.Random(f"{seed}|{country}|{question}").sample(pairs, max_pairs)
            for better, worse in pairs:
                chosen, rejected = answers[better], answers[worse]
                identity = f"global_opinions-{index}-{chosen}-{rejected}"
                collected.keep(identity, prompt, options[chosen], options[rejected], country)
    return collected.done()


def _literal(row: Mapping[str, Any], column: str, where: str) -> Any:
    """The value written in a cell as a Python literal; `None` if it cannot be read."""
    value = field(row, column, where)
    if not isinstance(value, str):
        return value
    inside = re.fullmatch(r"\s*defaultdict\(<class '\w+'>,\s*(\{.*\})\)\s*", value, re.S)
    try:
        return ast.literal_eval(inside[1] if inside else value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _options(value: Any) -> list[str] | None:
    """The options as text; `None` if there are not two or one is neither text nor a number."""
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    texts = []
    for option in value:
        number = as_number(option)
        if isinstance(option, str) and option.strip():
            texts.append(option.strip())
        elif number is not None:
            texts.append(str(int(number) if number.is_integer() else number))
        else:
            return None
    return texts


def _shares(value: Any, count: int) -> list[float] | None:
    """The share of each option; `None` if there are not `count` finite numbers of 0 or more."""
    if not isinstance(value, (list, tuple)) or len(value) != count:
        return None
    numbers = [as_number(share) for share in value]
    shares = [number for number in numbers if number is not None and number >= 0]
    return shares if len(shares) == count else None
