"""The attributes of the demo: what drives the pairs, and for each attribute a second judge that never saw them.

Every scorer and every judge is a pure function ``(prompts, completions) -> scores`` over two lists of plain strings
(`prompts` is what the user wrote; see [`user_text`]); higher means more of the attribute. Only `concise` may depend on
length: the others are shares or means over words, or cosines (measured: |rank correlation with length| < 0.1).

    from demo import scorers

    scores = scorers.SCORERS["positive"](prompts, completions)
    second = scorers.JUDGES["positive"](prompts, completions)
"""

import functools
import importlib.resources
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from . import encoder, judge_sentences
from .prompts import load_prompts


Scorer = Callable[[list[str], list[str]], np.ndarray]

PRIVILEGED = "concise"
"""The attribute the demo declares privileged."""

# The ways in which the prompts ask for one sentence: not part of what the prompt is about.
_FORMAT = re.compile(r"\s*Answer in one sentence\.$|\s+in one sentence(?=\.$)|^Write one sentence", re.I)
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")
_ABSTRACT = re.compile(r"(tion|sion|ment|ness|ity|ance|ence|ism|ship|ology)s?$")
_STOP = frozenset(
    """
    a an the and or but if of to in on at for from by with as is are was were be been being am do does did done has
    have had it its it's this that these those i i'm you your he she they them their we us our me my his her who what
    when where why how which can could will would should may might must not no so than then there here also very just
    one some any all more most many much other into about up out over too like such only own same s t
    """.split()
)


def user_text(messages: list[dict]) -> str:
    """The user's words of a conversation: what the scorers take as the prompt."""
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")


def subject(prompt: str) -> str:
    """The prompt without its request for one sentence."""
    return _FORMAT.sub("", prompt).strip()


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.replace("’", "'").lower() for word in _WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """The words of a text that are not function words."""
    return [word for word in words(text) if word not in _STOP]


def stem(word: str) -> str:
    """A crude English stem: enough to match "loves" with "loving", and the same everywhere."""
    word = word.removesuffix("'s")
    for suffix in (
        "ations",
        "ation",
        "ings",
        "ing",
        "ies",
        "ied",
        "edly",
        "ed",
        "ers",
        "er",
        "ly",
        "es",
        "s",
        "e",
        "y",
    ):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def syllables(word: str) -> int:
    """The number of syllables by the vowel groups of the spelling; at least 1."""
    word = word.lower().removesuffix("'s")
    count = len(re.findall(r"[aeiouy]+", word))
    if re.search(r"[^aeiouylr]e$|[^aeiouy][^aeiouytd]ed$|[^aeiouyszxh]es$", word) or re.search(
        r"[aeiouy][lr]e$", word
    ):
        count -= 1
    return max(count, 1)


def word_counts(completions: list[str]) -> np.ndarray:
    """The number of words of each text, at least 1: the length that everything here is measured against."""
    return np.array([max(len(words(text)), 1) for text in completions], dtype=np.float64)


def _per_text(function: Callable[[str], float], completions: list[str]) -> np.ndarray:
    return np.array([function(text) for text in completions], dtype=np.float64)


