"""
What the classification half costs, as ratios measured in one run.

    python benchmarks/classification_cost.py             (a few minutes on 2 CPU cores)
    python benchmarks/classification_cost.py --full      (adds 11 methods x 5 seeds x 10 epochs at the size of COCO)

1. A FairPO-DPO step against a plain BCE step: batch 1,024 x 80 labels, 16 of them privileged, 768 features, linear
   head; the same transformers Trainer, the reference's logits cached. Interleaved, median and quartiles.
2. The vectorised loss against a loop over samples and labels, batch 32 x 80.
3. Feature extraction into the cache against a bare loop over the same backbone (a timm ViT-Ti with random weights:
   speed does not depend on them), one thread, images decoded and transformed in both.
4. With `--full`: every method at COCO's size (82,081 + 40,137 images, synthetic features and labels, called so).
"""

from __future__ import annotations

import argparse
import copy
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers.utils import logging as transformers_logging


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import oracle_classification as oracle

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer, Partition
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.dataset import SplitDataset, compute_logits
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.cache import extract_features
from fairpo_trl.classification.methods import Method, apply_method
from fairpo_trl.classification.metrics.comparison import compare_with_reference
from fairpo_trl.classification.objective import label_losses


LABELS, PRIVILEGED, WIDTH = 80, 16, 768


def synthetic(rows: int, seed: int, name: str) -> MultiLabelSplit:
    """Features and labels of COCO's shape: about 2.9 labels an image, the rarest at .2 %."""
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(0).normal(size=(WIDTH, LABELS)).astype(np.float32) / np.sqrt(WIDTH)
    features = generator.normal(size=(rows, WIDTH)).astype(np.float32)
    frequency = np.geomspace(0.002, 0.25, LABELS)
    scores = features @ truth + 0.7 * generator.normal(size=(rows, LABELS)).astype(np.float32)
    labels = (scores > np.quantile(scores, 1 - frequency, axis=0).diagonal()).astype(np.int8)
    return MultiLabelSplit(
        name=name,
        label_names=tuple(f"label {i}" for i in range(LABELS)),
        labels=labels,
        ids=tuple(f"{name}-{i}" for i in range(rows)),
        images=None,
        features=features,
        series=None,
        notes={"synthetic": "features and labels"},
    )


def make_trainer(
    train: MultiLabelSplit, method: str, folder: str, reference: MultiLabelClassifier | None = None, **options: object
) -> MultiLabelFairPOTrainer:
    """A trainer of one method on a linear head."""
    partition = Partition.by_least_frequent(train.label_counts(), PRIVILEGED / LABELS)
    torch.manual_seed(0)
    model = copy.deepcopy(reference)
    if model is None:
        config = MultiLabelClassifierConfig(label_names=list(train.label_names), feature_size=WIDTH, standardize=False)
        model = MultiLabelClassifier(config)
    args = MultiLabelFairPOConfig(
        output_dir=folder,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        per_device_train_batch_size=1024,
        per_device_eval_batch_size=8192,
        **{"num_train_epochs": 1, **options},  # type: ignore[arg-type]
    )
    apply_method(method, args, partition)  # type: ignore[arg-type]
    return MultiLabelFairPOTrainer(
        model=model, ref_model=reference, args=args, train_dataset=train, partition=partition
    )


def quiet(work: Callable[[], object]) -> float:
    """Seconds of `work`, its printing swallowed."""
    started = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        work()
    return time.perf_counter() - started


def step_ratio(rounds: int) -> np.ndarray:
    """Training time of FairPO-DPO over that of BCE, round by round (the order within a round alternates)."""
    train = synthetic(16 * 1024, 1, "train")
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(io.StringIO()):
            start = make_trainer(train, "bce", folder)
            start.train()
        ratios = []
        for number in track(range(rounds), description="FairPO and BCE steps"):
            seconds = {}
            for method in ("bce", "fairpo_dpo") if number % 2 else ("fairpo_dpo", "bce"):
                trainer = make_trainer(train, method, folder, start.model)
                seconds[method] = quiet(trainer.train)
            ratios.append(seconds["fairpo_dpo"] / seconds["bce"])
    return np.array(ratios[1:])  # the first round warms up


