"""What a FairPO training step costs beside a DPOTrainer step: ratios, measured in one run.

    nice -n -10 taskset -c 1 python benchmarks/step_cost.py --json step_cost.json

Models: the demo's (SmolLM2-135M, LoRA on all linear layers) on the demo's pairs, 4 privileged and 4 held a step;
random weights of its shape on random words; and, where the question is what ours adds to a step, a small random LLaMA,
whose step is short. Sides take their steps in turn, first forwards, then backwards, on the same batches and one
thread; a ratio is that of the medians of process time, which other work on the machine changes less, and the quartiles
are those of paired ratios.

Memory is the most that the tensors of a step hold at once, beyond what was there before it: counted by PyTorch's
profiler, allocation by allocation, so that it is the same in every run. Parts are those of one of our steps; its floor
is 2N FLOPs a token for the forward, as many for the gradient of the activations (frozen weights: 4N) and 2N for the
reference, on tokens that are there once, at the speed of a matrix product of that size in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils as trl_utils

from fairpo_trl.generation import FairPOConfig, FairPOTrainer, log_probs, pair_forward


ROOT = Path(__file__).resolve().parents[1]
DEMO_PAIRS = ROOT / "recipes" / "demo" / "data" / "pairs.jsonl"
KNOWN = {"precompute_ref_log_probs": True}
DEMO = {"privileged_attributes": ["concise"], "privileged_loss": "cpo", "eta_alpha": 0.05}
SHAPES = {
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 4, "vocab_size": 2048},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True},
}  # fmt: skip
WORDS = 2000  # that random pairs are made of


class Side(NamedTuple):
    """A trainer of ours."""

    title: str
    options: dict[str, Any]
    warm_up: int = 0  # steps before anything is measured


class Row(NamedTuple):
    """One comparison: sides of ours against DPOTrainer, or against the first of them if they all are ours."""

    model: str  # "demo", or a key of SHAPES
    pairs: int  # of a step
    lengths: tuple[int, int] | None  # tokens of prompt and completion; None: the demo's pairs
    sides: tuple[Side, ...]
    rounds: int
    against_dpo: bool = True


PACKED_ONLY = Side("the same, without looking for idle pairs", {"skip_idle_pairs": False})
EVERY_OTHER = [f"a{i}" for i in range(0, 64, 2)]
ROWS = {
    "demo": Row("demo", 8, None, (
        Side("demo pairs, reference in every step", {}),
        PACKED_ONLY,
        Side("demo pairs, reference known", KNOWN),
        Side("the same, after 20 steps of the demo's setting", KNOWN, 20),
    ), 7),
    "long_prompts": Row("135m", 2, (256, 32), (
        Side("prompts of 256 tokens, completions of 32", {}), PACKED_ONLY,
    ), 5),
    "long_completions": Row("135m", 4, (32, 128), (
        Side("prompts of 32 tokens, completions of 128", {}), PACKED_ONLY,
    ), 5),
    "privileged": Row("small", 8, (32, 32), (
        Side("all privileged, plain layout", {"packing": "never", "privileged_attributes": ["a0", "a1"]}),
    ), 60),
    "groups": Row("small", 64, (32, 32), (
        Side("2 groups", {"grouping": "role", "privileged_attributes": EVERY_OTHER}),
        Side("64 groups against 2", {"grouping": "attribute", "privileged_attributes": EVERY_OTHER}),
    ), 20, against_dpo=False),
}  # fmt: skip


def demo_folder() -> str:
    """The demo's model."""
    sys.path.insert(0, str(ROOT / "recipes"))
    from demo.smollm2 import demo_model_path

    return demo_model_path()[0]


def load_model(name: str) -> Any:
    """The demo's model, or random weights of a shape."""
    if name == "demo":
        return AutoModelForCausalLM.from_pretrained(
            demo_folder(), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPES[name], max_position_embeddings=2048, pad_token_id=0, eos_token_id=1))


