"""Tokens, keys and passwords in a text: how they are told from other words, and taken out."""

from __future__ import annotations

import functools
import os
import re

from huggingface_hub import get_token


HIDDEN = "***"
"""Stands where something was taken out."""

# `hub_token`, but neither `max_new_tokens` nor `tokenizer`.
SECRET_NAME = re.compile(r"token(?!s\b|s_|iz)|secret|passw(or)?d|api_?key|private_?key|credential", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}")
_KEYS = re.compile(
    r"\bsk-[\w-]{16,}|\bgh[a-z]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{30,}"
    r"|\bxox[a-z]-[\w-]{10,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----)?"
)
_PUT = r"(?:api|access|private|secret)[_-]?key|secret|passw(?:or)?d|(?:hf|hub|api|auth|access|bearer)[_-]?token"
_ASSIGNED = re.compile(
    rf"(?P<name>[\w-]*(?:{_PUT})[\"']?\s*(?:=\s*[\"']?|:\s*[\"']?(?=\S*[\d_-])))(?P<secret>[^\s\"',;<>(){{}}\[\]*$]{{6,}})",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?<=://)[^\s/@\"']+@")  # https://user:password@host


def without_secrets(text: str) -> str:
    """A text of one or many lines with `***` for each token, key, password and secret of this process."""
    for secret in _own_secrets():
        text = text.replace(secret, HIDDEN)
    text = _KEYS.sub(HIDDEN, _HUB_TOKEN.sub(HIDDEN, text))
    text = _ASSIGNED.sub(lambda found: found["name"] + HIDDEN, text)
    return _PASSWORD.sub(f"{HIDDEN}@", text)


def secret_in(line: str, token: str | None = None) -> str | None:
    """What kind of secret a line holds, for an error that does not show it; `None` if it holds none."""
    if _HUB_TOKEN.search(line) or (token and token in line):
        return "a Hub token"
    if any(secret in line for secret in _own_secrets()):
        return "a secret of this machine's environment"
    return "a key or password" if _KEYS.search(line) or _ASSIGNED.search(line) or _PASSWORD.search(line) else None


def _own_secrets() -> tuple[str, ...]:
    """The values of secrets that this process knows: the Hub's token, and variables whose name says so."""
    return _secrets_of(frozenset(os.environ.items()))


@functools.lru_cache(maxsize=1)  # asked for each line of a text
def _secrets_of(environment: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    values = [get_token() or "", *(value for name, value in environment if SECRET_NAME.search(name))]
    # The longest first: one may be a part of another. A variable may also name the file of a secret.
    return tuple(sorted({v for v in values if len(v) >= 8 and not v.startswith("/")}, key=len, reverse=True))
