"""Tests of the results documents: what one refuses, what it cuts, that files of today and of before load."""

import json
from pathlib import Path

import pytest
from builders import comparison_fields, generation_fields, label_fields, label_set_fields

from fairpo_trl.reporting import LabelComparison, LabelResults, Results
from fairpo_trl.reporting.cells import Change, Value
from fairpo_trl.reporting.documents import Interval


MAKERS = {
    "generation": (Results, generation_fields),
    "labels": (LabelResults, label_fields),
    "label sets": (LabelResults, label_set_fields),
    "comparison": (LabelComparison, comparison_fields),
}


@pytest.mark.parametrize("name", MAKERS)
class TestEveryDocument:
    def test_what_was_written_is_read_again(self, name, tmp_path):
        kind, fields = MAKERS[name]
        document = kind(**fields())
        path = document.write(tmp_path / "new" / "results.json")
        assert kind.read(path) == document
        assert [file.name for file in path.parent.iterdir()] == ["results.json"], "no temporary file is left"

    def test_a_file_of_before_loads_and_says_the_same(self, name, tmp_path):
        """Numbers keep their type, what was absent stays absent, nothing but local paths changes."""
        kind, fields = MAKERS[name]
        path = tmp_path / "results.json"
        path.write_text(json.dumps(fields()))
        written = json.loads(kind.read(path).write(path).read_text(encoding="utf-8"))
        expected = json.loads(json.dumps(fields()).replace("/home/someone/runs/x", "x"))
        for table in written.get("tables", []):  # a cell is written with all its parts
            table["rows"], table["texts"] = expected["tables"][0]["rows"], 1
            expected["tables"][0] |= {"texts": 1}
        assert written == expected
        assert "1.0" not in path.read_text(encoding="utf-8").split('"weights_history"')[-1][:40]

    def test_a_failed_write_keeps_the_old_file(self, name, tmp_path):
        kind, fields = MAKERS[name]
        path = kind(**fields()).write(tmp_path / "results.json")
        before = path.read_bytes()
        with pytest.raises(TypeError):
            kind(**fields() | {"settings": {"beta": object()}}).write(path)
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_number_that_is_none_is_refused_with_its_place(self, name, value):
        kind, fields = MAKERS[name]
        with pytest.raises(ValueError, match=rf"^settings\.a\[1\] is {value}: leave out"):
            kind(**fields() | {"settings": {"a": [1, value]}})
        with pytest.raises(ValueError, match=rf"^seconds is {value}: leave out"):
            kind(**fields() | {"seconds": value})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"colour": "red"}, "have no part 'colour'"),
            ({"title": 3}, "title"),
            ({"seconds": "3"}, "seconds must be a number, got str '3'"),
            ({"partition": {"warmth": "protected"}}, "privileged"),
        ],
    )
    def test_another_shape_is_refused_in_one_line(self, name, change, message):
        kind, fields = MAKERS[name]
        with pytest.raises(ValueError, match=message) as caught:
            kind(**fields() | change)
        assert "\n" not in str(caught.value)

    def test_a_missing_part_is_named(self, name):
        kind, fields = MAKERS[name]
        least = fields()
        del least["title"], least["partition"]
        with pytest.raises(ValueError, match=r"lack 'title' \(the first of 2 such places\)\.$"):
            kind(**least)

    def test_nothing_changes_a_document(self, name):
        kind, fields = MAKERS[name]
        with pytest.raises(ValueError, match="frozen"):
            kind(**fields()).title = "another"

    def test_a_file_that_holds_something_else_is_named(self, name, tmp_path):
        kind = MAKERS[name][0]
        for text in ("{", "[]", '{"title": "t"}'):
            (tmp_path / "x.json").write_text(text)
            with pytest.raises(ValueError, match=r"x\.json"):
                kind.read(tmp_path / "x.json")
        with pytest.raises(FileNotFoundError):
            kind.read(tmp_path / "y.json")


class TestPrivacy:
    def test_local_paths_are_cut_but_not_in_what_models_read_and_wrote(self):
        fields = generation_fields()
        fields["samples"][0]["trained"] = "Look into /home/me/x.txt"
        fields["regressions"][0]["prompt"] = "or /home/me/y.txt"
        fields["judges"]["scorer"]["kind"] = "python:/home/me/judge.py:score"
        found = Results(**fields)
        assert found.command == "python train.py --output x"
        assert found.samples[0].trained == "Look into /home/me/x.txt"
        assert found.regressions[0].prompt == "or /home/me/y.txt"
        assert "me" not in found.judges["scorer"].kind.replace("judge", "")

    def test_a_name_that_is_a_path_is_cut_in_every_place(self):
        text = json.dumps(generation_fields()).replace('"brevity"', '"/home/me/brevity"')
        found = Results(**json.loads(text))
        assert "/home" not in json.dumps(found.to_dict())
        assert "brevity" in found.partition and found.samples[1].scores.keys() == {"warmth", "brevity"}

    def test_the_id_of_an_image_is_cut_and_its_file_stays(self):
        fields = label_fields()
        fields["samples"][0]["id"] = "/home/me/owl.png"
        found = LabelResults(**fields)
        assert (found.samples[0].id, found.samples[0].image) == ("owl.png", "samples/0.png")


