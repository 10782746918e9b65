"""
Trains a language model with FairPO: the privileged attributes get better, the others do not get worse.

The demo (a real 135 M model on a CPU, ends with a table, plots and a report):

    python recipes/generation_fairpo.py

Your model and data, on one or several GPUs:

    accelerate launch recipes/generation_fairpo.py --config recipes/generation/qwen2.5-0.5b-instruct/lora.yaml

The baselines share this code path: `--method dpo | dpo_privileged_only | privileged_only |
group_robust_dpo | sft_on_chosen`.
`fairpo generation` is the same without the demo. The run itself is `fairpo_trl.generation.run.run`, which this calls.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from fairpo_trl.commands.errors import exit_clearly
from fairpo_trl.commands.generation import make_parser
from fairpo_trl.generation.run import run


COMMAND = "python recipes/generation_fairpo.py"
HERE = Path(__file__).resolve().parent
DEMO_CONFIG = HERE / "generation" / "smollm2-135m-instruct" / "demo.yaml"
DEMO_PAIRS = HERE / "demo" / "data" / "pairs.jsonl"


def main(arguments: list[str]) -> None:
    """The demo, unless a model, a config or help is asked for."""
    if {"--model_name_or_path", "--config", "-h", "--help"} & set(arguments):
        run(*make_parser(COMMAND).parse(arguments))
    else:
        demo(arguments)


def demo(arguments: list[str]) -> None:
    """The main job on a real model: train, test what may be handed over, compare what both write on other prompts."""
    from demo.report import report_demo
    from demo.selection import DemoTest, select_demo, test_options
    from demo.smollm2 import demo_model_path

    started = time.time()
    parser = make_parser(COMMAND, after=DemoTest)
    given = ["--config", str(DEMO_CONFIG), "--dataset_name", str(DEMO_PAIRS), *test_options()]
    parser.parse([*given, *arguments])  # a mistake is said before the model is fetched
    model_path, origin = demo_model_path()
    print(f"Model: {origin}")
    script_args, training_args, model_args, test = parser.parse(
        [*given, "--model_name_or_path", str(model_path), *arguments]
    )
    # The roles as the user sees them; a baseline may train with others.
    privileged = list(training_args.privileged_attributes or ())
    trainer = run(script_args, training_args, model_args)
    selection, written = None, None
    if test.select_prompts:
        selection, written = select_demo(trainer, str(model_path), privileged, test, origin)
    results = report_demo(trainer, privileged, script_args.method, origin, started, written)
    rates = {entry.attribute: entry.win_rate["scorer"].trained.mean for entry in results.attributes}
    trainer.create_model_card(dataset_name=script_args.dataset_name, win_rates=rates)  # again, now with these
    if selection is not None:
        print(f"\nThe promise, tested on other prompts: {selection.statement}")


if __name__ == "__main__":
    exit_clearly(main, sys.argv[1:])
