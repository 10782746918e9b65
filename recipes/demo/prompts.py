"""Write ``prompts.jsonl``: short everyday prompts, hand-written topics times hand-written frames, split by topic.

Every topic belongs to one kind and every kind has its own ten frames, so that each product reads naturally. A topic is
in exactly one split: nothing that is trained on is asked about again in the test part.
"""

import argparse
import json
from pathlib import Path


SYSTEM = "You give short, clear answers."
"""The system message of every conversation. Short on purpose: the model's default costs 17 more tokens a prompt."""

PROMPTS_FILE = Path(__file__).with_name("prompts.jsonl")

SPLITS = ("train", "validation", "test")

# kind -> split -> topics. Five train topics, one or no validation topic and three test topics (roughly) per kind.
TOPICS: dict[str, dict[str, list[str]]] = {
    "animal": {
        "train": ["dogs", "elephants", "bees", "horses", "penguins"],
        "validation": ["rabbits"],
        "test": ["cats", "dolphins", "owls"],
    },
    "food": {
        "train": ["bread", "coffee", "honey", "chocolate", "rice"],
        "validation": ["cheese"],
        "test": ["tea", "ice cream", "soup"],
    },
    "nature": {
        "train": ["the ocean", "the moon", "thunder", "the desert", "snow"],
        "validation": ["the sunset"],
        "test": ["the rain", "the forest", "the wind"],
    },
    "activity": {
        "train": ["gardening", "swimming", "reading", "cooking at home"],
        "validation": ["hiking"],
        "test": ["cycling", "painting", "dancing"],
    },
    "job": {
        "train": ["a teacher", "a nurse", "a firefighter", "a baker"],
        "validation": ["a gardener"],
        "test": ["a doctor", "a farmer", "a bus driver"],
    },
    "object": {
        "train": ["a bicycle", "an umbrella", "a mirror", "a telephone", "a blanket"],
        "validation": [],
        "test": ["a clock", "a lamp", "a backpack"],
    },
    "place": {
        "train": ["the library", "the beach", "the airport", "the supermarket"],
        "validation": ["the museum"],
        "test": ["the park", "the train station"],
    },
    "situation": {
        "train": ["losing a job", "moving to a new city", "having the flu", "making a new friend"],
        "validation": [],
        "test": ["failing an exam", "starting a new school"],
    },
}

