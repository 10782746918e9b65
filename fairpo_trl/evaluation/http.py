"""Chat completions of an OpenAI-compatible endpoint: patient, within bounds, and with a key for one host only."""

import email.utils
import ipaddress
import itertools
import json
import os
import random
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

from fairpo_trl.core.options import check_number
from fairpo_trl.hub.privacy import is_private_host


RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 120.0
"""Seconds waited between two attempts at most, also if the server asks for more."""

LARGEST_BODY = 8_000_000
"""Bytes of a body that are read at most, also after it is unpacked."""

_REFUSALS = {
    401: "does not accept the key (401): check the variable that `judge_api_key_env` names",
    403: "does not allow this (403): check the key's rights",
    404: "has no such model or address (404): the address ends before /chat/completions, and the model follows #",
}


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and why it ended: `"stop"`, `"length"`, ... as the server says, or `None`."""

    text: str
    finish_reason: str | None


class ChatClient:
    """
    Sends chats to one endpoint, many at once, and gives their replies as they come.

    Timeouts, refused connections, busy and broken servers, and bodies that cannot be read (no JSON, a broken or an
    unknown packing, too large) are tried again with exponential backoff; `Retry-After` is honoured. A chat that still
    has no reply has failed. A key that is not accepted, an unknown model, a redirect, or a server that cannot be
    reached ends everything. The key goes to the host of `address` and to no other, over https or within this machine.

    Args:
        address (`str`):
            Base address, as `http://localhost:8000/v1`.
        model (`str`):
            Name of the model there.
        api_key_env (`str`, *optional*):
            Name of the environment variable that holds the key; the key itself is never stored or shown.
        timeout (`float`, *optional*, defaults to `60.0`):
            Seconds for a whole request, from the connection to the last byte.
        attempts (`int`, *optional*, defaults to `5`):
            Attempts per chat.
        requests_per_minute (`float`, *optional*):
            Most requests that are begun in a minute; `None` for no limit.
        concurrency (`int`, *optional*, defaults to `4`):
            Requests under way at once.
        backoff (`float`, *optional*, defaults to `1.0`):
            Seconds before the second attempt; doubled each time, with up to a quarter added at random.
        sleep (`Callable`, *optional*, defaults to `anyio.sleep`):
            Waits between attempts.
        what (`str`, *optional*, defaults to `"judge"`):
            What errors call the model.

    Raises:
        ValueError: If the address, the name of the variable or a number is wrong, or the key would go in the clear.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        api_key_env: str | None = None,
        timeout: float = 60.0,
        attempts: int = 5,
        requests_per_minute: float | None = None,
        concurrency: int = 4,
        backoff: float = 1.0,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        what: str = "judge",
    ) -> None:
        self.url = f"{check_address(address, with_key=api_key_env is not None)}/chat/completions"
        numbers = {"timeout": timeout, "attempts": attempts, "concurrency": concurrency}
        for name, value in (numbers | {"requests_per_minute": requests_per_minute}).items():
            if value is not None:
                check_number(name, value, positive=True)
        check_number("backoff", backoff)
        # Asked for without packing; what comes packed all the same is unpacked within bounds.
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if api_key_env is not None:
            self._headers["Authorization"] = f"Bearer {read_key(api_key_env)}"
        self.description = f"{model} at {httpx2.URL(address).host}"
        self.model, self._what, self._timeout, self._sleep = model, what, timeout, sleep
        self._attempts, self._concurrency, self._backoff = attempts, concurrency, backoff
        self._pause = 0.0 if requests_per_minute is None else 60 / requests_per_minute
        self._next_start = 0.0

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> Generator[tuple[int, Reply | None], None, None]:
        """
        Yields (index, reply) as they come; `None` for a chat that failed.

        Args:
            bodies (`Sequence[Mapping[str, Any]]`):
                What to send, as `{"messages": [...], "temperature": 0}`; the model is added.

        Raises:
            OSError: If the server cannot be reached, or refuses the key, the model or the address.
        """
        if not bodies:
            return
        turns = anyio.Semaphore(self._concurrency)
        limits = httpx2.Limits(max_connections=self._concurrency)
        client = httpx2.AsyncClient(headers=self._headers, timeout=None, limits=limits)  # `_try` has the deadline
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
            waiting = enumerate(bodies)

            def begin(count: int) -> dict[Future[Reply | None], int]:
                some = itertools.islice(waiting, count)
                return {portal.start_task_soon(self._try, client, turns, body): i for i, body in some}

            running = begin(2 * self._concurrency)  # a few ahead: the server does not wait for the reader
            try:
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    # What was answered is handed over, and so kept, before an error ends everything.
                    for done in sorted(finished, key=lambda future: future.exception() is not None):
                        index, reply = running.pop(done), done.result()
                        running |= begin(1)
                        yield index, reply
            finally:
                for future in running:
                    future.cancel()

    async def _try(self, client: httpx2.AsyncClient, turns: anyio.Semaphore, body: Mapping[str, Any]) -> Reply | None:
        """One chat until it is answered or its attempts are used up."""
        async with turns:
            unreachable = False
            for attempt in range(self._attempts):
                await self._wait_for_turn()
                asked_to_wait = None
                try:
                    with anyio.fail_after(self._timeout):
                        async with client.stream("POST", self.url, json={"model": self.model, **body}) as response:
                            unreachable = False
                            if response.status_code in _REFUSALS:
                                raise OSError(self._refused(_REFUSALS[response.status_code]))
                            if response.is_redirect:
                                raise OSError(self._refused("redirects: name the address it redirects to"))
                            if response.is_success and (reply := await _read_reply(response)) is not None:
                                return reply
                            if not response.is_success and response.status_code not in RETRIED:
                                return None  # this chat is refused, perhaps as too long; the next may not be
                            asked_to_wait = _retry_after(response.headers)
                except httpx2.ConnectError:
                    unreachable = True
                except (httpx2.TransportError, TimeoutError):  # of the deadline, and broken connections
                    unreachable = False
                if attempt + 1 < self._attempts:
                    own = self._backoff * 2**attempt * (1 + random.random() / 4)
                    await self._sleep(min(LONGEST_WAIT, max(own, asked_to_wait or 0.0)))
        if unreachable:
            mend = "What it said until now is kept: start the server, and give the same command again"
            raise OSError(self._refused(f"cannot be reached. {mend}"))
        return None

    def _refused(self, why: str) -> str:
        return f"The {self._what} {self.description} {why}."

    async def _wait_for_turn(self) -> None:
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._pause
        if start > now:
            await self._sleep(start - now)


