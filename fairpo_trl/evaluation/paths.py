"""Paths from a reference to a trained model: adapters and full models between the two, each as a plain folder.

A LoRA adapter adds `scaling * B A` to a weight, so multiplying every `B` by `s` gives the model whose weights lie the
share `s` of the way from the reference to the trained one, and beyond it for `s` above 1 (as WiSE-FT and PAINT do with
whole models, 2109.01903 and 2208.05592). Scaling `B` and not `lora_alpha` is right for rsLoRA and for ranks or alphas
by module, and the folder needs nobody who knows of the scale.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save_file

from fairpo_trl.evaluation.models import ModelSource, load_causal
from fairpo_trl.evaluation.selection import check_scales
from fairpo_trl.evaluation.served import ServedModel, WrittenModel
from fairpo_trl.files import sync_folder, write_json


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_BESIDE = "tokenizer* chat_template* special_tokens_map.json added_tokens.json vocab.* merges.txt *.model".split()
"""What travels with a model: its tokenizer."""

_ZERO_AT_START = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base as it is, so that scale 0 is the reference."""

_NOT_LINEAR = ("use_dora", "use_qalora", "kasa_config", "monteclora_config", "arrow_config")
_INSTEAD = (
    "Test checkpoints of the run instead (`path checkpoints`), or several adapters in their order (`path models`); or "
    "merge it into its base (`fairpo_trl.generation.merging.merge_adapter`) and name the merged model."
)


def check_scalable(source: ModelSource) -> None:
    """
    Says whether the weights of an adapter can be scaled, without loading them.

    Raises:
        ValueError: If it is no LoRA, or one that is not linear in `B` (DoRA) or has moved the base (PiSSA and the
            like); the message says what to do instead.
    """
    config = _adapter_config(source)
    name = source.name
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{name!r} is an adapter of kind {config.get('peft_type')}, which has no scale: only LoRA has. {_INSTEAD}"
        )
    wrong = [option for option in _NOT_LINEAR if config.get(option)]
    if wrong:
        raise ValueError(
            f"{name!r} was trained with `{wrong[0]}`: its weights are not linear in the scale, so that a scaled "
            f"adapter is no model between reference and trained model. {_INSTEAD}"
        )
    start = config.get("init_lora_weights", True)
    if start not in _ZERO_AT_START:
        raise ValueError(
            f"{name!r} was initialised with `init_lora_weights={start!r}`, which changes the base: scaled to 0 it is "
            "not the reference. Save it with PEFT's `path_initial_model_for_weight_conversion`, which makes a plain "
            f"LoRA of it. {_INSTEAD}"
        )


def scale_adapter(source: ModelSource, scale: float, output: str | os.PathLike[str]) -> Path:
    """
    Writes a LoRA adapter with its scale baked in, as a folder that PEFT loads.

    Args:
        source ([`~fairpo_trl.evaluation.models.ModelSource`]):
            The adapter.
        scale (`float`):
            0 is the reference, 1 the adapter as it is; at least 0.
        output (`str` or `os.PathLike`):
            The new folder, as everywhere here whole or not there; one that is there is replaced.

    Raises:
        ValueError: If the adapter cannot be scaled (see [`check_scalable`]), holds a tensor that is neither LoRA's nor
            one of the base's, or the scale is negative.
    """
    check_scalable(source)
    check_scale(scale)
    tensors = load_file(source.folder / ADAPTER_FILES[1])
    whole = {name for name in tensors if not _is_lora(name)}
    # Biases and `modules_to_save` lie between the base's and the adapter's.
    base_tensors = load_causal(source.weights).state_dict() if whole else {}
    scaled = {}
    for name, tensor in tensors.items():
        if name in whole:
            scaled[name] = between(_matching(base_tensors, name, tensor, source), tensor, scale)
        elif ".lora_B." in name or name.rpartition(".")[2] == "lora_embedding_B":  # also the bias of B (`lora_bias`)
            # In float32 at least: PEFT loads adapters in it, and rounding to bfloat16 would move the scale.
            exact = tensor.double() * scale
            scaled[name] = exact.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()
        else:
            scaled[name] = tensor
    with _draft(Path(output)) as folder:
        save_file(scaled, folder / ADAPTER_FILES[1], metadata={"format": "pt"})
        write_json(folder / ADAPTER_FILES[0], _adapter_config(source) | {"inference_mode": True}, indent=2)
        _copy(source.tokenizer, folder, _BESIDE)
    return Path(output)


def interpolate_model(
    reference: ModelSource, trained: ModelSource, scale: float, output: str | os.PathLike[str]
) -> Path:
    """
    Writes the full model that lies the share `scale` of the way from a reference to a model trained from it.

    Args:
        reference, trained ([`~fairpo_trl.evaluation.models.ModelSource`]):
            Full models of one architecture.
        scale (`float`):
            0 is the reference, 1 the trained model; at least 0.
        output (`str` or `os.PathLike`):
            The new folder.

    Raises:
        ValueError: If the two have other tensors, shapes or ties, or the scale is negative.
    """
    check_scale(scale)
    model, start = load_causal(trained.folder), load_causal(reference.folder)
    first, last = start.state_dict(), model.state_dict()
    if differing := differing_tensors(first, last):
        raise ValueError(
            f"{trained.name!r} and {reference.name!r} differ in {differing[0]!r} ({len(differing)} tensors in all): "
            "there is no path between models of different shapes. Name the model that was trained from as `reference`."
        )
    if start.config.tie_word_embeddings != model.config.tie_word_embeddings:
        raise ValueError(
            f"The embeddings are tied in only one of {trained.name!r} and {reference.name!r}: save both alike."
        )
    done: set[int] = set()
    for name, tensor in last.items():
        if tensor.data_ptr() not in done:  # a tied weight has two names
            tensor.copy_(between(first[name], tensor, scale, name))
            done.add(tensor.data_ptr())
    with _draft(Path(output)) as folder:
        model.save_pretrained(folder)
        _copy(trained.tokenizer, folder, _BESIDE)
    return Path(output)


