"""
Debian's program descriptions with their debtags, read from the package index that apt downloads (nothing is shipped).

    python -m label_sets.debtags          (in the folder recipes; prints where the file is)

Descriptions belong to their authors and packages. The index changes over time: the file's name holds the release, and
its first lines of output say how many items of each label there are.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.weights import cache_root

from fairpo_trl.files import write_text


TAGS = (
    "interface::graphical interface::commandline interface::daemon use::gameplaying use::converting use::editing "
    "use::viewing use::monitor use::checking use::analysing use::playing use::searching use::learning "
    "works-with::text works-with::audio works-with::image works-with::mail works-with::db field::mathematics "
    "field::biology works-with::font use::printing works-with::dictionary field::chemistry field::geography"
).split()
"""The 25 labels. They say what a program is for; of the frequent ones those that a description tells (hardly any says
which toolkit it uses), and five of the rarest that are still learnt: each has 40 to 70 programs."""

WORDS = 24
"""Words of a description that are kept, about 35 tokens: the short description and the first sentence."""

SIZES = {"train": 480, "test": 300, "validation": 200}
LEAST = {"train": 22, "test": 12, "validation": 10}
"""Items of each label at least, and"""
RARE_ITEMS = {"train": 14, "test": 16, "validation": 10}
"""items of each of the `RARE` rarest labels. A plain sample of this size would have 5; they stay the rarest."""
RARE = 5

HELP = (
    "The default data are read from Debian's package index, which needs apt-get (Debian or Ubuntu) and a mirror. "
    "Elsewhere give your own file of `text` and `labels`: `--dataset_name items.jsonl`."
)


def validation_file(folder: Path | None = None) -> Path:
    """
    A file with the same `train` items and, as `test`, items that are in neither part of [`debtags_file`]: settings are
    chosen on it.

    Raises:
        FileNotFoundError, OSError: See [`debtags_file`].
    """
    main = debtags_file(folder)
    path = main.with_name(f"debtags-{SIZES['train']}-validation-{SIZES['validation']}-{WORDS}-words.jsonl")
    if not path.exists():
        items = [json.loads(line) for line in main.read_text(encoding="utf-8").splitlines()]
        programs = read_programs()
        source = {program["id"]: program["source"] for program in programs}
        used = {source.get(item["id"]) for item in items}
        count = Counter(label for item in items for label in item["labels"])
        rare = sorted(count, key=lambda label: (count[label], label))[:RARE]
        others = choose_items([p for p in programs if p["source"] not in used], splits=("validation",), rare=rare)
        train = [item for item in items if item["split"] == "train"]
        _write(path, [*train, *(item | {"split": "test"} for item in others)])
    return path


def debtags_file(folder: Path | None = None) -> Path:
    """
    The file of items, built from the package index if it is not there yet.

    Raises:
        FileNotFoundError: If there is no apt-get.
        OSError: If the index cannot be downloaded.
    """
    path = (folder or cache_root()) / f"debtags-{SIZES['train']}-{SIZES['test']}-{WORDS}-words.jsonl"
    if path.exists():
        return path
    if shutil.which("apt-get") is None:
        raise FileNotFoundError(HELP)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, choose_items(read_programs()))
    return path


def read_programs() -> list[dict[str, object]]:
    """Every program of the index that has a kept tag: `id`, `text`, `labels`, `source`."""
    with tempfile.TemporaryDirectory() as folder:
        # An index of our own: the machine's may lack the descriptions, and nothing of the machine is changed.
        options = [f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache", "-oDir::State::status=/dev/null"]
        options += ["-oAcquire::Languages=en", "-oAPT::Sandbox::User="]
        for part in ("state/lists/partial", "cache/archives/partial"):
            (Path(folder) / part).mkdir(parents=True)
        _output("apt-get", *options, "-qq", "update")
        descriptions: dict[str, str] = {}
        for stanza in _stanzas(options, "Translations"):
            descriptions[stanza["Description-md5"]] = stanza.get("Description-en", "")
        programs = {}
        for stanza in _stanzas(options, "Packages"):
            tags = [tag.strip() for tag in stanza.get("Tag", "").split(",")]
            labels = sorted(tag.split("::")[1] for tag in tags if tag in TAGS)
            text = descriptions.get(stanza.get("Description-md5", ""), "")
            is_program = [tag for tag in tags if tag.startswith("role::")] == ["role::program"]
            if is_program and labels and text:
                source = stanza.get("Source", stanza["Package"]).split(" ")[0]
                short = " ".join(text.replace("\n .\n", "\n").split()[:WORDS])
                programs[stanza["Package"]] = {
                    "id": stanza["Package"],
                    "text": short,
                    "labels": labels,
                    "source": source,
                }
    if not programs:
        raise OSError(f"The package index holds no program with debtags. {HELP}")
    return [programs[name] for name in sorted(programs)]


def choose_items(
    programs: list[dict], seed: int = 0, splits: Sequence[str] = ("test", "train"), rare: Sequence[str] = ()
) -> list[dict[str, object]]:
    """
    The items of some splits: one program of each source package, so that no source is on two sides; a fixed number of
    each rare label (by default the rarest), the rest at random.
    """
    rng = random.Random(seed)
    first = {program["source"]: program for program in reversed(programs)}
    pool = sorted(first.values(), key=lambda program: program["id"])
    rng.shuffle(pool)
    count = Counter(label for program in pool for label in program["labels"])
    rare = rare or sorted(count, key=lambda label: (count[label], label))[:RARE]
    split: dict[str, str] = {}
    for label in sorted(count, key=lambda label: (count[label], label)):  # the rarest first: it has the least choice
        rarer = set(rare) - {label}
        for name in splits:
            having = [p for p in pool if label in p["labels"]]
            wanted = (RARE_ITEMS if label in rare else LEAST)[name] - sum(split.get(p["id"]) == name for p in having)
            free = [p for p in having if p["id"] not in split and not rarer & set(p["labels"])]
            for program in free[: max(0, wanted)]:
                split[program["id"]] = name
    common = [p for p in pool if p["id"] not in split and not set(p["labels"]) & set(rare)]
    for name in splits:
        for program in common[: SIZES[name] - sum(part == name for part in split.values())]:
            split[program["id"]] = name
        common = [p for p in common if p["id"] not in split]
    return [
        {"id": p["id"], "text": p["text"], "labels": p["labels"], "split": split[p["id"]]}
        for p in sorted(pool, key=lambda program: program["id"])
        if p["id"] in split
    ]


def _write(path: Path, items: list[dict[str, object]]) -> None:
    write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


def _stanzas(options: list[str], kind: str) -> Iterator[dict[str, str]]:
    """The stanzas of the index files of one kind, as field -> text."""
    files = _output("apt-get", *options, "indextargets", "--format", "$(FILENAME)", f"Identifier: {kind}")
    for file in files.split():
        for block in _output("/usr/lib/apt/apt-helper", *options, "cat-file", file).split("\n\n"):
            stanza: dict[str, str] = {}
            name = ""
            for line in block.splitlines():
                if line[:1].isspace():
                    stanza[name] += "\n" + line
                else:
                    name, _, value = line.partition(":")
                    stanza[name] = value.strip()
            if stanza:
                yield stanza


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"`{command[0]}` failed: {done.stderr.strip()[-300:]} {HELP}")
    return done.stdout


if __name__ == "__main__":
    print(debtags_file())
