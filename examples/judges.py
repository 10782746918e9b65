"""Two judges of the notebook, as crude as a judge may be: write your own, or name a reward model instead."""

import re


KIND = re.compile(r"\b(please|thank|thanks|glad|gladly|happy|pleasure|kindly|may i|welcome)\b", re.IGNORECASE)
SMALL = set("a an and are can do does how i in is it of or should the to what when why with you your".split())


def polite(prompts: list[str], completions: list[str]) -> list[float]:
    """Kind words in each text."""
    return [float(len(KIND.findall(text))) for text in completions]


def on_topic(prompts: list[str], completions: list[str]) -> list[float]:
    """Share of the question's words that come back in the text."""
    return [
        len(asked & words(text)) / max(len(asked), 1)
        for asked, text in zip(map(words, prompts), completions, strict=True)
    ]


def words(text: str) -> set[str]:
    """Words that carry meaning."""
    return set(re.findall(r"[a-z]+", text.lower())) - SMALL