def check_address(address: str, with_key: bool = False) -> str:
    """
    The base address without a slash at its end; `with_key`: whether a key is sent there.

    Raises:
        ValueError: If it is no http(s) address, holds a password, a query or a fragment, or texts or a key would go
            over the internet in the clear. The message does not repeat what may be secret.
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
    if url.scheme == "http" and not is_loopback(url.host) and (with_key or not is_private_host(url.host)):
        sent = "the key" if with_key else "every text"
        raise ValueError(
            f"`judges`: {url.host} would get {sent} in the clear: write https://, or forward a port of this machine "
            "to it (`ssh -L 8000:HOST:PORT ...`) and name http://localhost:8000."
        )
    return address.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_key(name: str) -> str:
    """
    The key in an environment variable.

    Raises:
        ValueError: If there is no such variable. The message does not repeat the name, which may be the key by
            mistake.
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


def keys_by_host(entries: Sequence[str], addresses: Sequence[str]) -> dict[str, str]:
    """
    Host, with its port if the address has one -> name of the variable that holds its key, so that no key goes to
    another host.

    Args:
        entries (`Sequence[str]`):
            `NAME` for the only host, or `HOST=NAME` (with the port, as in the address) for each.
        addresses (`Sequence[str]`):
            The endpoints' base addresses.

    Raises:
        ValueError: If it is not clear whose key it is, no endpoint has such a host, or there is no such variable.
    """
    hosts = list(dict.fromkeys(host_of(address) for address in addresses))
    found: dict[str, str] = {}
    for entry in entries:
        host, named, variable = entry.rpartition("=")
        if not named and len(hosts) > 1:
            raise ValueError(
                f"`judge_api_key_env` does not say whose key it is: the endpoints have the hosts {', '.join(hosts)}. "
                f"Write HOST=NAME for each that needs a key, as `--judge_api_key_env {hosts[0]}=OPENAI_API_KEY`."
            )
        host = host if named else hosts[0]
        if host not in hosts:
            raise ValueError(
                f"`judge_api_key_env`: no endpoint has the host {host!r}; they have {', '.join(hosts)}."
                if re.fullmatch(r"[\w.:\[\]-]{1,60}", host)
                else f"`judge_api_key_env` must be HOST=NAME, with one of the hosts {', '.join(hosts)}."
            )
        read_key(variable)
        found[host] = variable
    return found


def host_of(address: str) -> str:
    """Host and port of an endpoint, as its address has them."""
    return httpx2.URL(address).netloc.decode()


async def _read_reply(response: httpx2.Response) -> Reply | None:
    """The text of a chat completion; `None` if the body is something else, or too much."""
    packed = bytearray()
    async for chunk in response.aiter_raw():
        packed += chunk
        if len(packed) > LARGEST_BODY:
            return None
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    try:
        body = bytes(packed) if packing in ("", "identity") else _unpacked(bytes(packed), packing)
        choice = json.loads(body)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, zlib.error):
        return None
    return Reply(text, reason if isinstance(reason, str) else None) if isinstance(text, str) else None


def _unpacked(body: bytes, packing: str) -> bytes:
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"unknown packing {packing}")
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib
    content = unpacker.decompress(body, LARGEST_BODY)
    if not unpacker.eof:
        raise ValueError("cut, or larger than LARGEST_BODY")
    return content


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for, given as a number or a date."""
    value = headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
