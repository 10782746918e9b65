"""An adapter merged into its base: a plain model for those who load no adapters."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fairpo_trl.hub.privacy import is_hub_id
from fairpo_trl.loading import check_model_folder, explained


def merge_adapter(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """
    Merges a LoRA adapter into its base model and saves the result as safetensors, with the tokenizer.

    The weights keep the base's own precision: in bfloat16 the sums are rounded, in float32 the merged model gives the
    adapter's logits up to rounding.

    Args:
        folder (`str` or `os.PathLike`):
            A saved adapter; its `adapter_config.json` names the base, a Hub id or a path.
        output (`str` or `os.PathLike`):
            Folder of the merged model. It must not exist, or be empty; after a failure it is as it was.

    Returns:
        `Path`: `output`.

    Raises:
        FileNotFoundError: If there is no adapter, or its base is not there.
        ValueError: If the adapter cannot be merged (prompt tuning, a quantised base, tied embeddings), or `output`
            holds something.
    """
    folder, output = Path(folder), Path(output)
    if not (folder / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no adapter (no adapter_config.json): only an adapter can be merged.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} holds something already: name a new folder for the merged model.")
    base_name = check_mergeable(folder)
    with explained(base_name, "base model"):
        base = AutoModelForCausalLM.from_pretrained(
            base_name, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
    with explained(folder, "adapter"):
        model = PeftModel.from_pretrained(base, str(folder))
    _refuse_tied(base, base_name)
    merged: Any = model.merge_and_unload(safe_merge=True)  # a sum that is not finite raises
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        merged.save_pretrained(draft)
        own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        AutoTokenizer.from_pretrained(str(folder) if own else base_name, trust_remote_code=False).save_pretrained(
            draft
        )
        draft.chmod(0o755)
        if output.exists():
            output.rmdir()
        os.replace(draft, output)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return output


def check_mergeable(folder: str | os.PathLike[str]) -> str:
    """
    Says before any weight is loaded whether an adapter can be merged; returns its base model, as the adapter names it.

    Raises:
        FileNotFoundError: If the base is a path that is not there.
        ValueError: If it is prompt tuning, names no base, or the base is quantised.
    """
    check_model_folder(folder)
    config = PeftConfig.from_pretrained(str(folder))
    base_name = config.base_model_name_or_path
    if config.is_prompt_learning:
        raise ValueError(
            f"{folder} is an adapter of kind {config.peft_type.value}, which changes the input and no weight: "
            "there is nothing to merge. Push it as it is, without --merged."
        )
    if not base_name:
        raise ValueError(
            f"{folder}/adapter_config.json names no base model (base_model_name_or_path): write it there."
        )
    if not os.path.isdir(base_name) and not is_hub_id(base_name):
        raise FileNotFoundError(
            f"The base model {base_name!r} that {folder}/adapter_config.json names is not there: correct "
            "base_model_name_or_path."
        )
    quantization = getattr(AutoConfig.from_pretrained(base_name, trust_remote_code=False), "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
        raise ValueError(
            f"The base model {base_name!r} is quantised ({getattr(method, 'value', method)}): a merged weight would "
            "be rounded to its few levels, which loses most of what the adapter learned. Name the full-precision "
            "model in base_model_name_or_path of adapter_config.json, or push the adapter without --merged."
        )
    return str(base_name)


def _refuse_tied(base: Any, name: str) -> None:
    """A change of one of two tied matrices would be saved for both."""
    tied = base.config.tie_word_embeddings
    parts = {"input embeddings": base.get_input_embeddings(), "LM head": base.get_output_embeddings()}
    changed = [part for part, module in parts.items() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    if tied and changed:
        raise ValueError(
            f"The adapter changes the {' and the '.join(changed)} of {name!r}, which are one tied matrix there: "
            "merged, the change would act on both. Push the adapter without --merged."
        )