def load_tokenizer(row: Row) -> Any:
    """The demo's tokenizer for its pairs, else one token a word."""
    if row.lengths is None:
        return AutoTokenizer.from_pretrained(demo_folder(), trust_remote_code=False)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, WORDS)}}
    raw = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def pairs_of(row: Row, steps: int) -> Dataset:
    """Pairs in the order in which steps take them: privileged and held in turn."""
    draw = torch.Generator().manual_seed(0)
    if row.lengths is None:
        rows = [json.loads(line) for line in DEMO_PAIRS.read_text().splitlines()]
        rows = [r for r in rows if r["split"] == "train"]
        groups = [[r for r in rows if (r["attribute"] == "concise") is first] for first in (True, False)]
        groups = [[group[i] for i in torch.randperm(len(group), generator=draw).tolist()] for group in groups]
        kept = [group[i % len(group)] for i in range(steps * row.pairs // 2) for group in groups]
        return Dataset.from_list([{k: r[k] for k in ("prompt", "chosen", "rejected", "attribute")} for r in kept])

    def words(k: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(2, WORDS, (k,), generator=draw).tolist())

    names = 2 if row.against_dpo else row.pairs
    prompt, completion = row.lengths
    rows = [
        {
            "prompt": words(prompt) + " ",
            "chosen": words(completion),
            "rejected": words(completion),
            "attribute": f"a{i % names}",
        }
        for i in range(steps * row.pairs)
    ]
    return Dataset.from_list(rows)


class Stepper:
    """One trainer whose optimizer steps are taken one at a time, through Trainer's own methods."""

    def __init__(self, row: Row, side: Side | None, steps: int, out: str) -> None:
        model = load_model(row.model)
        dataset = pairs_of(row, steps)
        common = {
            "output_dir": out, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": False,
            "gradient_checkpointing": False, "per_device_train_batch_size": row.pairs, "learning_rate": 2e-4,
            "logging_strategy": "no", "use_cpu": not torch.cuda.is_available(), "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential", "max_length": 512,
        }  # fmt: skip
        options: dict[str, Any] = {}
        if side is None:
            dataset = dataset.remove_columns("attribute")
        else:
            roles = DEMO if row.lengths is None else {"privileged_attributes": ["a0"]}
            options = {"reference_cache_dir": f"{out}/reference", **roles, **side.options}
        config, trainer = (DPOConfig, DPOTrainer) if side is None else (FairPOConfig, FairPOTrainer)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        self.trainer = trainer(
            model=model,
            args=config(**common, **options),
            train_dataset=dataset,
            processing_class=load_tokenizer(row),
            peft_config=lora,
        )
        self.trainer.create_optimizer_and_scheduler(10_000)
        self.model = self.trainer._wrap_model(self.trainer.model)
        self.trainer.current_gradient_accumulation_steps = 1
        self.model.train()
        self.batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> tuple[float, float]:
        """Process time and wall time of one optimizer step, in seconds."""
        before, clock = time.process_time(), time.perf_counter()
        batches, items = self.trainer.get_batch_samples(self.batches, 1, self.trainer.args.device)
        self.trainer.training_step(self.model, batches[0], items)
        self.trainer.accelerator.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
        self.trainer.optimizer.step()
        self.model.zero_grad()
        return time.process_time() - before, time.perf_counter() - clock


def compare(steppers: list[Stepper], rounds: int) -> list[dict[str, float]]:
    """For each but the first: the ratio of its median process time to that of the first, quartiles, the medians."""
    for stepper in steppers:
        stepper.step()
    times: list[list[tuple[float, float]]] = [[] for _ in steppers]
    for i in range(rounds):
        order = range(len(steppers))
        for k in order if i % 2 == 0 else reversed(order):  # none is always first
            times[k].append(steppers[k].step())
        print("  " + ", ".join(f"{t[-1][0]:.2f} s" for t in times), file=sys.stderr, flush=True)
    medians = [[statistics.median(t[kind] for t in side) for kind in (0, 1)] for side in times]
    found = []
    for side, median in list(zip(times, medians, strict=True))[1:]:
        low, _, high = statistics.quantiles([b[0] / a[0] for a, b in zip(times[0], side, strict=True)], n=4)
        found.append({
            "ratio": median[0] / medians[0][0], "ratio_q25": low, "ratio_q75": high, "rounds": rounds,
            "wall_ratio": median[1] / medians[0][1], "seconds_a": medians[0][0], "seconds_b": median[0],
        })  # fmt: skip
    return found


@contextmanager
def timed(spent: dict[str, float], places: list[tuple[str, Any, str]]) -> Iterator[None]:
    """Adds the process time of calls to `spent`, by name, while it is open."""
    originals = [(owner, name, getattr(owner, name)) for _, owner, name in places]

    def wrap(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[label] += time.process_time() - before

        return timing

    for (label, owner, name), (_, _, call) in zip(places, originals, strict=True):
        setattr(owner, name, wrap(label, call))
    try:
        yield
    finally:
        for owner, name, call in originals:
            setattr(owner, name, call)


def most_memory(stepper: Stepper) -> float:
    """MiB that the tensors of one step hold at once, beyond what was there before it."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        stepper.step()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    held, most = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 2**20


def parts_of(stepper: Stepper) -> dict[str, float]:
    """Where the process time of one of our steps goes, in seconds, and what its floor would be."""
    spent: dict[str, float] = defaultdict(float)
    head = trl_utils._ChunkedLogProbFunction
    places = [
        ("reference", stepper.trainer, "compute_ref_log_probs"),
        ("loss", stepper.trainer, "compute_loss"),
        ("policy forward, first pass included", pair_forward, "token_outputs"),
        ("policy forward, first pass included", log_probs, "token_outputs"),
        ("of it the head's forward", head, "forward"),
        ("of it the head's backward", head, "backward"),
    ]
    with timed(spent, places):
        total, _ = stepper.step()
    inside = spent["reference"]  # its forward was counted as a forward too
    forward = spent["policy forward, first pass included"] - inside
    return {
        "step": total, "reference": inside, "policy forward": forward, "backward": total - spent["loss"],
        "head, of these": spent["of it the head's forward"] + spent["of it the head's backward"],
        "ours (losses, weights, metrics, layout)": spent["loss"] - inside - max(forward, 0.0),
    }  # fmt: skip


def floor_of(stepper: Stepper, known: bool) -> float:
    """Seconds of a step without any overhead: see the top."""
    trainer = stepper.trainer
    batch = next(iter(trainer.get_train_dataloader()))
    spans = batch["pair_spans"]
    tokens = sum(chosen + rejected - shared for shared, chosen, _, rejected, _ in spans)
    scored = sum(chosen + rejected for _, _, chosen, _, rejected in spans)
    base = trainer.model.get_base_model()
    head = base.get_output_embeddings().weight.numel()
    blocks = sum(
        p.numel() for n, p in base.named_parameters() if p.dim() == 2 and "embed" not in n and "lora" not in n
    )
    blocks -= head if base.get_output_embeddings().weight is not base.get_input_embeddings().weight else 0
    passes = 2 if known else 3  # forward, gradient of the activations, reference
    flops = 2 * passes * (tokens * blocks + scored * head)
    x, w = torch.randn(tokens, base.config.hidden_size), torch.randn(base.config.hidden_size, 4096)
    _ = x @ w
    before = time.process_time()
    for _ in range(5):
        _ = x @ w
    speed = 5 * 2 * x.numel() * w.size(1) / (time.process_time() - before)
    return flops / speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="What to measure.")
    parser.add_argument("--rounds", type=int, help="Steps of each side, alternating; the default depends on the row.")
    parser.add_argument("--json", type=Path, help="Where to write the numbers; rows that are there are kept.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text())
    for name in arguments.rows:
        row = ROWS[name]
        rounds = arguments.rounds or row.rounds
        sides = [*((None,) if row.against_dpo else ()), *row.sides]
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as out:
            steps = min(rounds + 3 + max(side.warm_up for side in row.sides), 30)
            steppers = [Stepper(row, side, steps, f"{out}/{i}") for i, side in enumerate(sides)]
            for side, stepper in zip(sides, steppers, strict=True):
                for _ in range(side.warm_up if side else 0):
                    stepper.step()
            measured = compare(steppers, rounds)
            theirs = most_memory(steppers[0])
            for side, stepper, numbers in zip(sides[1:], steppers[1:], measured, strict=True):
                assert side is not None
                found: dict[str, Any] = {"title": side.title, **numbers}
                found["memory"] = [theirs, most_memory(stepper)]
                found["parts"] = parts_of(stepper)
                found["floor"] = floor_of(stepper, bool(side.options.get("precompute_ref_log_probs")))
                results[f"{name}: {side.title}"] = found
                print_row(found)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def print_row(result: dict[str, Any]) -> None:
    """One row as a line of a Markdown table, and the parts of the step below it."""
    memory = " / ".join(f"{mib:,.0f}" for mib in reversed(result["memory"]))
    quartiles = f"{result['ratio_q25']:.2f} to {result['ratio_q75']:.2f}"
    print(f"| {result['title']} | {result['ratio']:.2f} ({quartiles}) | {memory} |")
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result["parts"].items())
    print(f"    seconds: {parts}; floor {result['floor']:.2f}", flush=True)


if __name__ == "__main__":
    main()
