"""Chat completions of an OpenAI-compatible endpoint: patient, within bounds, and with a key for one host only."""

import email.utils
import ipaddress
import itertools
import json
import os
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

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
        sleep (`Callable[[float], object]`, *optional*):
            Waits between attempts, for tests; by default until the time is over or everything given up.
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
        sleep: Callable[[float], object] | None = None,
        what: str = "judge",
    ) -> None:
        self.url = f"{check_address(address, with_key=api_key_env is not None)}/chat/completions"
        if min(attempts, concurrency) < 1 or timeout <= 0 or backoff < 0:
            raise ValueError("Attempts, concurrency and timeout of an endpoint must be positive.")
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise ValueError(f"`judge_requests_per_minute` must be positive, got {requests_per_minute}.")
        # Asked for without packing; what comes packed all the same is unpacked within bounds.
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if api_key_env is not None:
            self._headers["Authorization"] = f"Bearer {read_key(api_key_env)}"
        self.description = f"{model} at {httpx2.URL(address).host}"
        self.model, self._what, self._timeout = model, what, timeout
        self._attempts, self._concurrency, self._backoff = attempts, concurrency, backoff
        self._pause = 0.0 if requests_per_minute is None else 60 / requests_per_minute
        self._next_start, self._lock, self._given_up = 0.0, threading.Lock(), threading.Event()
        self._sleep = sleep or self._given_up.wait

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
        self._given_up.clear()
        limits = httpx2.Limits(max_connections=self._concurrency)
        with (
            httpx2.Client(headers=self._headers, timeout=self._timeout, limits=limits) as client,
            ThreadPoolExecutor(self._concurrency) as pool,
        ):
            deadlines = _bound_in_time(client)
            waiting = enumerate(bodies)
            # A few ahead, not all: what is given up then leaves no queue behind.
            running = {
                pool.submit(self._try, client, deadlines, body): i
                for i, body in itertools.islice(waiting, 2 * self._concurrency)
            }
            try:
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    # What was answered is handed over, and so kept, before an error ends everything.
                    for done in sorted(finished, key=lambda future: future.exception() is not None):
                        index, reply = running.pop(done), done.result()
                        for i, body in itertools.islice(waiting, 1):
                            running[pool.submit(self._try, client, deadlines, body)] = i
                        yield index, reply
            finally:
                self._given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, client: httpx2.Client, deadlines: "_Deadlines", body: Mapping[str, Any]) -> Reply | None:
        """One chat until it is answered or its attempts are used up."""
        unreachable = False
        for attempt in range(self._attempts):
            if self._given_up.is_set():
                return None
            self._wait_for_turn()
            asked_to_wait = None
            deadlines.end = time.monotonic() + self._timeout
            try:
                with client.stream("POST", self.url, json={"model": self.model, **body}) as response:
                    unreachable = False
                    if response.status_code in _REFUSALS:
                        raise OSError(f"The {self._what} {self.description} {_REFUSALS[response.status_code]}.")
                    if response.is_redirect:
                        raise OSError(
                            f"The {self._what} {self.description} redirects: name the address it redirects to."
                        )
                    if response.is_success and (reply := _read_reply(response)) is not None:
                        return reply
                    if not response.is_success and response.status_code not in RETRIED:
                        return None  # this chat is refused, perhaps as too long; the next may not be
                    asked_to_wait = _retry_after(response.headers)
            except httpx2.ConnectError:
                unreachable = True
            except httpx2.TransportError:  # timeouts, broken connections
                unreachable = False
            if attempt + 1 < self._attempts:
                own = self._backoff * 2**attempt * (1 + random.random() / 4)
                self._sleep(min(LONGEST_WAIT, max(own, asked_to_wait or 0.0)))
        if unreachable:
            raise OSError(
                f"The {self._what} {self.description} cannot be reached. What it said until now is kept: start the "
                "server, and give the same command again."
            )
        return None

    def _wait_for_turn(self) -> None:
        if not self._pause:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._pause
        if start > now:
            self._sleep(start - now)


def check_address(address: str, with_key: bool = False) -> str:
    """
    The base address without a slash at its end.

    Args:
        address (`str`):
            As the user named it.
        with_key (`bool`, *optional*, defaults to `False`):
            Whether a key is sent there.

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
    Which variable holds the key of which endpoint, so that no key goes to another host.

    Args:
        entries (`Sequence[str]`):
            `NAME` for the only host, or `HOST=NAME` (with the port, as in the address) for each.
        addresses (`Sequence[str]`):
            The endpoints' base addresses.

    Returns:
        `dict[str, str]`: Host, with its port if the address has one -> name of the variable.

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


def _read_reply(response: httpx2.Response) -> Reply | None:
    """The text of a chat completion; `None` if the body is something else, or too much."""
    packed = bytearray()
    for chunk in response.iter_raw():
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


# ---- one deadline for a whole request ----


class _Deadlines(threading.local):
    """When the request of this thread has to be over; httpx's own timeouts begin anew with every byte."""

    end: float = float("inf")

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise error("the request took too long")
        return min(left, timeout or left)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, deadlines: _Deadlines) -> None:
        self._stream, self._deadlines = stream, deadlines

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadlines.left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadlines.left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(*args, **options), self._deadlines)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend, deadlines: _Deadlines) -> None:
        self._backend, self._deadlines = backend, deadlines

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(self._backend.connect_tcp(*args, **options), self._deadlines)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def _bound_in_time(client: httpx2.Client) -> _Deadlines:
    """Lets every connection of a client, over a proxy too, look at the deadline of the thread that uses it."""
    deadlines = _Deadlines()
    transports: Iterable[Any] = [client._transport, *filter(None, client._mounts.values())]
    for transport in transports:
        transport._pool._network_backend = _Backend(transport._pool._network_backend, deadlines)
    return deadlines
