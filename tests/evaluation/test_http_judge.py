"""An endpoint as judge, against a real server on this machine that misbehaves."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import json
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairpo_trl.commands.evaluate_judges import JudgeArguments, check_judges, load_judges
from fairpo_trl.evaluation import http
from fairpo_trl.evaluation.http import ChatClient, Reply, check_address, keys_by_host, read_key
from fairpo_trl.evaluation.judges import parse_judge
from fairpo_trl.evaluation.llm_judge import HttpAnswerer, LlmJudge


KEY = "sk-very-secret-0123456789"


class Endpoint(ThreadingHTTPServer):
    """Plays a script, one entry per request; afterwards it answers, preferring the text with more letters a."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Callable[[Handler], None]] = []
        self.requests: list[dict[str, Any]] = []
        self.closing, self.lock = threading.Event(), threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": self.body})
            play = self.server.script.pop(0) if self.server.script else prefer_a
        play(self)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def says(text: Any) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(200, json.dumps({"choices": [{"message": {"content": text}}]}).encode())


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(code, body, **headers)


def hangs(handler: Handler) -> None:
    handler.server.closing.wait(30)


def drops(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def prefer_a(handler: Handler) -> None:
    question = handler.body["messages"][0]["content"]
    first, second = (question.split(f"<response-{n}-")[1].split(">\n", 1)[1].split("\n</")[0] for n in (1, 2))
    difference = first.count("a") - second.count("a")
    says("1" if difference > 0 else "2" if difference < 0 else "=")(handler)


@pytest.fixture
def server() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield endpoint
    endpoint.closing.set()
    endpoint.shutdown()
    endpoint.server_close()


@pytest.fixture
def slept() -> list[float]:
    return []


def sleeper(slept: list[float]) -> Callable[[float], Any]:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return sleep


def answerer(server: Endpoint, slept: list[float], **options: Any) -> HttpAnswerer:
    options = {"concurrency": 1, "sleep": sleeper(slept), "attempts": 3, **options}
    return HttpAnswerer(server.address, "judge-1", **options)


def ask(judge: HttpAnswerer, *questions: str) -> list[str | None]:
    found = dict(judge.answer(questions or ("?",)))
    return [found[i] for i in range(len(found))]


def test_the_request_is_a_chat_completion_at_temperature_zero(server: Endpoint, slept: list[float]) -> None:
    server.script = [says("2")]
    assert ask(answerer(server, slept, max_tokens=7), "Which?") == ["2"] and slept == []
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions" and "Authorization" not in request["headers"]
    assert request["body"] == {
        "model": "judge-1",
        "messages": [{"role": "user", "content": "Which?"}],
        "temperature": 0,
        "max_tokens": 7,
    }


def test_a_busy_server_is_given_the_time_it_asks_for(
    server: Endpoint, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.time, "time", lambda: 1_000_000_000.0)
    later = email.utils.formatdate(1_000_000_050, usegmt=True)
    server.script = [status(429, Retry_After="7"), status(503, Retry_After=later), says("1")]
    assert ask(answerer(server, slept)) == ["1"]
    assert slept == [7, 50]


def test_no_wait_is_longer_than_two_minutes(server: Endpoint, slept: list[float]) -> None:
    server.script = [status(429, Retry_After="86400"), status(429, Retry_After="soon"), says("1")]
    assert ask(answerer(server, slept)) == ["1"]
    assert slept[0] == http.LONGEST_WAIT and 2 <= slept[1] <= 2.5


def test_errors_of_the_server_are_tried_again_with_growing_pauses(server: Endpoint, slept: list[float]) -> None:
    server.script = [status(500), status(502), drops, says("1")]
    assert ask(answerer(server, slept, attempts=4, backoff=3.0)) == ["1"]
    assert len(slept) == 3 and all(3 * 2**i <= s <= 3.75 * 2**i for i, s in enumerate(slept))


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(server: Endpoint, slept: list[float], code: int) -> None:
    server.script = [status(code), says("1")]
    assert ask(answerer(server, slept)) == ["1"] and len(server.requests) == 2


def drips_a_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    drip(handler, b" ")


def drips_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler, b"x")


def drip(handler: Handler, byte: bytes) -> None:
    """A byte now and then, for as long as the client listens: no single wait is longer than a timeout."""
    with contextlib.suppress(OSError):
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(byte)
            handler.wfile.flush()


