"""
A language model writes the label set of an item, and the rare labels are privileged.

Debian's program descriptions with their debtags, on a real 135 M model and a CPU:

    python recipes/label_generation_fairpo.py

Any file of `text` and `labels`, any causal model:

    python recipes/label_generation_fairpo.py --dataset_name items.jsonl --model_name_or_path Qwen/Qwen2.5-0.5B

SFT on the true sets gives the reference; what it gets wrong on training items becomes pairs; FairPO trains on them.
Then both write the sets of the test items, and `--select true` tests which strength of the adapter to hand over.
`experiments/label_sets` compares this with its baselines.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

from demo.smollm2 import demo_model_path
from label_sets.arguments import LabelSetArguments, check_options, make_parser
from label_sets.debtags import debtags_file
from label_sets.report import Written
from label_sets.results import run_results
from trl import get_peft_config

from fairpo_trl import FairPOConfig, Partition
from fairpo_trl.commands.errors import exit_clearly
from fairpo_trl.evaluation.models import find_model
from fairpo_trl.evaluation.selection import SCALES
from fairpo_trl.files import write_json
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.label_sets.decoding import write_sets
from fairpo_trl.label_sets.items import load_items
from fairpo_trl.label_sets.pairs import build_pairs, check_order, preference_rows
from fairpo_trl.label_sets.reader import count_problems
from fairpo_trl.label_sets.select import divide_items, select_label_sets
from fairpo_trl.label_sets.training import (
    SFTOptions,
    load_writer,
    rarest,
    train_on_pairs,
    train_reference_on_sets,
)
from fairpo_trl.reporting import print_results, write_report


DEFAULT_CONFIG = Path(__file__).resolve().parent / "label_sets" / "smollm2-135m-instruct.yaml"


def main(arguments: list[str]) -> None:
    """Parses and runs; without `--config` the default one, to which options may be added."""
    parser = make_parser("python recipes/label_generation_fairpo.py")
    given = arguments if "--config" in arguments else ["--config", str(DEFAULT_CONFIG), *arguments]
    script_args, training_args, model_args = parser.parse(given)
    if not model_args.model_name_or_path:
        model_args.model_name_or_path, origin = demo_model_path()
        print(f"Model: {origin}")
    run(script_args, training_args, model_args)


def run(script_args: LabelSetArguments, args: FairPOConfig, model_args) -> None:  # type: ignore[no-untyped-def]
    """The whole chain: items, reference, its mistakes, pairs, FairPO, and the sets that both write."""
    started, folder = time.time(), Path(args.output_dir)
    check_options(script_args, args, model_args)
    parts, vocabulary = load_items(
        script_args.dataset_name or debtags_file(),
        text_column=script_args.text_column,
        labels_column=script_args.labels_column,
        labels=script_args.labels,
        test_share=script_args.test_share,
        seed=script_args.split_seed,
    )
    train, test, counts = parts["train"], parts["test"], parts["train"].split.label_counts()
    partition = (
        Partition.by_name(vocabulary.labels, args.privileged_attributes)
        if args.privileged_attributes
        else rarest(train, script_args.privileged_share)
    )
    print(f"{len(train)} training and {len(test)} test items, {len(vocabulary.labels)} labels. Privileged: "
          + ", ".join(f"{name} ({counts[name]})" for name in partition.privileged))  # fmt: skip
    if script_args.select:
        # What cannot be tested is said before training.
        divide_items(test, partition, script_args.aside_share, args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(args.model_init_kwargs or {}),
    }
    peft, limit = get_peft_config(model_args), script_args.max_set_tokens

    reference = script_args.reference
    if reference is None:
        options = SFTOptions(script_args.sft_learning_rate, script_args.sft_epochs, script_args.sft_batch_size)
        reference = str(train_reference_on_sets(
            model_args.model_name_or_path, train, vocabulary, args, options, folder / "reference", peft
        ))  # fmt: skip

    writer, tokenizer = load_writer(reference, args)
    drawn = write_sets(
        writer, tokenizer, train.prompts, vocabulary, samples=script_args.samples_per_item, seed=args.seed,
        temperature=script_args.sampling_temperature, constrained=script_args.constrained_sampling,
        desc="The reference's own sets", max_new_tokens=limit,
    )  # fmt: skip
    pairs = build_pairs(train, drawn, partition, script_args.pairs_per_item)
    order = check_order(pairs, train, drawn, partition, script_args.pairs_per_item)
    rows = preference_rows(pairs, train, vocabulary)
    facts = {**pairs.counts(), **order}
    print("Pairs: " + ", ".join(f"{name} {value:.3g}" for name, value in facts.items()))
    write_json(folder / "pairs.json", rows)
    modes = (False, True) if script_args.constrained_decoding else (False,)

    def write(model, mode):  # type: ignore[no-untyped-def]
        sets = write_sets(model, tokenizer, test.prompts, vocabulary, constrained=mode, max_new_tokens=limit)
        return [row[0] for row in sets]

    read = {f"reference{', constrained' if mode else ''}": write(writer, mode) for mode in modes}
    del writer
    gc.collect()

    trainer = train_on_pairs(reference, rows, partition, args, script_args.method, peft)  # type: ignore[arg-type]
    trainer.save_model(args.output_dir)
    read |= {f"trained{', constrained' if mode else ''}": write(trainer.model, mode) for mode in modes}
    methods = [
        Written(
            name, vocabulary.matrix(sets)[None], count_problems(sets), None if name == "reference" else "reference"
        )
        for name, sets in read.items()
    ]
    notes = [f"Pairs: {facts['own']} of the model's own mistakes, {facts['made_up']} made up, "
             f"{facts['items_unreadable']} training items without a readable set."]  # fmt: skip
    results = run_results(
        parts, partition, methods, {name: read[name] for name in ("reference", "trained")}, script_args.method,
        trainer.state.log_history, {**facts, "seed": args.seed, "beta": args.beta, "epsilon": args.epsilon},
        time.time() - started, notes,
    )  # fmt: skip
    print_results(results)
    report = write_report(results, folder)
    print(f"Report: {report} and report.html   (results.json, pictures and pairs.json beside it)")
    if script_args.select:
        select(script_args, args, reference, test, vocabulary, partition)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


def select(script_args: LabelSetArguments, args: FairPOConfig, reference: str, test, vocabulary, partition) -> None:  # type: ignore[no-untyped-def]
    """Tests the scales of the adapter, and hands over the boldest whose held labels are shown not to be worse."""
    output = Path(args.output_dir) / "selection"
    results = select_label_sets(
        find_model(args.output_dir, base_model=reference), find_model(reference), test, vocabulary, partition, output,
        held=script_args.held, margin=script_args.margin, level=script_args.level,  # type: ignore[arg-type]
        scales=SCALES if script_args.scales is None else script_args.scales, aside_share=script_args.aside_share,
        seed=args.seed, max_new_tokens=script_args.max_set_tokens,
        title=Path(script_args.dataset_name or "debtags").name, command=public_command(sys.argv),
    )  # fmt: skip
    print_results(results)
    print(f"Report of the test: {output / 'selection.html'}")


if __name__ == "__main__":
    exit_clearly(main, sys.argv[1:])
