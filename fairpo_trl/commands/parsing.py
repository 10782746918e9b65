"""TRL's parser (dataclasses, YAML with `--config`) with help by topic and errors that name the option and the mend."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text
from trl import TrlParser

from fairpo_trl.core.messages import unknown_names_message


class CommandParser(TrlParser):
    """
    Parser of a command: `TrlParser`, but help comes by topic and every mistake is a `ValueError` of one sentence.

    Args:
        kinds (`Iterable[type]`):
            Dataclasses whose fields are the options.
        command (`str`):
            What is typed to call it (`"fairpo check"`).
        summary (`str`):
            What it does, in a sentence.
        examples (`Sequence[str]`, *optional*):
            Command lines to start from.
        topics (`Mapping[str, Sequence[str]]`, *optional*):
            Topic -> its options, for `--help topic`. Without topics `--help` lists every option.
        positional (`str`, *optional*):
            Option that the first argument stands for if it is no option: `fairpo check DATA`.
    """

    def __init__(
        self,
        kinds: Iterable[type],
        *,
        command: str,
        summary: str,
        examples: Sequence[str] = (),
        topics: Mapping[str, Sequence[str]] | None = None,
        positional: str | None = None,
    ) -> None:
        super().__init__(kinds, prog=command, add_help=False, allow_abbrev=False)
        self.command, self.summary, self.examples = command, summary, tuple(examples)
        self.topics, self.positional = dict(topics or {}), positional

    def parse(self, arguments: Sequence[str]) -> tuple[Any, ...]:
        """
        The dataclasses, filled from the YAML file of `--config` and the command line, which wins.

        Args:
            arguments (`Sequence[str]`):
                Without the name of the program. `--help` prints and exits.

        Raises:
            FileNotFoundError: If there is no such YAML file.
            ValueError: For an unknown option (with near matches), a value of the wrong type, or a file that is no YAML
                mapping; and whatever the dataclasses refuse.
        """
        given = list(arguments)
        if {"-h", "--help"} & set(given):
            self._help_and_exit(given)
        if self.positional and given and not given[0].startswith("-"):
            given.insert(0, f"--{self.positional}")
        self._check_config(given)
        self._check_options(given)
        return self.parse_args_and_config(given)

    def error(self, message: str) -> NoReturn:
        """A mistake that argparse found, as `ValueError`; argparse would print 300 options first."""
        raise ValueError(f"{message.removeprefix('argument ')}.{self._where_help_is()}")

    def options(self) -> dict[str, argparse.Action]:
        """Option name -> what argparse knows of it."""
        return {action.dest: action for action in reversed(self._actions)}  # a switch comes before its negation

    def print_topic(self, topic: str, console: Console | None = None) -> None:
        """
        Prints the options of a topic, one per line, or the whole help of a single option.

        Raises:
            ValueError: If there is no such topic or option.
        """
        console = console or Console(highlight=False)
        known = self.options()
        if topic == "all":
            console.print(_option_table(known.values()))
        elif topic in self.topics:
            console.print(_option_table([known[name] for name in self.topics[topic]]))
        elif topic.lstrip("-").replace("-", "_") in known:
            action = known[topic.lstrip("-").replace("-", "_")]
            console.print(Text(f"{_flag(action)}  (default: {_default(action) or 'none'})", style="bold"))
            console.print(Text((action.help or "").replace("%%", "%")))
            if action.choices:
                console.print(Text("One of: " + ", ".join(map(str, action.choices))))
        else:
            raise ValueError(unknown_names_message("topic", [topic], [*self.topics, "all", *known]))

    def print_overview(self, console: Console | None = None) -> None:
        """Prints what the command does, examples, and the topics of help (or every option, if they are few)."""
        console = console or Console(highlight=False)
        operand = f" {self.positional.upper()}" if self.positional else ""
        console.print(
            Text.assemble(("Usage: ", "bold"), f"{self.command}{operand} [--config FILE.yaml] [--option VALUE ...]")
        )
        console.print(Text(f"\n{self.summary}\n"))
        for example in self.examples:
            console.print(Text(f"  {example}", style="cyan"), soft_wrap=True)  # to be copied
        if self.examples:
            console.print()
        if not self.topics:
            console.print(_option_table(self._actions))
            return
        console.print(Text("More help:", style="bold"))
        table = Table.grid(padding=(0, 2))
        for topic, names in self.topics.items():
            table.add_row(f"  --help {topic}", Text(", ".join(names[:4]) + (", ..." if len(names) > 4 else "")))
        table.add_row("  --help all", f"all {len(self._actions)} options")
        table.add_row("  --help OPTION", "one option in full")
        console.print(table)

    def _help_and_exit(self, given: list[str]) -> NoReturn:
        place = given.index("--help" if "--help" in given else "-h")
        topic = given[place + 1] if place + 1 < len(given) else None
        if topic:
            self.print_topic(topic)
        else:
            self.print_overview()
        sys.exit(0)

    def _flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings if "-" not in flag[2:]]

    def _where_help_is(self) -> str:
        return f" `{self.command} --help` lists the options."

    def _check_options(self, given: list[str]) -> None:
        """Every option exists; said before the dataclasses look at values."""
        rest = list(given)
        if "--config" in rest:
            place = rest.index("--config")
            del rest[place : place + 2]
        _, unknown = self.parse_known_args(rest)
        options = [text.split("=")[0] for text in unknown if text.startswith("-")]
        if options:
            unknown_ones = unknown_names_message("option", options, self._flags()).partition(" Known: ")[0]
            raise ValueError(unknown_ones + self._where_help_is())
        if unknown:
            raise ValueError(f"{' '.join(unknown)!r} belongs to no option.{self._where_help_is()}")

    def _check_config(self, given: list[str]) -> None:
        """The YAML file is there, is a mapping, and holds known options with values of the right kind."""
        if "--config" not in given:
            return
        place = given.index("--config") + 1
        if place == len(given) or given[place].startswith("--"):
            raise ValueError("`--config` needs the path of a YAML file.")
        path = Path(given[place])
        if not path.is_file():
            raise FileNotFoundError(f"`--config`: there is no file {str(path)!r}.")
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path.name} must be a mapping of options to values.")
        known = self.options()
        unknown = [str(name) for name in config if name not in known and name != "env"]
        if unknown:
            unknown_ones = unknown_names_message("option", unknown, list(known)).partition(" Known: ")[0]
            raise ValueError(f"{path.name}: {unknown_ones}{self._where_help_is()}")
        for name, value in config.items():
            if name != "env":
                _check_value(known[name], value, path.name)


_KINDS: dict[Any, str] = {int: "an integer", float: "a number", str: "text"}


def _check_value(action: argparse.Action, value: Any, file: str) -> None:
    """argparse converts text only, so a value that YAML has typed itself is checked here."""
    if value is None or (isinstance(value, str) and action.nargs not in ("*", "+")):
        return
    if isinstance(value, list) and action.nargs in ("*", "+"):
        for entry in value:
            if isinstance(entry, (list, dict)):
                raise ValueError(f"{file}: `{action.dest}` must be a list of plain values, got {entry!r} in it.")
        return
    kind = str if isinstance(next(iter(action.choices or ()), None), str) else action.type
    wrong = (
        (kind is int and (isinstance(value, bool) or not isinstance(value, int)))
        or (kind is float and (isinstance(value, bool) or not isinstance(value, (int, float))))
        or (kind is str and isinstance(value, (list, bool)))
        or (action.nargs in ("*", "+") and not isinstance(value, list))
    )
    if wrong:
        wanted = "a list" if action.nargs in ("*", "+") else _KINDS[kind]
        raise ValueError(f"{file}: `{action.dest}` must be {wanted}, got {value!r}.")


def _option_table(actions: Iterable[argparse.Action]) -> Table:
    """One line per option: flag, default, the first sentence of its help."""
    rows = [
        (_flag(action), _default(action), _first_sentence(action.help or ""))
        for action in actions
        if not (isinstance(action, argparse._StoreFalseAction) and _flag(action).startswith("--no"))
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=max(len(flag) for flag, _, _ in rows))
    table.add_column(no_wrap=True, min_width=min(16, max(len(default) for _, default, _ in rows)), max_width=16)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for flag, default, text in rows:
        table.add_row(Text(flag), Text(default, style="dim", overflow="ellipsis"), Text(text, overflow="ellipsis"))
    return table


def _flag(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else action.dest


def _default(action: argparse.Action) -> str:
    default = action.default
    if default is None or default is argparse.SUPPRESS or default == []:
        return ""
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default))
    return str(getattr(default, "value", default))


def _first_sentence(text: str) -> str:
    flat = " ".join(text.replace("%%", "%").split())
    return re.split(r"(?<!Eq)(?<!e\.g)\. ", flat)[0].rstrip(".")
