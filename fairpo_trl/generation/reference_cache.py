"""Log-probabilities of the reference, kept on disk by what they depend on, for every run that asks for the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model
from datasets import Dataset, IterableDataset
from datasets import config as datasets_config
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedConfig
from trl.models.utils import prepare_deepspeed

from fairpo_trl.files import write_file
from fairpo_trl.generation.collator import AttributeCollator
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.packed_forward import causal_model
from fairpo_trl.generation.reference import adapter_of
from fairpo_trl.hashing import sha256, sha256_of_json, sha256_of_tensors
from fairpo_trl.training.mixin_base import TrainerBase


logger = get_logger(__name__)
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
_VERSION = 1  # of how a value is computed and stored
_ROWS = 256  # that are collated at once to be hashed
# Where a model came from and how it was saved: none of it changes what it computes.
_NO_FACTS = {"_name_or_path", "transformers_version", "architectures", "use_cache"}


class ReferenceCache:
    """
    A folder of log-probabilities by pair: tables that are written once, and read together.

    Args:
        folder (`Path`):
            For one reference and one way of computing; made when the first values are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[bytes, tuple[float, float]]:
        """
        Every kept pair: its hash -> log-probability of chosen and of rejected.

        Raises:
            ValueError: For a file that is damaged; names it, and what to do.
        """
        known: dict[bytes, tuple[float, float]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                tables = safetensors.torch.load_file(path)
                pairs, values = tables["pairs"].numpy(), tables["log_probs"].double().tolist()
                if len(pairs) != len(values):
                    raise ValueError("its tables have different lengths")
            except Exception as error:
                raise ValueError(
                    f"The kept reference log-probabilities in {path} cannot be read ({error}). Delete this file: they "
                    "are computed again."
                ) from error
            known.update((row.tobytes(), tuple(both)) for row, both in zip(pairs, values, strict=True))
        return known

    def add(self, pairs: Sequence[bytes], values: NDArray[np.float64]) -> None:
        """
        Keeps new pairs, by hash, with their values `[N, 2]`; atomically, so that two runs that write at once keep
        both.
        """
        tables = {
            "pairs": torch.from_numpy(np.frombuffer(b"".join(pairs), dtype=np.uint8).reshape(len(pairs), -1).copy()),
            "log_probs": torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)),
        }
        content = safetensors.torch.save(tables)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / f"{sha256([content])[:32]}.safetensors", lambda file: file.write(content))


