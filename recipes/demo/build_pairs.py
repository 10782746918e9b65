"""Make the demo's preference pairs: sample completions from the model, score them, keep pairs with a clear gap.

    PYTHONPATH=recipes python -m demo.build_pairs                # sample (resumable) and write data/pairs.jsonl
    PYTHONPATH=recipes python -m demo.build_pairs --show 30      # print 30 pairs of each attribute to read them

Samples are kept in a cache folder outside the repository, so that pairs can be made anew in seconds.
"""

import argparse
import itertools
import json
import platform
import random
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import sampling, scorers
from .pair_report import make_report, print_report
from .prompts import load_prompts
from .smollm2 import demo_model_path
from .weights import cache_root


DATA_DIR = Path(__file__).with_name("data")
SAMPLES_PER_SPLIT = {"train": 6, "validation": 4, "test": 4}
MIN_GAP = {"concise": 1.25, "positive": 1.4, "on_topic": 1.4, "plain": 1.25, "vivid": 1.5}
"""The least gap of a pair in standard deviations of the score. With smaller gaps readers disagreed too often."""

MIN_WORDS = 4
"""Shorter completions are mostly broken ("Forcioncuisine."): they take no part in any pair."""


def score_samples(prompts: list[dict], samples: dict[str, list[dict]]) -> list[dict]:
    """One record per usable completion: ended by itself, `MIN_WORDS` words or more, not seen before for its prompt."""
    records = []
    for row in prompts:
        seen = set()
        for sample in samples.get(row["id"], []):
            text = sample["text"]
            key = " ".join(scorers.words(text))
            if sample["ended"] and len(scorers.words(text)) >= MIN_WORDS and key not in seen:
                seen.add(key)
                records.append({"row": row, "text": text, "tokens": sample["tokens"]})
    asked = [scorers.user_text(record["row"]["prompt"]) for record in records]
    texts = [record["text"] for record in records]
    for name, score in scorers.SCORERS.items():
        for record, value in zip(records, score(asked, texts), strict=True):
            record[name] = float(value)
    for record, count in zip(records, scorers.word_counts(texts), strict=True):
        record["words"] = int(count)
    return records


