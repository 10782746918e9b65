"""Texts that are written elsewhere: by a model behind an OpenAI-compatible server, or in a file.

Common random numbers do not exist there: two models draw independently, so that differences between them hold more
noise than those of models that run here. Bounds and intervals become wider by it, not wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.evaluation.completions import Completion, Prompt
from fairpo_trl.evaluation.http import ChatClient, check_address
from fairpo_trl.evaluation.writing import PART, Sampling, keep_completions
from fairpo_trl.hashing import sha256_of_file
from fairpo_trl.preferences.rules import completion_text as prompt_text
from fairpo_trl.preferences.rules import prompt_key
from fairpo_trl.tables import read_rows


SERVED, WRITTEN = "served:", "completions:"
FORMS = f"{SERVED}http://HOST:PORT/v1#MODEL (a model of an OpenAI-compatible server) or {WRITTEN}FILE.jsonl"


@dataclass(frozen=True)
class ServedModel:
    """
    A model of an OpenAI-compatible server, such as vLLM; a LoRA module is a model by its own name there.

    Attributes:
        address (`str`): Base address, as `http://localhost:8000/v1`.
        model (`str`): Its name there.
        options (`Mapping[str, Any]`): Key, timeout, attempts and the like; see
            [`~fairpo_trl.evaluation.http.ChatClient`].
    """

    address: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.model

    def write(
        self, folder: str | os.PathLike[str], label: str, prompts: Sequence[Prompt], sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        """
        Lets it write, or reads what it wrote in an earlier call.

        Completions, `[prompts][samples]`, come without token ids.

        Args:
            folder, label:
                As in [`~fairpo_trl.evaluation.writing.keep_completions`].
            prompts (`Sequence`):
                Conversations.
            sampling ([`~fairpo_trl.evaluation.writing.Sampling`]):
                How texts are drawn. `top_k` is an option of vLLM; 0 leaves it out.
            seed (`int`):
                Sent along, one number per text: servers that honour it draw the same text again, no two models share
                their draws.

        Raises:
            ValueError: If a prompt is plain text, which a chat would turn into something else.
            OSError: If the server cannot be reached, refuses, or leaves chats without a reply; what came is kept.
        """
        plain = next((i for i, prompt in enumerate(prompts) if isinstance(prompt, str)), None)
        if plain is not None:
            raise ValueError(
                f"Prompt {plain} is plain text, but a server is asked in conversations: turn prompts into messages "
                "with `as_messages`."
            )
        client = ChatClient(self.address, self.model, what="server", **self.options)

        def part(chunk: Sequence[Prompt], first: int) -> list[list[Completion]]:
            samples = sampling.samples_per_prompt
            bodies = [
                {
                    "messages": list(prompt),
                    "max_tokens": sampling.max_new_tokens,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    **({"top_k": sampling.top_k} if sampling.top_k else {}),
                    # Within 31 bits, which every server takes.
                    "seed": (seed * 1_000_003 + (first + p) * samples + s) % 2**31,
                }
                for p, prompt in enumerate(chunk)
                for s in range(samples)
            ]
            found: list[Completion | None] = [None] * len(bodies)
            with closing(client.ask(bodies)) as replies:
                for index, reply in replies:
                    if reply is not None:
                        found[index] = Completion(reply.text, (), ended=reply.finish_reason == "stop")
            whole = [completion for completion in found if completion is not None]
            if len(whole) < len(found):
                place = first + found.index(None) // samples
                knows = " It may not know `top_k`: set it to 0." if sampling.top_k and not whole else ""
                raise OSError(
                    f"The server {client.description} gave no reply to {len(found) - len(whole)} of {len(found)} "
                    f"chats, as on prompt {place}, {shortened(prompt_text(chunk[place - first]))}.{knows} Parts of "
                    f"{PART} prompts that were whole are kept: give the same command again, or remove a prompt that "
                    "the server refuses."
                )
            return [whole[p * samples : (p + 1) * samples] for p in range(len(chunk))]

        key = {"server": client.url, "model": self.model, "sampling": asdict(sampling), "seed": seed}
        return keep_completions(folder, f"{label}-seed{seed}", key, prompts, part, desc=f"{self.model} writes")


@dataclass(frozen=True)
class WrittenModel:
    """
    Completions that were made elsewhere, one JSON object a line: `prompt`, and `completion` or `completions`.

    Attributes:
        path (`Path`): The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.stem

    def write(self, prompts: Sequence[Prompt], samples: int, skip: int = 0) -> list[list[Completion]]:
        """
        The texts of the file for these prompts, `[prompts][samples]`.

        They come without token ids; whether one ended by itself is not known and taken for granted.

        Args:
            prompts (`Sequence`):
                Plain text or messages, as in the file.
            samples (`int`):
                Texts per prompt.
            skip (`int`, *optional*, defaults to `0`):
                Leave out this many first: a reference needs twice the texts, the second half of which is compared with
                the first.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a row is no such object, or a prompt has too few texts.
        """
        found = self._texts()
        lacking = [prompt for prompt in prompts if len(found.get(prompt_key(prompt), ())) < skip + samples]
        if lacking:
            raise ValueError(
                f"{self.path.name} holds fewer than {skip + samples} completions of {len(lacking)} of {len(prompts)} "
                f"prompts, as {shortened(lacking[0])}: each needs `samples_per_prompt`, and twice as many in the file "
                "of the reference."
            )
        return [
            [Completion(text, (), ended=True) for text in found[prompt_key(prompt)][skip : skip + samples]]
            for prompt in prompts
        ]

    def fingerprint(self) -> str:
        """A hash of the file."""
        return sha256_of_file(self.path)

    def _texts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        rows = read_rows(self.path)
        for number, row in enumerate(rows if isinstance(rows, list) else rows.to_pylist()):
            try:
                texts = row["completions"] if "completions" in row else [row["completion"]]
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                    raise TypeError("completions must be texts")
                found.setdefault(prompt_key(row["prompt"]), []).extend(texts)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(
                    f"Row {number} of {self.path.name} is no completion ({reason}): a row has `prompt`, and "
                    "`completion` (text) or `completions` (a list of texts)."
                ) from error
        return found


def parse_source(name: str, options: Mapping[str, Any] | None = None) -> ServedModel | WrittenModel | None:
    """
    Reads the name of something that is written elsewhere, see `FORMS`; `None` for the folder or Hub id of a model
    that runs here. The `options` are for the client of a server.

    Raises:
        ValueError: If the address is wrong or the model is missing.
    """
    if name.startswith(SERVED):
        address, _, model = name.removeprefix(SERVED).partition("#")
        if not model:
            raise ValueError(f"{name!r} names no model of the server: write {FORMS}.")
        return ServedModel(check_address(address), model, dict(options or {}))
    if name.startswith(WRITTEN):
        return WrittenModel(Path(name.removeprefix(WRITTEN)).expanduser())
    return None