FRAMES: dict[str, list[str]] = {
    "animal": [
        "Tell me about {t} in one sentence.",
        "Why do people like {t}? Answer in one sentence.",
        "What do {t} eat? Answer in one sentence.",
        "Describe how {t} move in one sentence.",
        "Where do {t} live? Answer in one sentence.",
        "Write one sentence about {t} for a small child.",
        "What is surprising about {t}? Answer in one sentence.",
        "What dangers do {t} face? Answer in one sentence.",
        "How do {t} spend the night? Answer in one sentence.",
        "Why do {t} matter to nature? Answer in one sentence.",
    ],
    "food": [
        "Tell me about {t} in one sentence.",
        "When do people have {t}? Answer in one sentence.",
        "Describe the taste of {t} in one sentence.",
        "Is {t} good for your health? Answer in one sentence.",
        "Why do people love {t}? Answer in one sentence.",
        "What goes well with {t}? Answer in one sentence.",
        "How should I store {t}? Answer in one sentence.",
        "Write one sentence about {t} for a small child.",
        "What happens if I have too much {t}? Answer in one sentence.",
        "Describe the smell of {t} in one sentence.",
    ],
    "nature": [
        "Tell me about {t} in one sentence.",
        "Describe {t} to someone who has never seen it in one sentence.",
        "How does {t} make people feel? Answer in one sentence.",
        "Write one sentence about {t} for a small child.",
        "Why does {t} matter to people? Answer in one sentence.",
        "What can be dangerous about {t}? Answer in one sentence.",
        "What should children know about {t}? Answer in one sentence.",
        "What is the best thing about {t}? Answer in one sentence.",
        "What does {t} sound like? Answer in one sentence.",
        "How does {t} change animals' lives? Answer in one sentence.",
    ],
    "activity": [
        "Tell me about {t} in one sentence.",
        "Why is {t} good for you? Answer in one sentence.",
        "When is a good time for {t}? Answer in one sentence.",
        "Is {t} hard? Answer in one sentence.",
        "What do I need for {t}? Answer in one sentence.",
        "What is one good tip about {t}? Answer in one sentence.",
        "Who would enjoy {t}? Answer in one sentence.",
        "What mistake do people make when {t}? Answer in one sentence.",
        "How does {t} make you feel? Answer in one sentence.",
        "Write one sentence about {t} with a friend.",
    ],
    "job": [
        "What does {t} do all day? Answer in one sentence.",
        "Why would someone want to be {t}? Answer in one sentence.",
        "What is hard about being {t}? Answer in one sentence.",
        "How does someone become {t}? Answer in one sentence.",
        "How can we thank {t}? Answer in one sentence.",
        "What tools does {t} use? Answer in one sentence.",
        "What is the best part of being {t}? Answer in one sentence.",
        "What makes {t} happy at work? Answer in one sentence.",
        "Describe {t} to a small child in one sentence.",
        "Where does {t} work? Answer in one sentence.",
    ],
    "object": [
        "Tell me about {t} in one sentence.",
        "What is {t} used for? Answer in one sentence.",
        "How do I choose {t}? Answer in one sentence.",
        "What should I do with {t} that is broken? Answer in one sentence.",
        "Describe {t} to a small child in one sentence.",
        "Why is {t} useful? Answer in one sentence.",
        "What is annoying about {t}? Answer in one sentence.",
        "Where do people usually keep {t}? Answer in one sentence.",
        "How do I take care of {t}? Answer in one sentence.",
        "Why is {t} a good gift? Answer in one sentence.",
    ],
    "place": [
        "Tell me about {t} in one sentence.",
        "What can I do at {t}? Answer in one sentence.",
        "Describe a busy morning at {t} in one sentence.",
        "What is annoying about {t}? Answer in one sentence.",
        "Why do people go to {t}? Answer in one sentence.",
        "What should I bring to {t}? Answer in one sentence.",
        "What do people enjoy about {t}? Answer in one sentence.",
        "When is {t} busy? Answer in one sentence.",
        "What can go wrong at {t}? Answer in one sentence.",
        "What sounds do you hear at {t}? Answer in one sentence.",
    ],
    "situation": [
        "How does {t} feel? Answer in one sentence.",
        "What helps when {t}? Answer in one sentence.",
        "Is {t} normal? Answer in one sentence.",
        "What is the hardest part of {t}? Answer in one sentence.",
        "What can we learn from {t}? Answer in one sentence.",
        "Why do people worry about {t}? Answer in one sentence.",
        "Why is {t} so hard? Answer in one sentence.",
        "What should you avoid when {t}? Answer in one sentence.",
        "How long does it take to get used to {t}? Answer in one sentence.",
        "What good can come from {t}? Answer in one sentence.",
    ],
}


def build_rows() -> list[dict]:
    """The rows of ``prompts.jsonl``: ``id``, ``prompt`` (a list of messages), ``split``, ``topic``."""
    rows = []
    for split in SPLITS:
        for kind, by_split in TOPICS.items():
            for topic in by_split[split]:
                for number, frame in enumerate(FRAMES[kind]):
                    slug = topic.replace(" ", "-")
                    rows.append(
                        {
                            "id": f"{kind}-{slug}-{number}",
                            "prompt": [
                                {"role": "system", "content": SYSTEM},
                                {"role": "user", "content": frame.format(t=topic)},
                            ],
                            "split": split,
                            "topic": topic,
                        }
                    )
    return rows


def load_prompts(path: Path = PROMPTS_FILE) -> list[dict]:
    """Read ``prompts.jsonl`` as shipped."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main() -> None:
    """Write the file and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PROMPTS_FILE)
    args = parser.parse_args()
    rows = build_rows()
    with open(args.output, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = {split: sum(row["split"] == split for row in rows) for split in SPLITS}
    print(f"{len(rows)} prompts in {args.output}: {counts}")


if __name__ == "__main__":
    main()
