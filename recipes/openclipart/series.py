"""Series of near-duplicates, and a split into train and test that never cuts one."""

from __future__ import annotations

import posixpath
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from .sources import Picture, words_of


WHOLE_FOLDERS = {
    "recreation/games/cards/bordered": "cards",
    "recreation/games/cards/ornamental": "cards",
    "recreation/games/cards/simple": "cards",
    "recreation/games/cards/white": "cards",
    "people/clothing/pantyhose": "pantyhose",
    "signs_and_symbols/flags/semaphore": "semaphore",
    "shapes/jigsaw": "jigsaw",
    "transportation/vehicles/hummers": "hummers",
}
"""Folders that are one drawing over and over: four designs of one pack of cards, one body in each position."""

_VARIANT = set(
    "a b c d e f g h i j k l m n o p q r s t u v w x y z ii iii iv "
    "one two three four five six seven eight nine ten "
    "left right up down top bottom upper lower horizontal vertical front back back side "
    "black white bw colour color grey gray red green blue yellow orange purple pink seagreen gold brown silver "
    "simple alt outline shaded half whole slice wedge full empty open closed small large big new old with without "
    "svg clipart clip art icon symbol".split()
)
"""What tells the members of a series apart: numbers, sides, colours, and the like."""


def stem_key(picture: Picture) -> str:
    """Folder and file name without numbers, colours, sides and the author: `arrow-left-blue_benji_p_02` is arrow."""
    folder, name = posixpath.split(picture.path)
    author = words_of(picture.author)
    kept = []
    for word in words_of(name):
        # File names are cut off at 24 letters, in the middle of the author's name.
        is_author = any(part.startswith(word) for part in author) if len(word) > 1 else True
        if word not in _VARIANT and not is_author:
            kept.append(word)
    return f"{folder}/{' '.join(kept) or name.rstrip('0123456789')}"


def make_series(pictures: Sequence[Picture], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """
    The series of each picture, named after its first member.

    Pictures are joined by folder (`WHOLE_FOLDERS`), by `stem_key`, and by pairs of near-duplicates; a series is a
    connected component of these.
    """
    parent = list(range(len(pictures)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(one: int, two: int) -> None:
        low, high = sorted((root(one), root(two)))
        parent[high] = low

    first: dict[str, int] = {}
    for number, picture in enumerate(pictures):
        keys = [WHOLE_FOLDERS[folder] for folder in picture.folders if folder in WHOLE_FOLDERS]
        for key in [*keys, stem_key(picture)]:
            join(first.setdefault(key, number), number)
    for one, two in pairs:
        join(one, two)
    return [pictures[root(number)].path for number in range(len(pictures))]


def desired_test(count: int) -> float:
    """How many of a label's images the test split should get: 30 %, and for rare labels 17 images, at most 47 %."""
    return max(0.30 * count, min(17.0, 0.47 * count))


def split_once(series: Sequence[str], labels: Sequence[Sequence[str]], rng: random.Random) -> dict[str, str]:
    """
    Iterative stratification over series: the rarest label first, each series to the split that lacks the label more.

    Reference: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for name, present in zip(series, labels, strict=True):
        members[name].update(present)
    total = Counter(label for present in labels for label in present)
    need = {
        label: {"test": desired_test(count), "train": count - desired_test(count)} for label, count in total.items()
    }
    split: dict[str, str] = {}
    for label in sorted(total, key=lambda label: (total[label], label)):
        waiting = [name for name in sorted(members) if name not in split and members[name][label]]
        rng.shuffle(waiting)
        waiting.sort(key=lambda name: -members[name][label])
        for name in waiting:
            wanted = need[label]
            share = {side: wanted[side] / max(1e-9, total[label]) for side in wanted}
            # A whole series goes where it overshoots less; the surplus of one side is what the other lacks.
            over = {side: max(0.0, members[name][label] - wanted[side]) for side in wanted}
            side = min(("train", "test"), key=lambda side: (over[side], -share[side]))
            split[name] = side
            for other, count in members[name].items():
                need[other][side] -= count
    return split


def split_penalty(series: Sequence[str], labels: Sequence[Sequence[str]], split: dict[str, str], least: int) -> float:
    """How far a split is from what it should be: distance of the test shares, and 100 for each label below `least`."""
    train: Counter[str] = Counter()
    test: Counter[str] = Counter()
    for name, present in zip(series, labels, strict=True):
        (test if split[name] == "test" else train).update(present)
    penalty = 0.0
    for label in train | test:
        count = train[label] + test[label]
        penalty += abs(test[label] - desired_test(count)) / count
        penalty += 100 * (train[label] < least)
    rare = privileged_labels(train, train | test)
    penalty += 100 * sum(max(0, least - test[label]) / least for label in rare)
    penalty += 100 * sum(test[label] < 5 for label in train | test)
    return penalty


def privileged_labels(train: Counter[str], names: Sequence[str]) -> list[str]:
    """The rarest fifth of the labels by their number of training images, the rarest first."""
    ordered = sorted(names, key=lambda name: (train[name], name))
    return ordered[: round(len(ordered) * 0.2)]


def best_split(series: Sequence[str], labels: Sequence[Sequence[str]], least: int, tries: int = 200) -> dict[str, str]:
    """The best of `tries` random orders of equal series; always the same for the same input."""
    candidates = (split_once(series, labels, random.Random(seed)) for seed in range(tries))
    return min(candidates, key=lambda split: split_penalty(series, labels, split, least))