def packed(content: bytes, encoding: str = "gzip") -> Callable[[Handler], None]:
    return status(200, content, Content_Encoding=encoding)


ANSWER = json.dumps({"choices": [{"message": {"content": "1"}, "finish_reason": "stop"}]}).encode()


def test_a_packed_answer_is_unpacked(server: Endpoint, slept: list[float]) -> None:
    server.script = [packed(gzip.compress(ANSWER)), packed(zlib.compress(ANSWER), "deflate")]
    assert ask(answerer(server, slept), "a", "b") == ["1", "1"] and slept == []
    assert server.requests[0]["headers"]["Accept-Encoding"] == "identity"


def test_the_memory_that_a_body_can_take_is_bounded(server: Endpoint, slept: list[float]) -> None:
    bomb = gzip.compress(b" " * 200_000_000, 1)
    plain = b" " * (http.LARGEST_BODY + 1) + ANSWER
    server.script = [packed(bomb), status(200, plain)]
    tracemalloc.start()
    try:
        assert ask(answerer(server, slept, attempts=1), "a", "b") == [None, None]
        assert tracemalloc.get_traced_memory()[1] < 6 * http.LARGEST_BODY
    finally:
        tracemalloc.stop()


def test_a_client_gives_replies_with_their_end(server: Endpoint, slept: list[float]) -> None:
    server.script = [status(200, ANSWER), status(400)]
    client = ChatClient(server.address, "writer", concurrency=1, sleep=sleeper(slept))
    bodies = [{"messages": [{"role": "user", "content": text}], "seed": 3} for text in "ab"]
    assert list(client.ask(bodies)) == [(0, Reply("1", "stop")), (1, None)]
    assert server.requests[0]["body"] == {"model": "writer", **bodies[0]}


@pytest.mark.parametrize(
    "play",
    [
        status(500),
        packed(b"not gzip"),
        packed(gzip.compress(ANSWER)[:-4]),
        packed(ANSWER, "br"),
        status(200, b"[" * 200_000),
        status(200, b'{"choices": [[]]}'),
        status(200, b'{"choices": [{"message": {"content": ' + b"1" * 10_000 + b"}}]}"),
        drops,
        status(200, b"<html>busy</html>"),
        status(200, b'{"choices": []}'),
        status(200, b'{"error": "overloaded"}'),
        status(200, b"[1]"),
        status(200, b"\xff\xfe"),
        says(None),
    ],
    ids="500 gzip cut br nested list number drops html none error array utf8 content".split(),
)
def test_what_never_gives_an_answer_fails_after_its_attempts(
    server: Endpoint, slept: list[float], play: Callable[[Handler], None]
) -> None:
    server.script = [play] * 3 + [says("2")]
    assert ask(answerer(server, slept), "a", "b") == [None, "2"]
    assert len(server.requests) == 4 and len(slept) == 2


@pytest.mark.parametrize("play", [hangs, drips_a_body, drips_headers])
def test_what_never_ends_fails_after_its_attempts_too(
    server: Endpoint, slept: list[float], play: Callable[[Handler], None]
) -> None:
    server.script = [play] * 3
    assert ask(answerer(server, slept, timeout=0.2), "a") == [None]  # an answer in this time is asked of no test
    assert len(slept) == 2


def test_a_question_that_is_refused_fails_at_once(server: Endpoint, slept: list[float]) -> None:
    server.script = [status(400, b'{"error": "too long"}'), says("2")]
    assert ask(answerer(server, slept), "a", "b") == [None, "2"] and slept == []


