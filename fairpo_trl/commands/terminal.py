"""What a command writes to the terminal: text and colours, never what a name in a data file wants of the terminal."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO


# Titles, the clipboard, answers typed by the terminal, cursor moves, 8-bit forms, and marks that turn the direction.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?)?"
    r"|\x9b[0-?]*[ -/]*[@-~]|[\x90\x98\x9d-\x9f][^\x07\x1b\x9c\n]*(?:\x07|\x9c)?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_LETTERS = r"(?:[0-4]|9|2[1-4]|29|[34][0-79]|9[0-7]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3})"
_COLOUR = re.compile(rf"\x1b\[(?:{_LETTERS}(?:;{_LETTERS})*)?m")
_MOVES = re.compile(r"(?:\n|\x1b\[A)+")  # what a progress bar writes by itself, between its lines


class CleanStream:
    """
    A text stream that takes control characters out of what is written; everything else is that of the stream.

    Colours pass where the stream is a terminal. A carriage return passes where a bar begins its line anew.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text without control characters; returns its length."""
        self._stream.write(clean(text, colours=self._stream.isatty()))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes every text."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def clean(text: str, colours: bool = False) -> str:
    """
    A text without anything that a terminal would take for a command; `colours`: whether colours and weights of letters
    stay (no blinking, no hidden text).
    """
    if _MOVES.fullmatch(text):
        return text
    start = "\r" if text.startswith("\r") else ""
    text = re.sub(r"\r(?!\n)", " ", text[len(start) :])
    return start + _SEQUENCE.sub(lambda found: found[0] if colours and _COLOUR.fullmatch(found[0]) else "", text)


@contextlib.contextmanager
def clean_terminal() -> Iterator[None]:
    """Within, whatever is printed goes through [`CleanStream`]."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = CleanStream(sys.stdout), CleanStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
