"""Names and texts of data never command the terminal that shows them."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from helpers_trainer import data, fairpo
from rich.console import Console
from rich.text import Text
from tqdm import tqdm

from fairpo_trl.commands.errors import exit_clearly
from fairpo_trl.commands.main import main
from fairpo_trl.commands.terminal import CleanStream, clean
from fairpo_trl.generation.roles import print_summary


TITLE, CLEAR, HIDE = "\x1b]0;PWNED\x07", "\x1b[2J", "\x1b[8m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "sequence",
    [
        *[TITLE, CLEAR, HIDE, "\x1b[1A", "\x1b[2K", "\x1b]52;c;eA==\x1b\\", "\x1b[6n", "\x1bc", "\x1bP$q\x1b\\"],
        *["\x9b2J", "\x9d0;x\x9c", "\x07", "\b", "\x0c", "\x7f", "\u202e", "\u2066", "\x1b", "\x1b[5m"],
        *["\x1b[38;5;1;8m", "\x1b[0;8m"],
    ],
)
@pytest.mark.parametrize("colours", [True, False])
def test_nothing_but_text_is_left(sequence: str, colours: bool) -> None:
    shown = clean(f"an {sequence}evil name\n", colours=colours)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", shown) and shown.endswith("evil name\n")


def test_a_name_cannot_begin_a_line_anew() -> None:
    assert clean("an evil\rname\r\n") == "an evil name\r\n"


def test_colours_bars_and_all_writing_stay() -> None:
    stream = Terminal()
    clean_stream = CleanStream(stream)
    console = Console(file=clean_stream, force_terminal=True, color_system="truecolor", width=60)  # type: ignore[arg-type]
    console.print(Text("höflich – 礼貌 👍🏽", style="bold red on #102030"))
    assert "\x1b[1;31;48;2;16;32;48mhöflich – 礼貌 👍🏽\x1b[0m" in stream.getvalue()
    stream.truncate(0)
    with tqdm(total=2, file=clean_stream, position=1, mininterval=0) as bar:
        bar.update()
    assert "\r" in stream.getvalue() and "\x1b[A" in stream.getvalue() and "1/2" in stream.getvalue()
    clean_stream.writelines(["a\n", f"{TITLE}b\n"])
    assert stream.getvalue().endswith("a\nb\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_an_attribute_of_a_data_file_reaches_no_terminal_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    evil = f"{TITLE}{CLEAR}\x1b[1Aevil"
    lines = [
        {"prompt": f"p{i}", "chosen": "the a", "rejected": "cat dog sea", "attribute": [evil, "polite"][i % 2]}
        for i in range(8)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    main(["check", str(tmp_path / "x.jsonl")])
    with pytest.raises(SystemExit):
        exit_clearly(lambda _: (_ for _ in ()).throw(ValueError(f"no {evil}")), [])
    assert sys.stdout is out and sys.stderr is err
    shown = out.getvalue() + err.getvalue()
    assert "evil" in out.getvalue() and "error: no evil" in err.getvalue()
    assert not re.findall(r"\x1b(?!\[[0-9;]*m)", shown)
    assert terminal or "\x1b" not in shown


def test_nor_does_one_of_a_trainer_in_python(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = fairpo(tmp_path, data(8))
    evil = f"{TITLE}evil"
    partition = type(trainer.partition)((evil, "polite"), (evil,))
    print_summary(partition, {"train": {evil: 3}}, trainer.args)
    shown = capsys.readouterr().out
    assert "evil" in shown and "\x1b]" not in shown and "\x07" not in shown
