"""The command line: commands, help by topic, YAML, and mistakes as one line with exit code 2."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_rows
from rich.console import Console

from fairpo_trl.commands import check, classification, generation
from fairpo_trl.commands.errors import exit_clearly, split_debug
from fairpo_trl.commands.main import COMMANDS, main
from fairpo_trl.commands.parsing import CommandParser


SCREEN = 48
"""Lines that a terminal shows at once."""


def parser_of(name: str) -> CommandParser:
    return importlib.import_module(f"fairpo_trl.commands.{name}").make_parser()


def write_pairs(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_every_command_has_a_parser_and_an_overview_that_fits_a_screen() -> None:
    for name in COMMANDS:
        parser = parser_of(name)
        console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        parser.print_overview(console)
        text = console.export_text()
        assert parser.command == f"fairpo {name}" and f"Usage: fairpo {name}" in text
        assert len(text.splitlines()) <= SCREEN and parser.examples[0].split("\\")[0].strip() in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_topic_fits_a_screen_and_says_something_about_every_option(name: str) -> None:
    parser = parser_of(name)
    for topic, options in parser.topics.items():
        console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        parser.print_topic(topic, console)
        lines = console.export_text().splitlines()
        assert len(lines) == len(options) <= SCREEN, topic
        assert all(len(line.split()) > 1 for line in lines), topic
    assert all((action.help or "").strip() for action in parser.options().values())


def test_one_option_is_explained_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    generation.make_parser().print_topic("--hinge-level")
    shown = capsys.readouterr().out
    assert "--hinge_level  (default: pair)" in shown and "One of: pair, attribute" in shown


def test_help_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["--version"]):
        main(arguments)
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS) and "fairpo_trl 0." in shown and "fairpo check pairs.jsonl" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "Unknown command: 'chek' (did you mean 'check'?)"),
        (["generation", "--learning_rte", "1"], "Unknown option: '--learning_rte' (did you mean '--learning_rate'"),
        (["generation", "--learning_rate", "fast"], "--learning_rate/--learning-rate: invalid float value: 'fast'"),
        (["generation", "--config"], "`--config` needs the path of a YAML file"),
        (["generation", "--config", "nowhere.yaml"], "there is no file 'nowhere.yaml'"),
        (["generation", "--help", "modle"], "Unknown topic: 'modle' (did you mean 'model'"),
        (["check", "pairs.jsonl", "twice"], "'twice' belongs to no option"),
        (["generation", "--use_cpu", "true", "--method", "dop"], "invalid choice: 'dop'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    shown = capsys.readouterr().err
    assert stopped.value.code == 2
    assert shown.startswith("error: ") and message in shown and shown.count("error: ") == 1
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1", "my.yaml: Unknown option: 'learning_rte' (did you mean 'learning_rate'"),
        ("max_steps: [1, 2]", "my.yaml: `max_steps` must be an integer, got [1, 2]"),
        ("max_steps: 1.5", "my.yaml: `max_steps` must be an integer, got 1.5"),
        ("learning_rate: true", "my.yaml: `learning_rate` must be a number, got True"),
        ("method: true", "my.yaml: `method` must be text, got True"),
        ("ratings: helpful", "my.yaml: `ratings` must be a list"),
        ("- a\n- b", "my.yaml must be a mapping"),
        ("a: b: c", "my.yaml is not YAML"),
        ("!!python/object/apply:os.system ['true']", "my.yaml is not YAML"),
    ],
)
def test_a_yaml_file_is_checked_before_it_is_used(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        generation.make_parser().parse(["--config", str(tmp_path / "my.yaml")])
    assert message in str(raised.value)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("learning_rate: 1e-4\nbeta: 0.3\nuse_cpu: true\nbf16: false\n", encoding="utf-8")
    _, args, _ = generation.make_parser().parse(
        ["--config", str(tmp_path / "my.yaml"), "--beta", "0.2", "--output_dir", str(tmp_path / "out")]
    )
    assert (args.learning_rate, args.beta) == (1e-4, 0.2)


def test_debug_shows_where_a_mistake_was_found_and_leaves_the_option_of_transformers_alone() -> None:
    def fail(arguments: list[str]) -> None:
        raise ValueError(str(arguments))

    with pytest.raises(ValueError, match=r"\['--beta', '1'\]"):
        exit_clearly(fail, ["--debug", "--beta", "1"])
    assert split_debug(["--debug", "underflow_overflow"]) == (False, ["--debug", "underflow_overflow"])


def test_a_defect_keeps_its_traceback() -> None:
    def fail(arguments: list[str]) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        exit_clearly(fail, [])


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(arguments: list[str]) -> None:
        raise FloatingPointError("Step 3: the loss of row 5 is not finite.")

    with pytest.raises(SystemExit) as stopped:
        exit_clearly(fail, [])
    assert stopped.value.code == 1 and "error: Step 3: the loss of row 5" in capsys.readouterr().err


def test_check_reports_every_unusable_row_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(6)
    rows[2]["chosen"] = ""
    path = write_pairs(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(path)])
    shown = capsys.readouterr().out
    assert stopped.value.code == 1 and "Refused by the trainer" in shown and "row 2" in shown.lower()


def test_check_of_good_pairs_ends_well_and_draws_the_conflicts(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{i}", "chosen": a, "rejected": b, "attribute": name}
        for i in range(4)
        for name, a, b in (("kind", "yes", "no"), ("short", "no", "yes"))
    ]
    path = write_pairs(tmp_path / "pairs.jsonl", rows)
    arguments = [str(path), "--privileged_attributes", "kind", "--plot", str(tmp_path / "conflicts.png")]
    (args,) = check.make_parser().parse(arguments)
    report = check.run(args, Console(quiet=True))
    assert report.refused == () and report.conflicts[0].share == 1
    assert report.roles == {"privileged": 4, "non_privileged": 4}
    assert (tmp_path / "conflicts.png").read_bytes()[:4] == b"\x89PNG"


def test_options_that_a_data_set_does_not_read_are_refused() -> None:
    args, _ = classification.make_parser().parse(["--dataset", "coco", "--data_dir", "x", "--separator", ";"])
    with pytest.raises(ValueError, match="`separator` has no effect with `--dataset coco`"):
        classification.load_splits(args)


@pytest.mark.slow
def test_the_module_and_the_console_script_are_the_same_program(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl", make_rows(6))
    script = Path(sys.executable).parent / "fairpo"
    outputs = [
        subprocess.run([*program, "check", str(path)], capture_output=True, text=True, check=True).stdout
        for program in ([sys.executable, "-m", "fairpo_trl"], [str(script)])
    ]
    assert outputs[0] == outputs[1] and "the trainer would accept these pairs." in outputs[0]