@pytest.mark.parametrize(
    ("play", "message"),
    [
        (status(401, f"Incorrect API key provided: {KEY}".encode()), "does not accept the key (401)"),
        (status(403), "does not allow this (403)"),
        (status(404), "no such model or address (404)"),
        (status(307, Location="http://127.0.0.1:9/elsewhere"), "redirects"),
    ],
    ids=["401", "403", "404", "307"],
)
def test_a_server_that_refuses_everything_ends_the_evaluation_at_once(
    server: Endpoint,
    slept: list[float],
    play: Callable[[Handler], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.script = [play]
    with pytest.raises(OSError) as raised:
        ask(answerer(server, slept, api_key_env="JUDGE_KEY"))
    assert message in str(raised.value) and KEY not in str(raised.value)
    assert len(server.requests) == 1 and slept == []


def test_a_server_that_is_not_there_ends_the_evaluation_after_its_attempts(slept: list[float]) -> None:
    with socket.socket() as silent:  # it has a port, so that nobody else has it, and does not listen
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        judge = HttpAnswerer(address, "m", attempts=3, concurrency=1, sleep=sleeper(slept))
        with pytest.raises(OSError, match=r"m at 127\.0\.0\.1 cannot be reached.*same command again"):
            ask(judge)
    assert len(slept) == 2


def test_what_was_judged_before_the_server_went_away_is_not_asked_again(
    server: Endpoint, slept: list[float], tmp_path: Path
) -> None:
    server.script = [prefer_a, prefer_a, *[status(401)] * 9]
    texts = ["aa", "aaa", "aaaa"]
    with pytest.raises(OSError, match="401"):
        LlmJudge(answerer(server, slept), tmp_path).compare("kind", ["p"] * 3, texts, ["b"] * 3)
    assert len(list(tmp_path.rglob("*.json"))) == 2
    before, server.script = len(server.requests), []
    found = LlmJudge(answerer(server, slept), tmp_path).compare("kind", ["p"] * 3, texts, ["b"] * 3)
    assert found.outcomes.tolist() == [1, 1, 1] and (found.calls, found.cached) == (4, 2)
    assert len(server.requests) - before == 4


def test_many_at_once_come_back_to_their_own_questions(server: Endpoint, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = ([f"{'a' * rng.integers(1, 9)} {side}{i}" for i in range(60)] for side in "xy")
    judge = LlmJudge(HttpAnswerer(server.address, "m", concurrency=8), tmp_path)
    found = judge.compare("kind", ["p"] * 60, first, second)
    expected = [0.5 + 0.5 * np.sign(a.count("a") - b.count("a")) for a, b in zip(first, second, strict=True)]
    assert found.outcomes.tolist() == expected and found.calls == len(server.requests) == 120
    again = judge.compare("kind", ["p"] * 60, first, second)
    assert again.outcomes.tolist() == expected and (again.calls, again.cached) == (0, 120)
    assert len(server.requests) == 120


def test_answers_that_are_no_verdict_are_counted_and_left_out(
    server: Endpoint, slept: list[float], tmp_path: Path
) -> None:
    server.script = [says("Both responses are lovely."), prefer_a, prefer_a, prefer_a]
    found = LlmJudge(answerer(server, slept), tmp_path).compare("kind", ["p"] * 2, ["aa", "aaa"], ["b", "b"])
    assert np.isnan(found.outcomes).tolist() == [True, False] and found.outcomes[1] == 1
    assert (found.calls, found.cached, found.failures) == (4, 0, 1) and slept == []


def test_an_endpoint_that_only_fails_is_given_up(server: Endpoint, slept: list[float], tmp_path: Path) -> None:
    server.script = [status(422)] * 500
    texts = [f"a{i}" for i in range(100)]
    with pytest.raises(OSError, match="failed 20 times in a row; the last time it gave no answer"):
        LlmJudge(answerer(server, slept), tmp_path).compare("kind", ["p"] * 100, texts, ["b"] * 100)
    assert len(server.requests) <= 23


def test_requests_are_begun_no_faster_than_the_limit(
    server: Endpoint, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.time, "monotonic", lambda: 100.0)  # time stands still, so the waits add up
    server.script = [says("1")] * 4
    ask(answerer(server, slept, requests_per_minute=30), *"abcd")
    assert slept == [2, 4, 6]


# ---- the key ----


def test_the_key_goes_into_one_header_and_nowhere_else(
    server: Endpoint, slept: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    judge = answerer(server, slept, api_key_env="JUDGE_KEY")
    LlmJudge(judge, tmp_path).compare("kind", ["p"], ["aa"], ["b"])
    for request in server.requests:
        assert request["headers"]["Authorization"] == f"Bearer {KEY}" and KEY not in json.dumps(request["body"])
    shown = capfd.readouterr()
    written = "".join(path.read_text() + str(path) for path in tmp_path.rglob("*.json"))
    assert KEY not in judge.description + json.dumps(judge.identity) + shown.out + shown.err + written
    # An answer belongs to the model, not to whose key paid for it.
    monkeypatch.setenv("JUDGE_KEY", "another")
    assert LlmJudge(answerer(server, slept, api_key_env="JUDGE_KEY"), tmp_path).compare(
        "kind", ["p"], ["aa"], ["b"]
    ).cached == 2  # fmt: skip


def test_other_models_addresses_and_lengths_are_other_judges(
    server: Endpoint, slept: list[float], tmp_path: Path
) -> None:
    def calls(model: str = "m", **options: Any) -> int:
        judge = HttpAnswerer(server.address, model, concurrency=1, **options)
        return LlmJudge(judge, tmp_path).compare("kind", ["p"], ["aa"], ["b"]).calls

    assert [calls(), calls(), calls("n"), calls(max_tokens=9), calls(attempts=2, timeout=3.0)] == [2, 0, 2, 2, 0]


@pytest.mark.parametrize("name", [KEY, "hf_looksLikeAVariable", "", "MY KEY"])
def test_a_key_in_place_of_its_variable_is_refused_without_being_shown(name: str) -> None:
    with pytest.raises(ValueError, match="must be the NAME of an environment variable") as raised:
        read_key(name)
    assert not name or name not in str(raised.value)


def test_a_key_that_no_header_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "schlüssel")
    with pytest.raises(ValueError, match="characters that no key has"):
        read_key("JUDGE_KEY")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/v1", "begins with http"),
        ("localhost:8000/v1", "begins with http"),
        ("http:///v1", "names a host"),
        (f"https://user:{KEY}@host/v1", "no password and no query"),
        (f"https://host/v1?key={KEY}", "no password and no query"),
        ("http://ho st:x/v1", "cannot be read"),
        ("http://api.example.org/v1", "would get every text in the clear: write https://"),
        ("http://8.8.8.8/v1", "would get every text in the clear"),
    ],
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused(address: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_address(address)
    assert message in str(raised.value) and KEY not in str(raised.value)


@pytest.mark.parametrize("host", ["gpu7:8000", "10.0.0.4:8000", "api.example.org", "[fd00::1]:80"])
def test_a_key_never_goes_in_the_clear_over_a_network(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with pytest.raises(ValueError, match="would get the key in the clear: write https://, or forward a port"):
        HttpAnswerer(f"http://{host}/v1", "m", api_key_env="JUDGE_KEY")
    HttpAnswerer(f"https://{host}/v1", "m", api_key_env="JUDGE_KEY")
    for loopback in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        HttpAnswerer(f"http://{loopback}/v1", "m", api_key_env="JUDGE_KEY")


def test_a_key_goes_to_its_own_host_and_to_no_other(
    server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    hosts = [f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}"]
    entries = [f"x=llm:http://{host}/v1#m{i}" for i, host in enumerate(hosts)]
    specs = [parse_judge(entry) for entry in entries]
    args = JudgeArguments(judges=entries, judge_api_key_env=["JUDGE_KEY"])
    for check in (check_judges, lambda *given: load_judges(*given, ["x"], tmp_path, 4)):
        with pytest.raises(ValueError, match=rf"does not say whose key it is.*`--judge_api_key_env {hosts[0]}="):
            check(specs, args)
    args = JudgeArguments(judges=entries, judge_api_key_env=[f"{hosts[1]}=JUDGE_KEY"])
    check_judges(specs, args)
    for judge in load_judges(specs, args, ["x"], tmp_path, 4).values():
        assert isinstance(judge, LlmJudge)
        judge.compare("x", ["p"], ["aa"], ["b"])
    sent = {(request["body"]["model"], request["headers"].get("Authorization")) for request in server.requests}
    assert sent == {("m0", None), ("m1", f"Bearer {KEY}")}


@pytest.mark.parametrize("entry", ["localhost=JUDGE_KEY", f"elsewhere={KEY}", f"{KEY}={KEY} =x"])
def test_a_key_for_no_endpoint_is_refused(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with pytest.raises(ValueError, match=r"`judge_api_key_env`.* host.*localhost:1"):
        keys_by_host([entry], ["http://localhost:1/v1"])


def test_a_slash_at_the_end_of_an_address_does_not_matter() -> None:
    assert check_address("http://host:8000/v1/") == "http://host:8000/v1"


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"concurrency": 0}, {"timeout": 0}, {"requests_per_minute": 0}, {"max_tokens": 0}]
)
def test_numbers_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        HttpAnswerer("http://host/v1", "m", **options)