def concise(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Minus the number of words: the one attribute that is length."""
    return -word_counts(completions)


def concise_judge(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Minus the silent reading time in seconds, 14.69 ms a character without the spaces (Demberg & Keller 2008)."""
    return _per_text(lambda text: -0.01469 * len("".join(text.split())), completions)


@functools.lru_cache(maxsize=1)
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ImportError("`positive` needs VADER. Install it with: pip install vaderSentiment") from error
    return SentimentIntensityAnalyzer()


def positive(prompts: list[str], completions: list[str]) -> np.ndarray:
    """VADER: the share of positive words less the share of negative ones (not `compound`, which grows with length)."""

    def share(text: str) -> float:
        scores = _vader().polarity_scores(text)
        return scores["pos"] - scores["neg"]

    return _per_text(share, completions)


def positive_judge(prompts: list[str], completions: list[str]) -> np.ndarray:
    """MiniLM: the direction from hand-written unfriendly sentences to friendly ones about the same subjects."""
    weight, offset = encoder.direction(judge_sentences.GOOD, judge_sentences.BAD)
    return encoder.embed(completions) @ weight + offset


def on_topic(prompts: list[str], completions: list[str]) -> np.ndarray:
    """MiniLM: the cosine of the completion with what the prompt asks about."""
    cosine = (encoder.embed([subject(prompt) for prompt in prompts]) * encoder.embed(completions)).sum(1)
    return cosine.astype(np.float64)


@functools.lru_cache(maxsize=1)
def _idf() -> tuple[dict[str, float], float]:
    prompts = load_prompts()
    counts = Counter(s for row in prompts for s in {stem(w) for w in content_words(subject(user_text(row["prompt"])))})
    return {s: math.log(len(prompts) / n) for s, n in counts.items()}, math.log(len(prompts))


def on_topic_judge(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Words only: the cosine of the two texts' IDF-weighted content-word stems (the IDF is that of the prompts)."""
    table, unseen = _idf()
    scores = []
    for prompt, completion in zip(prompts, completions, strict=True):
        asked = {stem(word) for word in content_words(subject(prompt))}
        said = {stem(word) for word in content_words(completion)}
        # A word of the completion that no prompt has weighs as much as an average prompt word, else rare words would
        # decide the norm.
        norm = math.sqrt(sum(table.get(s, unseen) ** 2 for s in asked) * sum(table.get(s, 4.0) ** 2 for s in said))
        scores.append(sum(table.get(s, unseen) ** 2 for s in asked & said) / norm if norm else 0.0)
    # Every further word makes the cosine smaller: take the expected 1 / sqrt(length) out again.
    return np.array(scores) * np.sqrt(word_counts(completions))


def plain(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Short words: minus the mean number of syllables of the words."""

    def mean_syllables(text: str) -> float:
        found = words(text)
        return -sum(map(syllables, found)) / len(found) if found else -2.0

    return _per_text(mean_syllables, completions)


@functools.lru_cache(maxsize=1)
def _easy_stems() -> frozenset[str]:
    try:
        text = importlib.resources.files("textstat").joinpath("resources/en/easy_words.txt").read_text("utf-8")
    except (ImportError, FileNotFoundError) as error:
        raise ImportError(
            "The second judge of `plain` needs a word list. Install it with: pip install textstat"
        ) from error
    return frozenset(stem(word.strip().lower()) for word in text.splitlines() if word.strip())


def plain_judge(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Known words: the share of the content words whose stem is in the Dale-Chall list (3,000 words, textstat)."""

    def share(text: str) -> float:
        found = content_words(text)
        return sum(stem(word) in _easy_stems() for word in found) / len(found) if found else 1.0

    return _per_text(share, completions)


def _listed(word: str, group: frozenset[str]) -> bool:
    # Whole words and plain plurals, not stems: "leaving" is no leaf.
    return word in group or word.removesuffix("s") in group or word.removesuffix("es") in group


def vivid(prompts: list[str], completions: list[str]) -> np.ndarray:
    """Concrete words: the share of the content words for what can be seen, heard, touched, smelled or tasted, less a
    quarter of the share of words that only tell ("various", "important", "sustainability").

    Words of the prompt do not count.
    """
    shown, told = judge_sentences.SENSORY_WORDS, judge_sentences.ABSTRACT_WORDS
    scores = []
    for prompt, completion in zip(prompts, completions, strict=True):
        given = {stem(word) for word in content_words(prompt)}
        found = [word for word in content_words(completion) if stem(word) not in given]
        rest = [word for word in found if not _listed(word, shown)]
        concrete = len(found) - len(rest)
        abstract = sum(word in told or bool(_ABSTRACT.search(word)) for word in rest)
        scores.append((concrete - 0.25 * abstract) / max(len(found), 1))
    return np.array(scores)


def vivid_judge(prompts: list[str], completions: list[str]) -> np.ndarray:
    """MiniLM: the direction from abstract statements to scenes one can see or hear, about the same subjects."""
    weight, offset = encoder.direction(judge_sentences.SHOWN, judge_sentences.TOLD)
    return encoder.embed(completions) @ weight + offset


SCORERS: dict[str, Scorer] = {
    "concise": concise,
    "positive": positive,
    "on_topic": on_topic,
    "plain": plain,
    "vivid": vivid,
}
"""What made the pairs, by attribute."""

JUDGES: dict[str, Scorer] = {
    "concise": concise_judge,
    "positive": positive_judge,
    "on_topic": on_topic_judge,
    "plain": plain_judge,
    "vivid": vivid_judge,
}
"""The second judge of each attribute: works differently and had no part in making the pairs."""
