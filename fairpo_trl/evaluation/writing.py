"""Completions that outlive a killed process: written in parts, each a file that is whole or not there."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from fairpo_trl.evaluation.completions import Completion, Model, Prompt, end_tokens, sample_completions
from fairpo_trl.files import write_json
from fairpo_trl.hashing import sha256_of_json


PART = 64
"""Prompts whose completions make one file: what is lost at most when the process is killed."""

_ON_A_CPU = 4  # times as many rows: every pass reads all weights there, and 64 rows take about twice as long as 16


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; see `sample_completions`."""

    samples_per_prompt: int = 1
    max_new_tokens: int = 256
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 1.0


def write_completions(
    folder: str | os.PathLike[str],
    label: str,
    identity: str,
    open_model: Callable[[], AbstractContextManager[Model]],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 16,
    desc: str = "Writing",
) -> list[list[Completion]]:
    """
    Sample completions, or read those that are on disk already; the model is only opened if some are missing.

    Args:
        folder (`str` or `os.PathLike`):
            Where the parts are kept.
        label (`str`):
            What the model's subfolder is called.
        identity (`str`):
            A hash of model and tokenizer.
        open_model (`Callable[[], AbstractContextManager[Model]]`):
            Loads the model.
        tokenizer, prompts, sampling:
            As for `sample_completions`.
        seed (`int`):
            Random numbers, shared by models with the same seed.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows computed at once, four times as many on a CPU; the completions do not depend on it, up to rounding.
        desc (`str`, *optional*, defaults to `"Writing"`):
            Label of the progress bar, which counts prompts.

    Returns:
        `[prompts][samples_per_prompt]` completions, the same as from one call of `sample_completions`.

    Raises:
        ValueError: If a kept part is damaged; names the file.
    """
    key = {"model": identity, "sampling": asdict(sampling), "seed": seed}
    opened: list[Model] = []
    with ExitStack() as stack:

        def part(chunk: Sequence[Prompt], first: int) -> list[list[Completion]]:
            if not opened:
                opened.append(stack.enter_context(open_model()))
            return sample_completions(
                opened[0],
                tokenizer,
                chunk,
                **asdict(sampling),
                seed=seed,
                batch_size=batch_size * (_ON_A_CPU if opened[0].device.type == "cpu" else 1),
                end_token_ids=end_tokens(opened[0], tokenizer),
                first_prompt=first,
                progress=False,
            )

        return keep_completions(folder, f"{label}-seed{seed}", key, prompts, part, desc=desc)


def keep_completions(
    folder: str | os.PathLike[str],
    label: str,
    key: dict[str, Any],
    prompts: Sequence[Prompt],
    write_part: Callable[[Sequence[Prompt], int], list[list[Completion]]],
    *,
    desc: str = "Writing",
) -> list[list[Completion]]:
    """
    Completions in parts of `PART` prompts, each of which is written once and then read.

    Args:
        folder, label, prompts, desc:
            As in [`write_completions`]; a hash follows the label.
        key (`dict[str, Any]`):
            Everything that the completions depend on, besides the prompts.
        write_part (`Callable[[Sequence[Prompt], int], list[list[Completion]]]`):
            Takes a part of the prompts and the number of its first one.

    Raises:
        ValueError: If a kept part is damaged; names the file.
    """
    place = Path(folder) / f"{label}-{_digest({**key, 'prompts': list(prompts), 'part': PART})}"
    starts = range(0, len(prompts), PART)
    paths = [place / f"{start:06d}.json" for start in starts]
    parts = [_read(path, min(PART, len(prompts) - start)) for path, start in zip(paths, starts, strict=True)]
    missing = [i for i, part in enumerate(parts) if part is None]
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        done = sum(len(part) for part in parts if part is not None)
        with tqdm(total=len(prompts), initial=done, desc=desc, unit="prompt") as bar:
            for i in missing:
                part = write_part(prompts[starts[i] : starts[i] + PART], starts[i])
                write_json(paths[i], [[[c.text, list(c.token_ids), c.ended] for c in row] for row in part])
                parts[i] = part
                bar.update(len(part))
    return [row for part in parts if part is not None for row in part]


def kept_numbers(
    folder: str | os.PathLike[str],
    label: str,
    key: dict[str, Any],
    compute: Callable[[], NDArray[np.float64]],
    count: int | None = None,
) -> NDArray[np.float64]:
    """
    Numbers that are computed once for what they depend on, and then read.

    Args:
        folder, label, key:
            As in [`keep_completions`]; the label begins the file's name.
        compute (`Callable`):
            Gives them, `[examples]`.
        count (`int`, *optional*):
            How many there are, if it is known before.

    Raises:
        ValueError: If the kept numbers are damaged; names the file.
    """
    path = Path(folder) / f"{label}-{_digest(key)}.json"
    if path.is_file():
        with named_if_damaged(path):
            found = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
            if found.shape != (count or max(1, found.size),) or not np.isfinite(found).all():
                raise ValueError(f"it holds numbers of shape {found.shape}")
            return found
    found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found.tolist())
    return found


def _read(path: Path, count: int) -> list[list[Completion]] | None:
    """One part, `None` if it is not there."""
    if not path.is_file():
        return None
    with named_if_damaged(path):
        rows = json.loads(path.read_text(encoding="utf-8"))
        if len(rows) != count:
            raise ValueError(f"{len(rows)} prompts instead of {count}")
        return [[Completion(str(text), tuple(ids), bool(ended)) for text, ids, ended in row] for row in rows]


@contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Errors of reading name the file."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The kept file {path} is damaged ({error}): delete it.") from error


def _digest(key: dict[str, Any]) -> str:
    return sha256_of_json(key)[:16]
