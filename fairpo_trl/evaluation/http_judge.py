"""An OpenAI-compatible endpoint as a judge: chat completions over HTTP, with patience and without leaking the key."""

import email.utils
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import httpx2

from fairpo_trl.evaluation.llm_judge import Answers


RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 120.0
"""Seconds waited between two attempts at most, also if the server asks for more."""

_REFUSALS = {
    401: "does not accept the key (401): check the variable that `judge_api_key_env` names",
    403: "does not allow this (403): check the key's rights",
    404: "has no such model or address (404): the address ends before /chat/completions, and the model follows #",
}


class HttpAnswerer:
    """Sends each question as a chat of one message, temperature 0.

    Timeouts, refused connections, busy and broken servers, and answers that cannot be read are tried again with
    exponential backoff; `Retry-After` is honoured. A question that still has no answer has failed. A key that is not
    accepted, an unknown model, or a server that cannot be reached ends the evaluation.

    Args:
        address: Base address, as `http://localhost:8000/v1`.
        model: Name of the model there.
        api_key_env: Name of the environment variable that holds the key; the key itself is never stored or shown.
        max_tokens: Length limit of an answer.
        timeout: Seconds without a byte after which a request is given up.
        attempts: Attempts per question.
        requests_per_minute: Most requests that are begun in a minute; `None` for no limit.
        concurrency: Requests under way at once.
        backoff: Seconds before the second attempt; doubled each time, with up to a quarter added at random.
        sleep: Waits between attempts, for tests; by default until the time is over or the evaluation given up.

    Raises:
        ValueError: The address, the name of the variable or a number is wrong.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        api_key_env: str | None = None,
        max_tokens: int = 256,
        timeout: float = 60.0,
        attempts: int = 5,
        requests_per_minute: float | None = None,
        concurrency: int = 4,
        backoff: float = 1.0,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._url = f"{check_address(address)}/chat/completions"
        if min(max_tokens, attempts, concurrency) < 1 or timeout <= 0 or backoff < 0:
            raise ValueError("Tokens, attempts, concurrency and timeout of an endpoint must be positive.")
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise ValueError(f"`judge_requests_per_minute` must be positive, got {requests_per_minute}.")
        self._headers = {} if api_key_env is None else {"Authorization": f"Bearer {read_key(api_key_env)}"}
        self.description = f"{model} at {httpx2.URL(address).host}"
        self.identity: Mapping[str, str | int | float] = {
            "address": self._url,
            "model": model,
            "max_tokens": max_tokens,
        }
        self._model, self._max_tokens, self._timeout = model, max_tokens, timeout
        self._attempts, self._concurrency, self._backoff = attempts, concurrency, backoff
        self._pause = 0.0 if requests_per_minute is None else 60 / requests_per_minute
        self._next_start, self._lock, self._given_up = 0.0, threading.Lock(), threading.Event()
        self._sleep = sleep or self._given_up.wait

    def answer(self, questions: Sequence[str]) -> Answers:
        """Yields answers as they come.

        Raises:
            OSError: The server cannot be reached, or refuses the key, the model or the address.
        """
        if not questions:
            return
        self._given_up.clear()
        limits = httpx2.Limits(max_connections=self._concurrency)
        with (
            httpx2.Client(headers=self._headers, timeout=self._timeout, limits=limits) as client,
            ThreadPoolExecutor(self._concurrency) as pool,
        ):
            waiting = enumerate(questions)
            # A few ahead, not all: what is given up then leaves no queue behind.
            running = {
                pool.submit(self._try, client, question): i
                for i, question in itertools.islice(waiting, 2 * self._concurrency)
            }
            try:
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    # What was answered is handed over, and so kept, before an error ends everything.
                    for done in sorted(finished, key=lambda future: future.exception() is not None):
                        index, answer = running.pop(done), done.result()
                        for i, question in itertools.islice(waiting, 1):
                            running[pool.submit(self._try, client, question)] = i
                        yield index, answer
            finally:
                self._given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, client: httpx2.Client, question: str) -> str | None:
        """One question until it is answered or its attempts are used up."""
        unreachable = False
        for attempt in range(self._attempts):
            if self._given_up.is_set():
                return None
            self._wait_for_turn()
            asked_to_wait = None
            try:
                response = client.post(self._url, json=self._body(question))
                unreachable = False
            except httpx2.ConnectError:
                unreachable = True
            except httpx2.TransportError:  # timeouts, broken connections
                unreachable = False
            else:
                if response.status_code in _REFUSALS:
                    raise OSError(f"The judge {self.description} {_REFUSALS[response.status_code]}.")
                if response.is_redirect:
                    raise OSError(f"The judge {self.description} redirects: name the address it redirects to.")
                if response.is_success and (answer := _content(response)) is not None:
                    return answer
                if not response.is_success and response.status_code not in RETRIED:
                    return None  # this question is refused, perhaps as too long; the next may not be
                asked_to_wait = _retry_after(response.headers)
            if attempt + 1 < self._attempts:
                own = self._backoff * 2**attempt * (1 + random.random() / 4)
                self._sleep(min(LONGEST_WAIT, max(own, asked_to_wait or 0.0)))
        if unreachable:
            raise OSError(
                f"The judge {self.description} cannot be reached. Its verdicts until now are kept: start the server, "
                "and give the same command again."
            )
        return None

    def _body(self, question: str) -> dict[str, object]:
        messages = [{"role": "user", "content": question}]
        return {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": self._max_tokens}

    def _wait_for_turn(self) -> None:
        if not self._pause:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._pause
        if start > now:
            self._sleep(start - now)


def check_address(address: str) -> str:
    """The base address without a slash at its end.

    Raises:
        ValueError: It is no http(s) address, or holds a password, a query or a fragment. The message does not repeat
            what may be secret.
    """
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise ValueError(f"`judges`: the address after llm: cannot be read ({error}).") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("`judges`: an endpoint's address begins with http:// or https:// and names a host.")
    if url.userinfo or url.query or url.fragment:
        raise ValueError(
            "`judges`: an endpoint's address must hold no password and no query: put the key into an environment "
            "variable, and name the variable with `judge_api_key_env`."
        )
    return address.rstrip("/")


def read_key(name: str) -> str:
    """The key in an environment variable.

    Raises:
        ValueError: There is no such variable. The message does not repeat the name, which may be the key by mistake.
    """
    key = os.environ.get(name, "") if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else ""
    if not key.strip():
        raise ValueError(
            "`judge_api_key_env` must be the NAME of an environment variable that holds the key (not the key "
            "itself), as OPENAI_API_KEY; no variable of the given name is set."
        )
    if not key.strip().isascii():
        raise ValueError("The key in the variable that `judge_api_key_env` names holds characters that no key has.")
    return key.strip()


def _content(response: httpx2.Response) -> str | None:
    """The text of a chat completion; `None` if the body is something else."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for, given as a number or a date."""
    value = headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