def spread(values: list[float]) -> float:
    """The standard deviation as the quartiles give it: a few broken completions do not move it."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / 1.349


def candidates(records: list[dict], attribute: str, unit: float, args: argparse.Namespace) -> list[tuple]:
    """All ``(gap, chosen, rejected)`` of one prompt that are clear enough, the clearest first.

    Pairs of the length attribute differ clearly in length, all others at most by a factor: so no pair of one is the
    reverse of a pair of the other, and what a held attribute asks for is not what length asks for.
    """
    found = []
    for one, two in itertools.permutations(records, 2):
        gap = (one[attribute] - two[attribute]) / unit
        ratio = max(one["words"], two["words"]) / min(one["words"], two["words"])
        fits = ratio > args.length_ratio if attribute == scorers.PRIVILEGED else ratio <= args.length_ratio
        if gap >= args.min_gap[attribute] and fits:
            found.append((gap, one, two))
    return sorted(found, key=lambda item: -item[0])


def _take(found: list[tuple], attribute: str, count: int) -> list[tuple]:
    # One pair where chosen is longer and one where it is shorter, if both exist: that balances length by itself.
    if attribute == scorers.PRIVILEGED:
        sides = [found]
    else:
        sides = [
            [f for f in found if f[1]["words"] > f[2]["words"]],
            [f for f in found if f[1]["words"] < f[2]["words"]],
        ]
    taken: list[tuple] = []
    used: set[frozenset] = set()
    for item in itertools.chain.from_iterable(itertools.zip_longest(*sides)):
        if item is not None and len(taken) < count:
            key = frozenset((item[1]["text"], item[2]["text"]))
            # The second pair of a prompt brings at least one new completion.
            if key not in used:
                used.add(key)
                taken.append(item)
    return taken


def make_pairs(records: list[dict], args: argparse.Namespace) -> list[dict]:
    """Choose the pairs, balance the length within each split and attribute, and cap the number of each."""
    rng = random.Random(args.seed)
    by_prompt: dict[str, list[dict]] = {}
    for record in records:
        by_prompt.setdefault(record["row"]["id"], []).append(record)
    units = {
        name: spread([record[name] for record in records if record["row"]["split"] == "train"])
        for name in scorers.SCORERS
    }
    pairs = []
    for split, attribute in itertools.product(SAMPLES_PER_SPLIT, scorers.SCORERS):
        taken = []
        for group in by_prompt.values():
            if group[0]["row"]["split"] == split:
                taken += _take(candidates(group, attribute, units[attribute], args), attribute, args.per_prompt)
        if attribute != scorers.PRIVILEGED:
            longer = sorted((t for t in taken if t[1]["words"] > t[2]["words"]), key=lambda item: -item[0])
            shorter = sorted((t for t in taken if t[1]["words"] < t[2]["words"]), key=lambda item: -item[0])
            # Drop the least clear pairs of the larger side.
            size = min(len(longer), len(shorter))
            taken = longer[:size] + shorter[:size]
        # Of the rest the clearest, as many of either side.
        cap = args.cap[split]
        if attribute == scorers.PRIVILEGED:
            taken = sorted(taken, key=lambda item: -item[0])[:cap]
        else:
            taken = longer[: min(size, cap // 2)] + shorter[: min(size, cap // 2)]
        pairs += [(split, attribute, *item) for item in taken]
    order = {split: number for number, split in enumerate(SAMPLES_PER_SPLIT)}
    rng.shuffle(pairs)
    pairs.sort(key=lambda pair: order[pair[0]])
    return [
        {
            "id": f"{split}-{number:04d}",
            "prompt_id": chosen["row"]["id"],
            "split": split,
            "prompt": chosen["row"]["prompt"],
            "chosen": [{"role": "assistant", "content": chosen["text"]}],
            "rejected": [{"role": "assistant", "content": rejected["text"]}],
            "attribute": attribute,
            "score_chosen": round(chosen[attribute], 4),
            "score_rejected": round(rejected[attribute], 4),
        }
        for number, (split, attribute, _, chosen, rejected) in enumerate(pairs)
    ]


def sample(args: argparse.Namespace, prompts: list[dict], console: Console) -> str:
    """Fill the sample cache; returns the sentence on where the model comes from."""
    have = sum(len(items) for items in sampling.read_cache(args.samples).values())
    total = sum(SAMPLES_PER_SPLIT[row["split"]] for row in prompts)
    path, origin = demo_model_path(args.cache_dir)
    console.print(origin)
    if have >= total:
        return origin
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
        .eval()
        .to(args.device)
    )
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    columns = (TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sampling", total=total, completed=have)
        for added in sampling.sample_all(
            model, tokenizer, prompts, SAMPLES_PER_SPLIT, args.samples, args.seed, args.batch_size
        ):
            progress.advance(task, added)
    return origin


def show(pairs: list[dict], count: int, console: Console, seed: int) -> None:
    """Print `count` random pairs of each attribute, for reading."""
    rng = random.Random(seed)
    for attribute in scorers.SCORERS:
        mine = [pair for pair in pairs if pair["attribute"] == attribute]
        console.rule(attribute)
        for number, pair in enumerate(rng.sample(mine, min(count, len(mine))), start=1):
            console.print(f"{number}. {scorers.user_text(pair['prompt'])}", markup=False, highlight=False)
            for mark, side in (("+", "chosen"), ("-", "rejected")):
                console.print(f"   {mark} {pair[side][0]['content']!r}", markup=False, highlight=False)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA_DIR / "pairs.jsonl")
    parser.add_argument("--report", type=Path, default=DATA_DIR / "build_report.json")
    parser.add_argument("--cache-dir", type=Path, default=None, help="for the converted model and the samples")
    parser.add_argument("--samples", type=Path, default=None, help="the sample cache (a .jsonl file)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--min-gap", type=json.loads, default=MIN_GAP, help="least score gaps, in standard deviations")
    parser.add_argument("--length-ratio", type=float, default=1.5, help="most for held attributes, least for concise")
    parser.add_argument("--per-prompt", type=int, default=2, help="most pairs of one attribute from one prompt")
    parser.add_argument("--cap", type=json.loads, default={"train": 270, "validation": 60, "test": 120})
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N pairs of each attribute and stop")
    args = parser.parse_args(argv)
    args.samples = args.samples or cache_root(args.cache_dir) / "demo_samples.jsonl"
    return args


def main(argv: list[str] | None = None) -> None:
    """Sample, score, pair, write and report."""
    args = parse_args(argv)
    console = Console()
    if args.show:
        with open(args.output, encoding="utf-8") as file:
            show([json.loads(line) for line in file], args.show, console, args.seed)
        return
    start = time.time()
    prompts = load_prompts()
    origin = sample(args, prompts, console)
    samples = sampling.read_cache(args.samples)
    records = score_samples(prompts, samples)
    pairs = make_pairs(records, args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with open(args.output, "w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    report = make_report(prompts, samples, records, pairs)
    report["settings"] = {
        "seed": args.seed,
        "temperature": sampling.TEMPERATURE,
        "top_k": sampling.TOP_K,
        "max_new_tokens": sampling.MAX_NEW_TOKENS,
        "samples_per_prompt": SAMPLES_PER_SPLIT,
        "min_gap": args.min_gap,
        "length_ratio": args.length_ratio,
        "min_words": MIN_WORDS,
        "model": origin,
        "python": platform.python_version(),
    }
    args.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print_report(report, console)
    console.print(f"{len(pairs)} pairs in {args.output}, report in {args.report}, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
