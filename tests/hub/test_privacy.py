"""What may leave the machine: every spelling of a path, secrets, addresses; files of the folder and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairpo_trl.hub import privacy, secrets
from fairpo_trl.hub.privacy import (
    is_hub_id,
    last_part,
    plain_file,
    private_places,
    public,
    public_command,
    public_config,
    public_text,
    public_value,
)


TOKEN = "hf_" + "notARealToken" * 2
# Written in pieces, so that a search of the repository for keys finds none.
OPENAI, GITHUB, AWS = "sk-" + "proj-0123456789abcdef", "ghp_" + "0123456789abcdefghij", "AKIA" + "ABCDEFGHIJKLMNOP"

SPELLINGS = {  # how somebody's folder can be written -> what is left
    "/home/alice/x": "x",
    "//home/alice/x": "x",
    "/Users/alice/x/": "x",
    "/var/home/alice/x": "x",
    "/mnt/c/Users/alice/x": "x",
    "/srv/alice/x": "x",
    "~alice/x": "x",
    "$HOME/alice/x": "x",
    "../alice/x": "x",
    r"C:\Users\alice\x": "x",
    "C:/Users/alice/x": "x",
    r"C:\Users\alice smith\x": "x",
    r"\\server\alice\x": "x",
    "file:///home/alice/x": "x",
    "file:/home/alice/x": "x",
    "file://localhost/home/alice/x": "x",
    "file:///home/alice/a%20x": "a x",
    "%2Fhome%2Falice%2Fx": "x",
    "hf:/home/alice/x": "hf:x",
    "hf:///home/alice/x": "hf:x",
    "hf:%2Fhome%2Falice%2Fx": "hf:x",
    "reward:/home/alice/x": "reward:x",
    "python:/home/alice/j.py:score": "python:j.py:score",
    "llm:/srv/alice/judge": "llm:judge",
    "timm:local-dir:/home/alice/vit": "timm:local-dir:vit",
    "a=reward:/home/alice/rm#label": "a=reward:rm#label",
    "a=/home/alice/b,c=/home/alice/d": "a=b,c=d",
    "/home/alice/x:/home/alice/y": "x:y",
    "'/home/alice/My Models/x'": "'x'",
    r"/home/alice/My\ Models/x": "x",
    "(/home/alice/x)": "(x)",
    "/home/alice": "~",
    "/home/alice/hub/models--org--m/snapshots/0a1b": "org/m",
    "/home/alice/a b.jsonl": None,  # where it ends can only be known of a whole value
    "alice@gpu7:/data/x": "***:x",
    "alice.smith@example.org": "***",
}


@pytest.mark.parametrize("written", SPELLINGS)
def test_no_spelling_of_a_path_leaves_alone_or_inside_a_text(written: str) -> None:
    left = SPELLINGS[written]
    texts = [public_text(f"run {written} again"), public_command(["fairpo", "check", written]), public(written)]
    texts += [public_value(written), public({"a": [{"b": written}]})["a"][0]["b"]]
    assert not [text for text in texts if "alice" in text or "home" in text or "Users" in text], texts
    if left is not None:
        assert texts[0] == f"run {left} again" and texts[2] == left


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b and org/model and ./runs/x",
        "km/h, and/or, 3/4, 0.5 / 0.5, 2024/05/06, org/name@v1.0",
        "/m/01g317",
        "</div> {{ '/think' }}",
        "s3://bucket/a/b",
        "llm:https://api.openai.com/v1#gpt-4o",
        "http://localhost:8000/v1 http://127.0.0.1:8000/v1",
        "~best",
        "max_new_tokens=64 pad_token: <pad> tokenizer=x",
        "",
    ],
)
def test_names_numbers_and_addresses_on_the_web_stay(text: str) -> None:
    assert public_text(text) == text and public(text) == text and private_places(text) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (TOKEN, "***"),
        (OPENAI, "***"),
        (f"a {GITHUB} b", "a *** b"),
        (AWS, "***"),
        ("OPENAI_API_KEY=abc-def", "OPENAI_API_KEY=***"),
        ("{'password': 'hunter-22'}", "{'password': '***'}"),  # pragma: allowlist secret
        ("Authorization: Bearer abcdefgh1", "Authorization: Bearer ***"),
        ("https://me:pw@example.org/x", "https://***@example.org/x"),  # pragma: allowlist secret
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc\n-----END OPENSSH " + "PRIVATE KEY-----\nrest", "***\nrest"),
    ],
)
def test_secrets_are_masked_and_found(text: str, left: str) -> None:
    assert public_text(text) == left and public(text) == left
    ((line, what),) = private_places(f"first\n{text}")[:1]
    assert line == 2 and text not in what


def test_secrets_of_the_environment_are_known_by_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "opaque value")
    assert public_text("the opaque value is") == "the *** is"
    assert private_places("the opaque value is") == [(1, "a secret of this machine's environment")]
    monkeypatch.delenv("SOME_API_KEY")
    assert public_text("the opaque value is") == "the opaque value is"


@pytest.mark.parametrize("host", ["gpu7", "judge.corp", "10.1.2.3", "192.168.0.4"])
def test_machines_that_only_this_network_knows_are_hidden(host: str) -> None:
    assert public_text(f"llm:http://{host}:8000/v1#m") == "llm:http://***:8000/v1#m"


def test_the_own_user_and_machine_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "_own_name", lambda: "asmith")
    monkeypatch.setattr(privacy, "_own_words", lambda: ("asmith", "box-17"))
    assert public_text("asmith on box-17: asmith/model, asmithson") == "*** on ***: asmith/model, asmithson"
    assert last_part("/scratch/asmith") == "~"


def test_names_of_a_document_stay_the_same_everywhere_or_are_refused() -> None:
    document = {"partition": {"/x/y/cat": "privileged"}, "rows": [{"name": "/x/y/cat"}]}
    assert public(document) == {"partition": {"cat": "privileged"}, "rows": [{"name": "cat"}]}
    with pytest.raises(ValueError, match="become the same without their folders: \\['cat'\\]"):
        public({"/x/y/cat": 1, "/x/z/cat": 2})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/alice/data/pairs.jsonl", "pairs.jsonl"),
        ("/home/alice bob/data/", "data"),
        ("~/runs/x.yaml", "x.yaml"),
        ("../x.yaml", "x.yaml"),
        (r"C:\Users\alice\x.yaml", "x.yaml"),
        ("some-org/pairs", "some-org/pairs"),
        ("https://huggingface.co/some-org/pairs", "https://huggingface.co/some-org/pairs"),
        ("a=/home/alice/b,c=/home/alice/d", "a=b,c=d"),
        (
            '{"path": "/home/alice bob/c", "token": "abc", "n": [1, "/x/y"]}',
            '{"path": "c", "token": "***", "n": [1, "y"]}',
        ),
        ("hf_abcdefghijklmnop", "***"),
        ("5e-5", "5e-5"),
        ("", ""),
    ],
)
def test_paths_and_tokens_in_values(value: str, shown: str) -> None:
    assert public_value(value) == shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["/home/alice/train.py", "--hub_token", "abc", "--beta", "0.1"],
            "python train.py --hub_token '***' --beta 0.1",
        ),
        (
            ["train.py", "--hub_token=abc", "--data=/home/alice/a b.jsonl"],
            "python train.py '--hub_token=***' '--data=a b.jsonl'",
        ),
        (
            ["/venv/bin/fairpo", "evaluate", "/home/alice/out", "--max_new_tokens", "64", "--tokenizer", "some/one"],
            "fairpo evaluate out --max_new_tokens 64 --tokenizer some/one",
        ),
        (["/site-packages/pytest/__main__.py", "-q"], "python -m pytest -q"),
        (["/x/ipykernel_launcher.py", "-f", "/home/alice/kernel.json"], ""),
        (["-c"], ""),
        ([], ""),
        (["t.py", "a\n```\n# b"], "python t.py 'a ``` # b'"),
    ],
)
def test_command(arguments: list[str], line: str) -> None:
    assert public_command(arguments) == line


def test_home_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    assert last_part(str(tmp_path / "alice")) == "~" and last_part(str(tmp_path / "alice" / "x")) == "x"


def test_hub_ids_and_paths(tmp_path: Path) -> None:
    assert is_hub_id("gpt2") and is_hub_id("some-org/pairs") and is_hub_id("Qwen/Qwen2.5-0.5B-Instruct")
    for name in (str(tmp_path), "a/b/c", "./a", "pairs.jsonl", "", "recipes/demo/data/pairs.jsonl"):
        assert not is_hub_id(name), name


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("see /home/alice/runs", "the path '/home/alice'"),
        ('"C:\\\\Users\\\\bob\\\\x"', r"the path 'C:\\\\Users\\\\bob'"),
        (f"/{'root'}/model", f"the path '/{'root'}'"),
        ("in /data/runs/7", "the path '/data/runs'"),
        (f"key {TOKEN}", "a Hub token"),
        ("key opaque-token", "a Hub token"),
        ("https://example.org/home/alice, and/or root/x, /rooted", None),
        ("{{ '/think' }} ~/.cache", None),
    ],
)
def test_what_names_this_machine_is_found(line, found):
    places = private_places(f"first\n{line}", ["/data/runs"], "opaque-token")
    assert places == ([(2, found)] if found else [])


def test_a_path_that_is_there_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: path in ("/srv/weights", "/etc/hosts"))
    assert private_places("see /srv/weights, /srv/others and /etc/hosts", []) == [(1, "the path '/srv/weights'")]


def test_paths_of_a_configuration_keep_their_last_part_and_hub_ids_stay(tmp_path):
    snapshot = "/x/hub/models--some-org--tiny/snapshots/0a1b"
    given = {
        "base_model_name_or_path": "/elsewhere/alice/base",
        "nested": {"cache": [str(tmp_path)]},
        "r": 8,
        "s": None,
    }
    assert public_config(given) == {
        "base_model_name_or_path": "base",
        "nested": {"cache": [tmp_path.name]},
        "r": 8,
        "s": None,
    }
    assert public_config({"base_model_name_or_path": snapshot}) == {"base_model_name_or_path": "some-org/tiny"}
    same = {"base_model_name_or_path": "some-org/tiny", "label_names": ["/m/01g317", "a/b"]}
    assert public_config(same) == same


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../x", "", ".", "a\\b", "C:x", "./x", "a//x"])
def test_a_name_that_leads_out_of_the_folder_is_not_sent(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no name of a file in this folder"):
        plain_file(tmp_path, name)


def test_a_link_is_not_sent_and_a_folder_may_be_one(tmp_path: Path) -> None:
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "real" / "in" / "x").write_text("x")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    assert plain_file(tmp_path / "folder", "in/x").read_text() == "x"
    os.symlink(tmp_path / "real" / "in", tmp_path / "real" / "linked")
    for name in ("linked/x", "linked"):
        with pytest.raises(ValueError, match="is a link: only files of the folder itself are sent"):
            plain_file(tmp_path / "folder", name)
    with pytest.raises(FileNotFoundError, match="has no y"):
        plain_file(tmp_path / "folder", "y")


def test_what_this_process_knows_is_asked_once_per_environment() -> None:
    assert secrets._own_secrets() is secrets._own_secrets()
