"""The one reader of tables: what files really look like, and what a cell of text means."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairpo_trl.core.messages import joined_names, second_spellings
from fairpo_trl.tables import number_of, read_rows, structure_of, truth_of


ROWS = [{"path": "a, b.png", "text": 'he said "no"', "n": "1"}, {"path": "c.png", "text": "x\ny", "n": None}]
CSV = 'path,text,n\n"a, b.png","he said ""no""",1\nc.png,"x\ny",\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV.encode()),
        ("t.csv", b"\xef\xbb\xbf" + CSV.encode()),  # a byte order mark, as Excel writes it
        ("t.csv", CSV.replace("\n", "\r\n").replace("x\r\ny", "x\ny").encode()),
        ("t.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("t.csv", b'path;text;n\n"a, b.png";"he said ""no""";1\nc.png;"x\ny";\n'),
        ("t.csv", b'sep=;\npath;text;n\n"a, b.png";"he said ""no""";1\nc.png;"x\ny";\n'),
        ("t.tsv", b'path\ttext\tn\na, b.png\t"he said ""no"""\t1\nc.png\t"x\ny"\t\n'),
        ("t.csv", b',path,text,n\n0,"a, b.png","he said ""no""",1\n1,c.png,"x\ny",\n'),  # pandas' index
    ],
)
def test_a_table_of_text_is_read_whatever_wrote_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_rows(tmp_path / name) == ROWS


def test_lines_that_are_quoted_as_a_whole_are_read_inside(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('prompt;chosen\n"one, or two;three"\nfour;five\n')
    assert read_rows(tmp_path / "t.csv") == [
        {"prompt": "one, or two", "chosen": "three"},
        {"prompt": "four", "chosen": "five"},
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.jsonl.gz", "t.json.gz"])
@pytest.mark.parametrize("form", ["lines", "list", "indented list"])
def test_json_is_a_list_or_lines_whatever_it_is_called(name: str, form: str, tmp_path: Path) -> None:
    rows = [{"a": "\u2028", "b": [1]}, {"a": None}]
    text = {
        "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "list": json.dumps(rows),
        "indented list": json.dumps(rows, indent=2),
    }[form]
    content = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_rows(tmp_path / name) == rows


def test_parquet_stays_a_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet").column_names == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2,3\n", r"t.csv, row 1 has 3 cells but the header has 2 columns; .*a comma"),
        ("t.csv", "a;b\n1;2;3\n", r"row 1 has 3 cells .*contain ';'"),
        ("t.csv", 'a,b\n1,"2\n', "row 1 cannot be read.*is a quote left open"),
        ("t.csv", "a, A \n1,2\n", r"columns \['a', 'A'\] differ only in case"),
        ("t.csv", "a,\n1,2\n", "a column without a name"),
        ("t.csv", "", "cannot be read as CSV: it is empty"),
        ("t.json", '{"a": {"0": 1}, "b": {"0": 2}}', r"one object with 'a', 'b'.*orient='records', lines=True"),
        ("t.jsonl", '{"data": [{"a": 1}]}', "one object with 'data'.*save the list inside it"),
        ("t.json", '{"a": 1}\n{"a": 2', "t.json, line 2 is not JSON"),
        ("t.jsonl", "[1]", "row 0 is no JSON object"),
        ("t.xlsx", "", r"unknown file type '.xlsx'.*Save the sheet as CSV"),
        ("t.parquet.gz", "", "unknown file type '.parquet'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_the_place(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("{'b', 'a'}", ["a", "b"]),
        ("('a', 'b')", ("a", "b")),
        ("[{'role': 'user', 'content': \"it's\"}]", [{"role": "user", "content": "it's"}]),
        ("[]", []),
        ("plain", None),
        ("(see below)", None),
        ("[x] done", None),
        ("{x}", None),
    ],
)
def test_lists_written_as_text_are_read_and_other_text_is_not(text: str, value: object) -> None:
    assert structure_of(text) == value


@pytest.mark.parametrize("text", ["['a' 'b']", "[{'a': 1}\n {'a': 2}]", "['a', ... 'b']", "['a', nan]"])
def test_arrays_that_numpy_wrote_are_refused_and_never_joined(text: str) -> None:
    with pytest.raises(ValueError, match="begins like a list but cannot be read.*to_json"):
        structure_of(text)


def test_numbers_and_truth() -> None:
    assert [number_of(text) for text in ("3", " -2.5 ", "1e3", ".5")] == [3, -2.5, 1000.0, 0.5]
    assert [number_of(text) for text in ("N/A", "3,5", "nan", "inf", "1e999", "", "0x1", "1_000")] == [None] * 8
    assert [truth_of(value) for value in ("1", 1, "1.0", "TRUE", True)] == [True] * 5
    assert [truth_of(value) for value in ("0", 0.0, "False", " false ")] == [False] * 4
    assert [truth_of(value) for value in ("yes", "", "2", None)] == [None] * 4


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.parquet"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("\n<!DOCTYPE html>", "a web page"),
    ],
)
def test_what_a_download_leaves_in_place_of_a_file_is_said(
    name: str, content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_a_name_that_an_object_has_twice_is_refused(name: str, tmp_path: Path) -> None:
    rows = '{"a": {"b": 1, "c": 2, "b": 3}}'
    (tmp_path / name).write_text(rows if name.endswith("l") else f"[{rows}]", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{name}.* has 'b' twice in one object: remove one"):
        read_rows(tmp_path / name)


def test_second_spellings_are_found_in_case_blanks_and_unicode_forms() -> None:
    names = ["café", "cafe\u0301", "Tree", "tree ", "ﬁsh", "fish", "sea\u200b", "sea", "on topic", "on_topic", "a"]
    assert second_spellings(names) == [
        ["café", "cafe\u0301"],
        ["Tree", "tree "],
        ["ﬁsh", "fish"],
        ["sea\u200b", "sea"],
    ]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a", "b", "a|b"], [("a|b", "|")]),
        (["a,b", "b,c"], [("a,b", ","), ("b,c", ",")]),
        (["a", "b", "a b"], [("a b", " ")]),
        (["hot", "dog", "hot dog"], [("hot dog", " ")]),
        (["dog", "hot dog"], []),
        (["helpful", "not helpful"], []),
        (["salt and pepper, ground", "oil"], []),
        (["a", "b", "a+b", "b & a"], [("a+b", "+"), ("b & a", "&")]),
        (
            ["a", "b", "a:b", "a_b", "b - a", "a、b", "a.b"],
            [(n, n.strip("ab ")) for n in ("a:b", "a_b", "b - a", "a、b", "a.b")],
        ),
        (["a\nb", "b\nc"], [("a\nb", "\n"), ("b\nc", "\n")]),
        (["a/b", "a/c", "b/c"], [("a/b", "/"), ("a/c", "/"), ("b/c", "/")]),
        (["animal/cat", "animal/dog", "plant/oak"], []),
        (["short_answer", "long_answer", "short_question", "long_question"], []),
    ],
)
def test_joined_names(names: list[str], found: list[tuple[str, str]]) -> None:
    assert joined_names(names) == found
