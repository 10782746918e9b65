"""Short ways to build trainers on the tiny model, shared by the trainer tests."""

from __future__ import annotations

import copy
from typing import Any

import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from fairpo_trl.generation import FairPOConfig, FairPOTrainer


NAMES = ("concise", "polite", "factual")
COMMON = {
    "report_to": "none",
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "learning_rate": 0.05,
    "max_grad_norm": 0.0,  # clipping divides by a norm of the whole gradient; off, so that nothing hides a wrong scale
    "num_train_epochs": 1,
    "beta": 0.5,
    "train_sampling_strategy": "sequential",
    "per_device_train_batch_size": 4,
}


def drifted(seed: int = 0, dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    """The tiny model moved off the reference, so that hinges are active from the first step."""
    model = make_model(seed, dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return model


def data(n: int = 24, seed: int = 0, attributes: tuple[Any, ...] = NAMES) -> Dataset:
    """`n` pairs; attributes in turn, then shuffled so that short stretches lack one."""
    rows = make_rows(n, attributes, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 7)).tolist()
    for row, i in zip(rows, order, strict=True):
        row["attribute"] = attributes[i % len(attributes)]
        if any(isinstance(name, list) for name in attributes) and isinstance(row["attribute"], str):
            row["attribute"] = [row["attribute"]]  # a column has one type
    return Dataset.from_list(rows)


def turned(pairs: Dataset, name: str = "polite") -> Dataset:
    """Pairs in which one attribute wants what the others do not: its chosen and rejected texts change places."""

    def turn(row: dict[str, Any]) -> dict[str, str]:
        changed = {"chosen": row["rejected"], "rejected": row["chosen"]}
        return changed if row["attribute"] == name else {}

    return pairs.map(turn)


def lora() -> LoraConfig:
    return LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )


def fairpo(out: Any, dataset: Any = None, model: Any = None, ref: Any = "base", **options: Any) -> FairPOTrainer:
    """A FairPOTrainer on the tiny model; `trainer` options (eval_dataset, peft_config, ...) may be among `options`."""
    defaults = {
        "privileged_attributes": ["concise"],
        "allow_prompt_overlap": True,  # random rows repeat themselves
        "reference_cache_dir": f"{out}-reference",  # each test its own
    }
    return _build(FairPOTrainer, FairPOConfig, out, dataset, model, ref, {**defaults, **options})


def dpo(out: Any, dataset: Any = None, model: Any = None, ref: Any = "base", **options: Any) -> DPOTrainer:
    """TRL's own trainer on the same model and data."""
    return _build(DPOTrainer, DPOConfig, out, dataset, model, ref, options)


def _build(trainer: Any, config: Any, out: Any, dataset: Any, model: Any, ref: Any, options: dict[str, Any]) -> Any:
    names = ("eval_dataset", "peft_config", "partition", "callbacks", "compute_metrics", "optimizers")
    kwargs = {name: options.pop(name) for name in names if name in options}
    torch.manual_seed(0)  # LoRA draws its matrices when the trainer wraps the model
    if isinstance(ref, str):
        ref = None if "peft_config" in kwargs else make_model()
    return trainer(
        model=drifted() if model is None else model,
        ref_model=ref,
        args=config(output_dir=str(out), **{**COMMON, **options}),
        train_dataset=data() if dataset is None else dataset,
        processing_class=make_tokenizer(),
        **kwargs,
    )


class ExactHead:
    """TRL's fused LM head in plain float64 (its own stores log-probs in float32, which hides errors below 1e-5)."""

    @staticmethod
    def apply(
        hidden: Any,
        weight: Any,
        bias: Any,
        labels: Any,
        temperature: Any,
        chunk: Any,
        cap: Any,
        scale: Any,
        outputs: Any,
    ) -> tuple:
        logits = torch.nn.functional.linear(hidden.double(), weight.double(), bias)
        log_p = logits.log_softmax(-1)
        own = log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return own, entropy.detach(), None, logits.mean(-1).detach(), logits.argmax(-1) == labels


def parameters(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the trainable parameters."""
    return {n: copy.deepcopy(p.detach()) for n, p in trainer.model.named_parameters() if p.requires_grad}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    """Equal names, and values within an absolute tolerance (0 is bit-equal)."""
    assert a.keys() == b.keys()
    worst = max((float((a[n] - b[n]).abs().max()), n) for n in a)
    assert worst[0] <= tolerance, f"{worst[1]} differs by {worst[0]:.3g}"


def logs(trainer: Any, key: str = "loss") -> list[dict[str, float]]:
    """The logged steps that hold `key`."""
    return [entry for entry in trainer.state.log_history if key in entry]
