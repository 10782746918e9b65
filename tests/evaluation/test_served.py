"""Texts that are written elsewhere: a real server on this machine that misbehaves, and files of completions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_http_judge import Endpoint, Handler, drops, says, server, sleeper, status  # noqa: F401  # a fixture
from test_select_command import COUNTS, QUIET, place, selected  # noqa: F401  # a fixture

from fairpo_trl.commands import evaluate
from fairpo_trl.commands.evaluate_inputs import EvaluateArguments
from fairpo_trl.commands.evaluate_judges import JudgeArguments
from fairpo_trl.evaluation.served import ServedModel, WrittenModel, parse_source
from fairpo_trl.evaluation.writing import Sampling


SAMPLING = Sampling(samples_per_prompt=2, max_new_tokens=9, temperature=0.5, top_k=0, top_p=0.9)
PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "two", "three")]


def model(server: Endpoint, **options: Any) -> ServedModel:  # noqa: F811
    return ServedModel(server.address, "lora-a", {"sleep": sleeper([]), "attempts": 3, **options})


def writes(handler: Handler) -> None:
    """A model that says its name, the prompt and the seed, and is cut at an odd seed."""
    body = handler.body
    text = f"{body['model']} {body['messages'][-1]['content']} {body['seed']}"
    reason = "length" if body["seed"] % 2 else "stop"
    reply = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
    handler.reply(200, json.dumps(reply).encode())


def script(server: Endpoint, *first: Any, count: int = 100) -> None:  # noqa: F811
    server.script = [*first, *[writes] * count]


def test_a_server_writes_each_sample_with_its_own_seed_and_is_not_asked_twice(server, tmp_path):  # noqa: F811
    script(server)
    found = model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=3)
    assert [len(row) for row in found] == [2, 2, 2]
    assert all(prompt[0]["content"] in c.text for prompt, row in zip(PROMPTS, found, strict=True) for c in row)
    bodies = [request["body"] for request in server.requests]
    assert len({body["seed"] for body in bodies}) == 6
    settings = {"model": "lora-a", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9}
    assert all(body.items() >= settings.items() and "top_k" not in body for body in bodies)
    assert [c.ended for row in found for c in row] == [int(c.text.split()[-1]) % 2 == 0 for row in found for c in row]
    assert model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=3) == found
    assert len(server.requests) == 6
    other = model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=4)  # the reference's second writing
    assert {c.text for row in other for c in row}.isdisjoint({c.text for row in found for c in row})


def test_a_server_that_stumbles_is_asked_again(server, tmp_path):  # noqa: F811
    script(server, status(500), status(429, Retry_After="0"), says(None), drops, status(200, b"{]"))
    found = model(server, attempts=6).write(tmp_path, "a", PROMPTS, SAMPLING, seed=0)
    assert all(c.text for row in found for c in row)


def test_chats_without_a_reply_end_with_what_to_do_and_nothing_half_is_kept(server, tmp_path):  # noqa: F811
    server.script = [status(400)] * 6
    with pytest.raises(OSError, match=r"no reply to 6 of 6 chats, as on prompt 0, 'one'\.(?! It may)"):
        model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=0)
    assert not list(tmp_path.glob("*/*.json"))
    server.script = [status(400)] * 6
    with pytest.raises(OSError, match="It may not know `top_k`: set it to 0"):
        model(server).write(tmp_path, "a", PROMPTS, Sampling(2, 9, top_k=50), seed=0)
    script(server)
    assert len(model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=0)) == 3


@pytest.mark.parametrize(("play", "words"), [(status(401), "does not accept the key"), (status(404), "no such model")])
def test_a_server_that_refuses_ends_it(play, words, server, tmp_path):  # noqa: F811
    server.script = [play] * 20
    with pytest.raises(OSError, match=words):
        model(server).write(tmp_path, "a", PROMPTS, SAMPLING, seed=0)


def test_plain_prompts_are_no_conversations(server, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="Prompt 1 is plain text.*`as_messages`"):
        model(server).write(tmp_path, "a", [PROMPTS[0], "text"], SAMPLING, seed=0)
    assert not server.requests


def test_a_path_of_models_on_a_server_is_tested(server, place, tmp_path):  # noqa: F811
    def answers(handler: Handler) -> None:
        words = {"base": 2, "lora-a": 3, "lora-b": 4}[handler.body["model"]] + handler.body["seed"] % 2
        reply = {"choices": [{"message": {"content": "word " * words}, "finish_reason": "stop"}]}
        handler.reply(200, json.dumps(reply).encode())

    server.script = [answers] * 5000
    results = selected(
        place, tmp_path / "out", path="models", margin=0.5, as_messages=True, top_k=0, judges=COUNTS,
        models=[f"served:{server.address}#{name}" for name in ("lora-a", "lora-b")],
        reference=f"served:{server.address}#base",
    )  # fmt: skip
    assert [(test.name, test.status) for test in results.selection.candidates] == [
        ("lora-a", "passed"),
        ("lora-b", "passed"),
    ]
    assert results.selection.chosen == "lora-b"
    assert not (tmp_path / "out" / "chosen").exists()
    assert "draws that models do not share" in results.statement
    assert server.address not in json.dumps(results.to_dict())


# ---- files ----


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_file_gives_its_texts_by_prompt(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        [
            {"prompt": "q", "completions": ["1", "2"]},
            {"prompt": PROMPTS[0], "completion": "x"},
            "",
            {"prompt": PROMPTS[0], "completion": "y"},
        ],
    )
    found = WrittenModel(path).write([PROMPTS[0], "q"], samples=2)
    assert [[c.text for c in row] for row in found] == [["x", "y"], ["1", "2"]]
    assert [[c.text for c in row] for row in WrittenModel(path).write(["q"], 1, skip=1)] == [["2"]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["{"], "a.jsonl, line 1 is not JSON"),
        ([{"prompt": "q"}], "it lacks 'completion'"),
        ([{"completion": "q"}], "it lacks 'prompt'"),
        ([{"prompt": "q", "completions": "text"}], "completions must be texts"),
        ([{"prompt": "q", "completion": 3}], "completions must be texts"),
        ([[1]], "a.jsonl: row 0 is no JSON object"),
        ([{"prompt": "p", "completion": "x"}], "fewer than 1 completions of 1 of 1 prompts, as 'q'"),
    ],
)
def test_a_file_that_lacks_something_is_named(rows, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        WrittenModel(write_lines(tmp_path / "a.jsonl", rows)).write(["q"], 1)


def test_files_of_completions_are_tested(place, tmp_path):  # noqa: F811
    prompts = {json.loads(line)["prompt"] for line in (place / "pairs.jsonl").read_text().splitlines()}
    write_lines(tmp_path / "bold.jsonl", [{"prompt": p, "completion": "word word word"} for p in prompts])
    write_lines(tmp_path / "base.jsonl", [{"prompt": p, "completions": ["word word", "word word"]} for p in prompts])
    results = selected(
        place, tmp_path / "out", path="models", margin=0.5,
        models=[f"completions:{tmp_path / 'bold.jsonl'}"], reference=f"completions:{tmp_path / 'base.jsonl'}",
    )  # fmt: skip
    assert results.selection.chosen == "bold"
    assert results.selection.candidates[0].gain == 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("served:http://127.0.0.1:1/v1", "names no model"),
        ("served:ftp://127.0.0.1/v1#m", "begins with http"),
        ("served:http://user:key@127.0.0.1/v1#m", "no password"),  # pragma: allowlist secret
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_asked(name, words):
    with pytest.raises(ValueError, match=words):
        parse_source(name)


def test_what_is_written_elsewhere_has_no_scale_and_needs_a_reference(place, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="Name the `reference`"):
        selected(place, tmp_path, path="models", models=["completions:a.jsonl"])


# ---- fairpo evaluate ----


def test_a_server_and_a_file_are_evaluated_beside_each_other_and_the_intervals_say_so(server, place, tmp_path):  # noqa: F811
    def answers(handler: Handler) -> None:
        words = 2 if handler.body["model"] == "base" else 3 + handler.body["seed"] % 2
        reply = {"choices": [{"message": {"content": "word " * words}, "finish_reason": "stop"}]}
        handler.reply(200, json.dumps(reply).encode())

    server.script = [status(500), *[answers] * 5000]
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    path = write_lines(tmp_path / "mine.jsonl", [{"prompt": p, "completion": "word word"} for p in asked])
    arguments = EvaluateArguments(
        models=[f"served:{server.address}#lora/a", f"completions:{path}"], reference=f"served:{server.address}#base",
        dataset_name=str(place / "pairs.jsonl"), test_share=0.6, max_prompts=30, as_messages=True, top_k=0,
        privileged_attributes=["concise"], output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    found = evaluate.run(arguments, JudgeArguments(judges=COUNTS), QUIET)
    assert [document.name for document in found] == ["lora-a", "mine"]
    for document, won in zip(found, (1.0, 0.5), strict=True):
        assert document.attributes[0].win_rate["first_judge"].trained.mean == won
        assert document.shared_draws is False
        assert "mean_token_log_prob" not in document.guards.trained
        report = (tmp_path / "out" / document.name / "report.md").read_text(encoding="utf-8")
        assert "intervals hold the noise of two draws" in report
    count = len(server.requests)
    evaluate.run(arguments, JudgeArguments(judges=COUNTS), QUIET)
    assert len(server.requests) == count
    with pytest.raises(ValueError, match="Name the `reference` of models that are written elsewhere"):
        evaluate.run(replace(arguments, reference=None), JudgeArguments(judges=COUNTS), QUIET)