def loop_ratio() -> float:
    """Time of the loop over samples and labels divided by that of the vectorised loss, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, LABELS, generator=generator, requires_grad=True)
    reference = torch.randn(32, LABELS, generator=generator)
    labels = (torch.rand(32, LABELS, generator=generator) < 0.035).to(torch.int8)
    privileged, held = list(range(PRIVILEGED)), range(PRIVILEGED, LABELS)
    uniform = torch.rand(32, PRIVILEGED, generator=generator)
    args = MultiLabelFairPOConfig(output_dir="unused", privileged_labels=["label 0"], report_to="none", use_cpu=True)

    def loop() -> None:
        of_privileged = oracle.all_privileged_losses(
            logits, reference, labels, privileged, uniform, {"loss": "dpo", "beta": args.beta}
        )
        of_held = [
            torch.clamp(
                oracle.bce(logits[i, t], int(labels[i, t]))
                - oracle.bce(reference[i, t], int(labels[i, t]))
                - args.epsilon,
                min=0.0,
            )
            for i in range(32)
            for t in held
        ]
        (of_privileged.sum() + torch.stack(of_held).sum()).backward()

    columns = torch.tensor(privileged)

    def vectorised() -> None:
        label_losses(
            logits,
            labels,
            args,
            columns,
            reference_logits=reference,
            uniform=lambda image, column: uniform[image, column],
        ).losses.sum().backward()

    quiet(vectorised)
    repeats = 50
    fast = min(quiet(lambda: [vectorised() for _ in range(repeats)]) / repeats for _ in range(5))
    return min(quiet(loop) for _ in range(2)) / fast


def extraction_ratio(rounds: int) -> np.ndarray:
    """Images per second of the cache over those of a bare loop, round by round."""
    import timm

    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(96):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (160, 160, 3), dtype=np.uint8)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
        timm.models.save_for_hf(model, f"{folder}/vit")
        backbone = load_backbone(f"timm:local-dir:{folder}/vit", pooling="cls").eval()
        for number in track(range(rounds), description="Cache and bare loop"):
            split = MultiLabelSplit(
                name="train",
                label_names=("a",),
                labels=np.zeros((96, 1), dtype=np.int8),
                ids=tuple(f"{number}-{i}" for i in range(96)),
                images=pictures,
                features=None,
                series=None,
                notes={},
            )

            @torch.no_grad()
            def bare() -> None:
                for first in range(0, 96, 32):
                    backbone(torch.stack([backbone.transform(open_image(p)) for p in pictures[first : first + 32]]))

            def cached(split: MultiLabelSplit = split) -> None:
                extract_features(split, backbone, f"{folder}/cache", batch_size=32, progress=False)

            order = (bare, cached) if number % 2 else (cached, bare)
            seconds = {work.__name__: quiet(work) for work in order}
            ratios.append(seconds["bare"] / seconds["cached"])
    return np.array(ratios[1:])


def full_size() -> tuple[float, float, float]:
    """Minutes of 11 methods x 5 seeds x 10 epochs at COCO's size, peak memory in GB, seconds of one bootstrap."""
    train, test = synthetic(82_081, 1, "train"), synthetic(40_137, 2, "test")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in track(range(5), description="11 methods x 5 seeds"):
            reference: MultiLabelClassifier | None = None
            for method in (name for name in get_args(Method) if name != "fairpo"):
                trainer = make_trainer(train, method, folder, reference, seed=seed, num_train_epochs=10)
                quiet(trainer.train)
                quiet(lambda trainer=trainer: trainer.evaluate(test))
                reference = reference or trainer.model  # `bce` comes first
    minutes = (time.perf_counter() - started) / 60
    logits = [
        compute_logits(model, SplitDataset(test), 8192, torch.device("cpu")) for model in (trainer.model, reference)
    ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    seconds = quiet(
        lambda: compare_with_reference(test.labels, logits[0].numpy(), logits[1].numpy(), trainer.partition)
    )
    return minutes, memory, seconds


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="threads of the first three measurements")
    parser.add_argument("--full", action="store_true", help="also the run at COCO's size")
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    table = Table(title="Cost of the classification half, ratios within one run", title_justify="left")
    for column in ("what", "median", "quartiles"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for label, ratios in (
        ("FairPO-DPO step / BCE step (batch 1,024 x 80 labels)", step_ratio(args.rounds)),
        ("images per second, cache / bare loop", extraction_ratio(args.rounds)),
    ):
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        table.add_row(label, f"{median:.2f}", f"{low:.2f} to {high:.2f}")
    table.add_row("loop over samples and labels / vectorised loss (batch 32)", f"{loop_ratio():,.0f}", "")
    if args.full:
        torch.set_num_threads(threads)
        minutes, memory, seconds = full_size()
        table.add_row("11 methods x 5 seeds x 10 epochs at COCO's size", f"{minutes:.1f} min", f"{memory:.1f} GB")
        table.add_row("one paired bootstrap of its 40,137 test images", f"{seconds:.0f} s", "")
    Console().print(table)


if __name__ == "__main__":
    main()
