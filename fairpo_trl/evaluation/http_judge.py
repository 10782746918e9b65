"""An OpenAI-compatible endpoint as a judge."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from fairpo_trl.evaluation.http import ChatClient
from fairpo_trl.evaluation.llm_judge import Answers


class HttpAnswerer:
    """
    Sends each question as a chat of one message, temperature 0.

    Args:
        address (`str`):
            Base address, as `http://localhost:8000/v1`.
        model (`str`):
            Name of the model there.
        max_tokens (`int`, *optional*, defaults to `256`):
            Length limit of an answer.
        **options (`Any`):
            Key, timeout, attempts and the like; see [`~fairpo_trl.evaluation.http.ChatClient`].

    Raises:
        ValueError: If the address, the name of the variable or a number is wrong.
    """

    def __init__(self, address: str, model: str, *, max_tokens: int = 256, **options: Any) -> None:
        if max_tokens < 1:
            raise ValueError(f"`judge_max_tokens` must be positive, got {max_tokens}.")
        self._client, self._max_tokens = ChatClient(address, model, **options), max_tokens
        self.description = self._client.description
        self.identity: Mapping[str, str | int | float] = {
            "address": self._client.url,
            "model": model,
            "max_tokens": max_tokens,
        }

    def answer(self, questions: Sequence[str]) -> Answers:
        """
        Yields answers as they come.

        Raises:
            OSError: If the server cannot be reached, or refuses the key, the model or the address.
        """
        settings = {"temperature": 0, "max_tokens": self._max_tokens}
        bodies = [{"messages": [{"role": "user", "content": question}], **settings} for question in questions]
        with closing(self._client.ask(bodies)) as replies:
            for index, reply in replies:
                yield index, None if reply is None else reply.text