def pair_hashes(
    rows: Dataset, collator: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]
) -> tuple[list[bytes], list[int]]:
    """
    A hash of each pair as the model sees it, its tokens after truncation and which of them are completion, and the
    tokens of both its sequences together. What `collator` cuts off when it makes a batch `[2B, W]` of the rows does
    not count.
    """
    hashes: list[bytes] = []
    lengths: list[int] = []
    for start in range(0, len(rows), _ROWS):
        columns = rows[start : start + _ROWS]
        batch = collator([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        ids, kept, completion = (batch[k].numpy() for k in ("input_ids", "attention_mask", "completion_mask"))
        sides = []
        for line in range(len(ids)):
            real = kept[line].astype(bool)
            tokens = ids[line][real].astype("<i8").tobytes() + completion[line][real].astype("<i8").tobytes()
            sides.append(hashlib.sha256(tokens).digest())
        half = len(ids) // 2
        hashes += [hashlib.sha256(a + b).digest()[:16] for a, b in zip(sides[:half], sides[half:], strict=True)]
        lengths += (kept[:half].sum(axis=1) + kept[half:].sum(axis=1)).tolist()
    return hashes, lengths


def reference_hash(model: Any, is_policy: bool) -> str:
    """
    A hash of everything in a reference that its log-probabilities depend on; call it on every process.

    It is a model, or (`is_policy`) a policy whose adapter is switched off or exchanged for its "ref" copy: then the
    adapter that is trained does not count.
    """
    state, facts = dict(model.named_parameters()) | dict(model.named_buffers()), []
    if is_policy and is_peft_model(model):
        state = {name: tensor for name, tensor in state.items() if adapter_of(model, name) in (None, "ref")}
        if "ref" in model.peft_config:
            facts.append(model.peft_config["ref"].to_dict())
    config: PreTrainedConfig = causal_model(model).config
    facts.append({name: value for name, value in config.to_dict().items() if name not in _NO_FACTS})
    described = json.dumps(facts, sort_keys=True, default=_as_json)
    shards = {name: tensor.ds_tensor for name, tensor in state.items() if hasattr(tensor, "ds_tensor")}
    if shards:  # ZeRO-3: each process has a part of every weight
        return sha256_of_json([gather_object([sha256_of_tensors(shards)]), described])
    state = {name: tensor for name, tensor in state.items() if not tensor.is_meta}
    return sha256_of_json([sha256_of_tensors(state), described])


def _as_json(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


class CachedReference(TrainerBase):
    """
    Mixin before [`~trl.DPOTrainer`]: `precompute_ref_log_probs` with values that are kept by pair.

    The key of a value is the reference's weights and configuration, the tokens of the pair after truncation,
    `ld_alpha` and the precision. Losses, partitions, seeds, the order and the choice of rows are not part of it, so
    runs that differ in these alone compute nothing again.
    """

    args: FairPOConfig
    ref_model: Any
    data_collator: Any
    ld_alpha: float | None
    is_deepspeed_enabled: bool
    is_fsdp_enabled: bool
    _precompute_engine: Any
    _precompute_model_hash: str
    compute_ref_log_probs: Callable[..., tuple[torch.Tensor, torch.Tensor]]

    _reference_key: str | None = None

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """As upstream: the data set with the columns `ref_chosen_logps` and `ref_rejected_logps`."""
        if isinstance(dataset, IterableDataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)  # raises
        # A data loader draws a seed: what is computed here must not change the order of the training data.
        with torch.random.fork_rng(devices=[]):
            values = self._reference_values(dataset, name, batch_size)
        for column, column_values in zip(REFERENCE_COLUMNS, values.T, strict=True):
            dataset = dataset.add_column(column, np.ascontiguousarray(column_values))
        return dataset

    def _reference_values(self, dataset: Dataset, name: str, batch_size: int) -> NDArray[np.float64]:
        """Log-probabilities of all pairs, `[N, 2]`, equal on every process: kept ones, and the others computed now."""
        cache = ReferenceCache(self._cache_root() / self._cache_key())
        rows = dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
        ours = isinstance(self.data_collator, AttributeCollator)  # not while upstream sets the trainer up
        collator = self.data_collator.collator if ours else self.data_collator
        main = self.accelerator.is_main_process  # it alone reads and writes: others may have another disk
        hashes, lengths = pair_hashes(rows, collator) if main else ([], [])
        known = cache.read() if main else {}
        first = {pair: i for i, pair in reversed(list(enumerate(hashes))) if pair not in known}  # equal pairs once
        # Long pairs first: batches of equal lengths, and too little memory shows at once.
        agreed = [sorted(first.values(), key=lambda i: (-lengths[i], i))]
        broadcast_object_list(agreed, from_process=0)
        missing: list[int] = agreed[0]
        if missing:
            computed = self._compute_reference(rows.select(missing), name, batch_size, collator)
            if main:
                pairs = [hashes[i] for i in missing]
                known.update(zip(pairs, map(tuple, computed.tolist()), strict=True))
                # Others are an error as soon as they are trained on.
                finite = np.asarray(np.isfinite(computed).all(axis=1))
                try:
                    cache.add(
                        [pair for pair, fine in zip(pairs, finite.tolist(), strict=True) if fine], computed[finite]
                    )
                except OSError as error:
                    logger.warning(f"The reference log-probabilities are not kept for later runs: {error}")
        both = [np.array([known[pair] for pair in hashes], dtype=np.float64).reshape(-1, 2) if main else None]
        broadcast_object_list(both, from_process=0)
        assert both[0] is not None
        return both[0]

    def _compute_reference(self, rows: Dataset, name: str, batch_size: int, collator: Any) -> NDArray[np.float64]:
        loader = DataLoader(
            rows,
            batch_size=batch_size,
            collate_fn=collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        model = self.ref_model if self.ref_model is not None else self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            # Upstream keeps one engine for all its passes: the weights are placed, and gathered, by it.
            if self._precompute_engine is None:
                self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
            model = self._precompute_engine
        title = f"Computing reference log probs for {name} dataset"
        done = []
        for batch in tqdm(self.accelerator.prepare(loader), desc=title, disable=self.args.disable_tqdm):
            both = torch.stack(self.compute_ref_log_probs(model, batch), dim=1)  # [B, 2]
            done.append(self.accelerator.gather_for_metrics(both).cpu().double())
        return torch.cat(done).numpy()

    def _cache_root(self) -> Path:
        if self.args.reference_cache_dir is not None:
            return Path(self.args.reference_cache_dir).expanduser()
        return Path(datasets_config.HF_DATASETS_CACHE) / "fairpo_reference"

    def _cache_key(self) -> str:
        """Of the reference and the way it is computed; taken once, before training, on every process alike."""
        if self._reference_key is None:
            is_policy = self.ref_model is None
            model = self.model if is_policy else self.accelerator.unwrap_model(self.ref_model)
            # Upstream hashes a reference of its own before it is sharded, which is too late here.
            weights = [self._precompute_model_hash, reference_hash(model, is_policy) if is_policy else None]
            if is_policy:
                weights[0] = None  # it covers the adapter that is trained, and so depends on the seed
            elif not self.is_fsdp_enabled:
                weights[1] = reference_hash(model, is_policy)
            key = [sha256_of_json([_VERSION, *weights, self.ld_alpha, str(self.accelerator.mixed_precision)])[:32]]
            broadcast_object_list(key, from_process=0)
            self._reference_key = key[0]
        return self._reference_key