class TestGeneration:
    def test_a_role_agrees_with_the_partition(self):
        with pytest.raises(ValueError, match="'warmth' has the role 'privileged', another than in partition"):
            Results(**generation_fields() | {"partition": {"warmth": "non_privileged"}})

    def test_the_place_of_a_number_is_named(self):
        fields = generation_fields()
        fields["attributes"][1]["win_rate"]["scorer"]["trained"]["mean"] = float("nan")
        with pytest.raises(ValueError, match=r"^attributes\[1\]\.win_rate\.scorer\.trained\.mean is nan"):
            Results(**fields)

    def test_an_interval_upside_down_is_refused(self):
        fields = generation_fields()
        fields["attributes"][0]["win_rate"]["scorer"]["trained"] |= {"low": 0.9, "high": 0.1}
        with pytest.raises(ValueError, match=r"win_rate\.scorer\.trained: the interval's low end"):
            Results(**fields)


class TestLabels:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"cat": "non_privileged"', '"cat": "protected"', r"partition\.cat"),
            ('"label_counts": {"owl"', '"label_counts": {"owk"', "did you mean 'owl'"),
            ("samples/0.png", "/etc/0.png", r"samples\[0\].image"),
            ("samples/0.png", "../0.png", r"samples\[0\].image"),
            ('["cat", 0.9]', '["cat", 1.9]', "no probability"),
            ('"true": ["owl"]', '"true": ["owls"]', r"samples\[0\].true"),
            ('"hinge"', '"hinges"', "hinge"),
            ('"delta": 0.03, "low": 0.0', '"delta": 0.03, "low": 0.9', r"by_label\.owl: the interval's low end"),
            ('"method": "fairpo_cpo"', '"measure": "F2", "method": "m"', "Unknown measure: 'F2'. Known: 'mAP', 'F1'"),
        ],
    )
    def test_an_unsound_run_is_refused_with_the_place(self, old, new, message):
        text = json.dumps(label_fields())
        assert old in text
        with pytest.raises(ValueError, match=message):
            LabelResults(**json.loads(text.replace(old, new, 1)))

    def test_a_row_of_a_comparison_becomes_a_change(self):
        rows = LabelResults(**label_fields()).comparison.by_label
        assert rows["owl"].change == Interval(mean=0.03, low=0.03 - 0.01, high=0.03 + 0.01)
        assert rows["tree_50%"].change is None and rows["owl"].get("ap") == 0.53

    def test_a_table_has_as_many_cells_as_columns_and_keeps_numbers(self, tmp_path):
        fields = label_set_fields()
        (row,) = LabelResults(**fields).tables[0].rows
        change = Interval(mean=-0.02, low=-0.03, high=-0.01)
        assert row == ["free <b>", Value(0.043, "percent"), "+0.10", Change(change)]
        again = LabelResults.read(LabelResults(**fields).write(tmp_path / "r.json"))
        assert again.tables[0].rows == [row]
        fields["tables"][0]["rows"].append(["one cell"])
        with pytest.raises(ValueError, match=r"tables\[0\]: 4 columns, but a row of 1"):
            LabelResults(**fields)


class TestComparison:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"section": "method"}, "did you mean 'methods'"),
            ({"head": "shared"}, "Unknown head: 'shared'"),
            ({"name": "bce_continued"}, "'bce_continued, mlp' stands there twice"),
            ({"fell": ["dog"]}, r"methods\[2\]\.fell: Unknown label: .dog."),
            ({"colour": 1}, "colour"),
        ],
    )
    def test_an_unsound_method_is_refused(self, change, message):
        fields = comparison_fields()
        fields["methods"][2] |= change
        with pytest.raises(ValueError, match=message):
            LabelComparison(**fields)

    def test_changes_per_label_belong_to_a_method(self):
        with pytest.raises(ValueError, match="did you mean 'fairpo_cpo, mlp'"):
            LabelComparison(**comparison_fields() | {"per_label": {"fairpo_cpo": {}}})

    def test_the_published_comparison_loads(self):
        path = Path(__file__).parents[2] / "experiments/classification/results/comparison/comparison.json"
        found = LabelComparison.read(path)
        assert len(found.methods) > 30 and found.used_heads() == list(found.heads)