def copy_model(source: ModelSource, output: str | os.PathLike[str]) -> Path:
    """Copies what loads as a model, an adapter or a full one, and leaves all else of its folder (optimizer, logs)."""
    full = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
    with _draft(Path(output)) as folder:
        _copy(source.folder, folder, full if source.base is None else ADAPTER_FILES)
        _copy(source.tokenizer, folder, _BESIDE)
    return Path(output)


Source: TypeAlias = ModelSource | ServedModel | WrittenModel
"""What writes: a model that is loaded here, one behind a server, or a file of texts."""


@dataclass(frozen=True)
class Step:
    """
    One candidate of a path.

    Attributes:
        name (`str`): What it is called in results.
        scale (`float`, *optional*): How far it is from the reference to the trained model; `None` if it has no scale.
        make (`Callable`): Gives the model, which is written to disk first if it is not there yet.
    """

    name: str
    scale: float | None
    make: Callable[[], Source]

    @property
    def label(self) -> str:
        """The name as that of a folder."""
        return self.name.replace(" ", "-")


def scaled_path(
    trained: ModelSource, reference: ModelSource, scales: Sequence[float], folder: str | os.PathLike[str]
) -> list[Step]:
    """
    The models between a reference and a trained model, and beyond, from the safest.

    Args:
        trained, reference ([`~fairpo_trl.evaluation.models.ModelSource`]):
            A LoRA adapter of the reference, or a full model trained from it, and the reference.
        scales (`Sequence[float]`):
            Positive and rising.
        folder (`str` or `os.PathLike`):
            Where they are written.

    Raises:
        ValueError: If the scales do not rise, or the adapter cannot be scaled.
    """
    check_scales(scales)
    if trained.base is not None:
        check_scalable(trained)

    def make(scale: float) -> ModelSource:
        name, output = f"scale {scale:g}", Path(folder) / f"scale-{scale:g}"
        if trained.base is None:
            return ModelSource(name, interpolate_model(reference, trained, scale, output), None, output)
        return ModelSource(name, scale_adapter(trained, scale, output), trained.base, trained.tokenizer)

    return [Step(f"scale {scale:g}", scale, functools.partial(make, scale)) for scale in scales]


def listed_path(sources: Mapping[str, Source]) -> list[Step]:
    """Models in the order in which they are given by their names, such as the checkpoints of a run."""

    def step(name: str, source: Source) -> Step:
        return Step(name, None, lambda: source)

    return [step(name, source) for name, source in sources.items()]


def _adapter_config(source: ModelSource) -> dict[str, Any]:
    path = source.folder / ADAPTER_FILES[0]
    if not path.is_file():
        raise ValueError(f"{source.name!r} is no adapter: it holds no {ADAPTER_FILES[0]}.")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def check_scale(scale: float) -> None:
    """Raises for a scale that is not finite or below 0."""
    if not 0 <= scale < float("inf"):
        raise ValueError(f"A scale must be a finite number of at least 0, got {scale}.")


def _is_lora(name: str) -> bool:
    return any(part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B") for part in name.split("."))


def _matching(base: dict[str, torch.Tensor], name: str, tensor: torch.Tensor, source: ModelSource) -> torch.Tensor:
    """The base's tensor that a whole tensor of the adapter stands for."""
    own = name.removeprefix("base_model.model.").replace(".base_layer", "")
    found = base.get(own)
    if found is None or found.shape != tensor.shape:
        why = "the base has none of this name" if found is None else f"in the base it is {tuple(found.shape)}"
        raise ValueError(
            f"{source.name!r} holds the tensor {name} {tuple(tensor.shape)}, but {why}: there is nothing between the "
            f"two. {_INSTEAD}"
        )
    return found


def differing_tensors(first: Mapping[str, torch.Tensor], last: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that only one of two models has, or that have another shape in the other."""
    alone = sorted(first.keys() ^ last.keys())
    return alone + [name for name in first if name in last and first[name].shape != last[name].shape]


def between(first: torch.Tensor, last: torch.Tensor, scale: float, name: str = "") -> torch.Tensor:
    """`first + scale * (last - first)` in the precision of `last`; exactly `last` for scale 1."""
    if scale == 1:
        return last
    if not last.is_floating_point():
        if not torch.equal(first.cpu(), last.cpu()):
            raise ValueError(f"The whole numbers {name} differ between the two models: they cannot be interpolated.")
        return last
    start = first.to(device=last.device, dtype=torch.float64)
    return (start + scale * (last.double() - start)).to(last.dtype).contiguous()


@contextmanager
def _draft(output: Path) -> Iterator[Path]:
    """A folder that gets its name once it is whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        sync_folder(draft)
        shutil.rmtree(output, ignore_errors=True)
        draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(output.parent)


def _copy(source: Path, folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)  # the content of links: the Hub's cache consists of them
