"""Label sets as text: the strict reader, pairs, the split, measures, constrained decoding."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fairpo_trl import Partition
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.label_sets.decoding import LabelSetLogitsProcessor, write_sets
from fairpo_trl.label_sets.items import LabelledTexts, check_parts, load_items
from fairpo_trl.label_sets.measures import SetMeasures, change, comparison_dict, evaluation_dict, resample_items
from fairpo_trl.label_sets.pairs import build_pairs, check_order, preference_rows
from fairpo_trl.label_sets.reader import Vocabulary, count_problems


VOCABULARY = Vocabulary(("bird", "cat", "dog", "house cat", "sea"))
PARTITION = Partition.by_name(VOCABULARY.labels, ["sea"])


def items_of(sets, name="train"):
    matrix = np.array([[label in labels for label in VOCABULARY.labels] for labels in sets], dtype=np.int8)
    ids = tuple(f"item{number}" for number in range(len(sets)))
    texts = tuple(f"text {number}" for number in range(len(sets)))
    return LabelledTexts(texts, MultiLabelSplit(name, VOCABULARY.labels, matrix, ids, series=texts))


def readings_of(*texts):
    return [VOCABULARY.read(text) for text in texts]


# ---- the reader ----


def test_a_set_is_written_in_canonical_order_and_read_back():
    assert VOCABULARY.write({"sea", "bird", "house cat"}) == " bird, house cat, sea"
    reading = VOCABULARY.read(" bird, house cat, sea")
    assert reading.labels == ("bird", "house cat", "sea")
    assert reading.well_formed and reading.in_order


def test_another_order_is_the_same_set_and_counted():
    reading = VOCABULARY.read(" sea, bird")
    assert reading.labels == ("bird", "sea") and reading.well_formed and not reading.in_order
    assert count_problems([reading])["out_of_order"] == 1.0
    assert count_problems([reading])["malformed_sets"] == 0.0


@pytest.mark.parametrize(
    ("text", "fault", "parts"),
    [
        (" cat, fish", "unknown", ("fish",)),
        (" cat, dog, cat", "repeated", ("cat",)),
        (" Cat", "malformed", ("Cat",)),
        (" cat,dog", "malformed", ("cat,dog",)),
        (" cat,  dog", "malformed", (" dog",)),
        (" cat, ", "malformed", ("",)),
        (" cat\n", "malformed", ("cat\n",)),
        ("", "malformed", ("",)),
        ("  cat", "malformed", (" cat",)),
        (" house  cat", "unknown", ("house  cat",)),
    ],
)
def test_what_is_not_exactly_a_set_is_named_and_counts_as_no_set(text, fault, parts):
    reading = VOCABULARY.read(text)
    assert getattr(reading, fault) == parts
    assert not reading.well_formed
    assert reading.labels == ()
    assert count_problems([reading])["malformed_sets"] == 1.0


def test_a_text_cut_at_the_length_limit_is_malformed_although_its_last_part_is_a_label():
    reading = VOCABULARY.read(" dog, house cat", ended=False)
    assert reading.cut and not reading.well_formed and reading.labels == ()


@given(st.text(alphabet="abcdhinorsetu ,\n\tCé", max_size=40), st.booleans())
def test_fuzzed_text_never_becomes_a_set_unless_it_is_one(text, ended):
    reading = VOCABULARY.read(text, ended)
    if reading.well_formed:
        assert ended
        assert sorted(text.removeprefix(" ").split(", ")) == sorted(reading.labels)
        assert VOCABULARY.read(VOCABULARY.write(reading.labels)).labels == reading.labels
    else:
        assert reading.labels == ()
        assert reading.unknown or reading.repeated or reading.malformed or reading.cut


@given(st.lists(st.sampled_from([*VOCABULARY.labels, "fish", "Cat", ""]), min_size=1, max_size=6))
def test_fuzzed_lists_are_read_part_by_part(parts):
    reading = VOCABULARY.read(" " + ", ".join(parts))
    known = [part for part in parts if part in VOCABULARY.labels]
    assert list(reading.unknown) == [part for part in parts if part == "fish"]
    assert len(reading.malformed) == parts.count("Cat") + parts.count("")
    assert set(reading.repeated) == {part for part in known if known.count(part) > 1}
    assert reading.well_formed == (len(known) == len(parts) == len(set(parts)))


@pytest.mark.parametrize("label", ["a, b", "a,b", " a", "a\nb", "a  b", ""])
def test_a_label_that_cannot_be_read_back_is_refused(label):
    with pytest.raises(ValueError, match="cannot be written in a list"):
        Vocabulary(("x", label))


def test_labels_that_differ_in_case_only_are_refused():
    with pytest.raises(ValueError, match="'cat' and 'Cat' differ in case only"):
        Vocabulary(("cat", "Cat"))


def test_an_unknown_label_is_not_written():
    with pytest.raises(ValueError, match="did you mean 'bird'"):
        VOCABULARY.write(["birds"])


# ---- pairs ----


def test_own_wrong_sets_come_first_and_a_missing_privileged_label_before_all():
    items = items_of([["cat", "sea"]])
    drawn = [readings_of(" cat, sea", " bird, sea", " cat", " bird")]
    pairs = build_pairs(items, drawn, PARTITION, per_item=3).pairs
    # " bird" and " cat" lack `sea`; of these the first confuses. " bird, sea" confuses, but lacks no privileged label.
    assert [sorted(pair.rejected) for pair in pairs] == [["bird"], ["cat"], ["bird", "sea"]]
    assert [pair.kind for pair in pairs] == ["confused", "left_out", "confused"]
    assert all(pair.own for pair in pairs)


def test_the_attribute_is_every_label_in_question_so_a_row_can_carry_both_groups():
    items = items_of([["cat", "sea"], ["dog"]])
    pairs = build_pairs(items, [readings_of(" bird, cat"), readings_of(" bird, dog")], PARTITION)
    rows = preference_rows(pairs, items, VOCABULARY)
    assert rows[0] == {
        "prompt": "text 0\nLabels:",
        "chosen": " cat, sea",
        "rejected": " bird, cat",
        "attribute": ["bird", "sea"],
    }
    assert rows[1]["attribute"] == ["bird"]
    assert [pair.kind for pair in pairs.pairs] == ["confused", "added"]


def test_a_wrong_set_is_made_up_only_where_the_model_makes_no_mistake():
    items = items_of([["cat", "sea"], ["dog"], ["sea"], ["dog"]])
    drawn = [
        readings_of(" cat, sea", " cat, sea"),  # right: the privileged label is left out
        readings_of(" bird"),  # wrong: its own set
        readings_of(" sea", " fish"),  # right where it can be read: nothing would remain, so sea is replaced
        readings_of(" dog"),  # right: dog is replaced by what it was confused with above
    ]
    pairs = build_pairs(items, drawn, PARTITION)
    assert [(sorted(pair.rejected), pair.own) for pair in pairs.pairs] == [
        (["cat"], False),
        (["bird"], True),
        (["dog"], False),  # sea was never confused: the most frequent absent label
        (["bird"], False),
    ]
    counts = pairs.counts()
    assert (counts["own"], counts["made_up"], counts["items_unreadable"]) == (1, 3, 0)


def test_an_item_without_a_readable_set_has_no_pair_and_is_counted():
    pairs = build_pairs(items_of([["cat"], ["dog"]]), [readings_of(" fish", ""), readings_of(" cat")], PARTITION)
    assert [pair.item for pair in pairs.pairs] == ["item1"]
    assert pairs.unreadable == ("item0",)


def test_a_model_that_never_writes_a_set_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="no well-formed label set for any of 1 items.*constrained_sampling"):
        build_pairs(items_of([["cat"]]), [readings_of("la la")], PARTITION)


def test_a_right_set_in_another_order_is_no_mistake():
    pairs = build_pairs(items_of([["cat", "sea"]]), [readings_of(" sea, cat")], PARTITION)
    assert not pairs.pairs[0].own


@given(st.integers(0, 10_000))
def test_the_order_of_labels_decides_no_pair(seed):
    rng = np.random.default_rng(seed)

    def draw():
        return [str(x) for x in rng.permutation(VOCABULARY.labels)[: rng.integers(1, 4)]]

    items = items_of([draw() for _ in range(6)])
    drawn = [[VOCABULARY.read(" " + ", ".join(draw())) for _ in range(3)] for _ in range(6)]
    pairs = build_pairs(items, drawn, PARTITION, 2)
    told = check_order(pairs, items, drawn, PARTITION, 2)
    assert 0 <= told["chosen_first"] <= 1
    assert told["chosen_longer"] + told["chosen_shorter"] <= 1


def test_a_pair_that_depends_on_the_order_is_named():
    items = items_of([["cat"], ["dog"]])
    drawn = [readings_of(" bird"), readings_of(" bird")]
    pairs = build_pairs(items, drawn, PARTITION)
    wrong = type(pairs.pairs[0])("item1", frozenset({"dog"}), frozenset({"cat"}), "confused", True)
    tampered = type(pairs)((pairs.pairs[0], wrong), (), pairs.confusion)
    with pytest.raises(ValueError, match="item 'item1' depends on the order"):
        check_order(tampered, items, drawn, PARTITION)


# ---- items and their split ----


def write_items(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(count):
    names = ["red", "green", "blue"]
    return [{"text": f"thing {i // 2}", "labels": [names[i % 3], names[(i + 1) % 3]]} for i in range(count)]


def test_no_text_and_no_pair_crosses_the_split(tmp_path):
    parts, vocabulary = load_items(write_items(tmp_path / "items.jsonl", rows_of(40)), test_share=0.3)
    assert vocabulary.labels == ("blue", "green", "red")
    train, test = parts["train"], parts["test"]
    assert len(train) + len(test) == 40 and len(test) == 12
    assert not set(train.texts) & set(test.texts)  # every text stands there twice
    drawn = [[vocabulary.read(" blue")] for _ in range(len(train))]
    pairs = build_pairs(train, drawn, Partition.by_name(vocabulary.labels, ["red"]))
    assert not {pair.item for pair in pairs.pairs} & set(test.ids)
    assert not {row["prompt"] for row in preference_rows(pairs, train, vocabulary)} & set(test.prompts)
    for part in parts.values():  # texts went with their labels
        originals = {str(i): row for i, row in enumerate(rows_of(40))}
        assert all(originals[i]["text"] == text for i, text in zip(part.ids, part.texts, strict=True))
        assert all(set(originals[i]["labels"]) == set(s) for i, s in zip(part.ids, part.sets(), strict=True))


def test_a_text_that_a_column_puts_on_both_sides_is_refused(tmp_path):
    rows = [
        {"text": "One thing", "labels": "a, b", "split": "train"},
        {"text": "one  THING", "labels": "a", "split": "test"},
    ]
    with pytest.raises(ValueError, match="share 1 series"):
        load_items(write_items(tmp_path / "items.jsonl", rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "", "labels": ["a"]}, "row 1, column 'text': expected a text"),
        ({"text": "x", "labels": []}, "row 1, column 'labels': expected a list of labels"),
        ({"text": "x", "labels": "a,,b"}, "row 1, column 'labels': expected a list of labels"),
        ({"text": "x", "labels": ["a", "a"]}, r"row 1, column 'labels': \['a'\] occur more than once"),
        ({"text": "x", "labels": ["a, b", "c"]}, "cannot be written in a list"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    path = write_items(tmp_path / "items.jsonl", [{"text": "y", "labels": ["a", "b"]}, row])
    with pytest.raises(ValueError, match=message):
        load_items(path)


def test_a_missing_column_gets_a_near_one(tmp_path):
    path = write_items(tmp_path / "items.jsonl", [{"texts": "y", "labels": ["a", "b"]}])
    with pytest.raises(ValueError, match="lacks column 'text'.*did you mean 'texts'"):
        load_items(path)


def test_a_label_that_only_test_has_is_refused():
    train, test = items_of([["cat", "dog", "bird", "sea"]]), items_of([["house cat"]], "test")
    test = LabelledTexts(("other",), MultiLabelSplit("test", VOCABULARY.labels, test.split.labels, ("other",)))
    with pytest.raises(ValueError, match=r"Nothing in `train` has the labels \['house cat'\]"):
        check_parts({"train": train, "test": test})


def test_only_the_named_labels_are_kept_and_what_is_left_out_is_counted(tmp_path):
    rows = [*rows_of(12), {"text": "alone", "labels": ["other"]}]
    parts, vocabulary = load_items(write_items(tmp_path / "items.jsonl", rows), labels=["red", "blue"], test_share=0.3)
    assert vocabulary.labels == ("blue", "red")
    assert sum(map(len, parts.values())) == 12
    with pytest.raises(ValueError, match="did you mean 'red'"):
        load_items(tmp_path / "items.jsonl", labels=["redd", "blue"])


# ---- measures ----

TRUE = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0]])
FOUND = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]], dtype=bool)


def test_measures_against_numbers_worked_out_by_hand():
    measures = SetMeasures(TRUE, FOUND, PARTITION)
    # Item 0: 1 hit, 2 written, 3 true; item 1: 1 hit, 2 written, 1 true.
    assert measures.mean("set_f1") == pytest.approx((2 / 5 + 2 / 3) / 2)
    assert measures.mean("exact_match") == 0.0
    assert measures.mean("size_error") == pytest.approx((-1 + 1) / 2)
    assert measures.mean("absolute_size_error") == 1.0
    # Held (all but sea): hits bird and cat, wrong `house cat`, missed dog.
    assert measures.mean("non_privileged/precision") == pytest.approx(2 / 3)
    assert measures.mean("non_privileged/recall") == pytest.approx(2 / 3)
    assert measures.mean("non_privileged/f1") == pytest.approx(2 / 3)
    assert measures.mean("privileged/f1") == 0.0
    assert measures.mean("label/bird/f1") == 1.0


def test_a_label_neither_true_nor_written_has_no_f1():
    measures = SetMeasures(TRUE[:, :2], FOUND[:, :2] & False, Partition.by_name(["a", "b"], ["a"]))
    assert math.isnan(measures.mean("label/a/precision"))
    assert measures.mean("label/a/f1") == 0.0
    empty = SetMeasures(np.zeros((2, 2)), np.zeros((2, 2)), Partition.by_name(["a", "b"], ["a"]))
    assert math.isnan(empty.mean("label/a/f1"))
    assert change(empty, empty, "label/a/f1", resample_items(2, 10)) is None


def test_changes_are_paired_by_item_and_seed():
    rng = np.random.default_rng(0)
    true = rng.random((50, 5)) < 0.4
    first, second = (true[None] ^ (rng.random((2, 50, 5)) < share) for share in (0.2, 0.1))
    weights = resample_items(50, 500)
    one, two = SetMeasures(true, first, PARTITION), SetMeasures(true, second, PARTITION)
    found = change(two, one, "set_f1", weights)
    assert found["mean"] == pytest.approx((two.values("set_f1") - one.values("set_f1")).mean())
    assert found["seed_sd"] == pytest.approx((two.values("set_f1") - one.values("set_f1")).std(ddof=1))
    assert found["low"] < found["mean"] < found["high"]
    same = change(one, one, "non_privileged/f1", weights)
    assert (same["mean"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


def test_resampled_measures_equal_those_of_the_repeated_items():
    rng = np.random.default_rng(1)
    true, found = rng.random((20, 5)) < 0.4, rng.random((20, 5)) < 0.4
    weights = resample_items(20, 3)
    measures = SetMeasures(true, found, PARTITION)
    for row, counts in enumerate(weights):
        rows = np.repeat(np.arange(20), counts.astype(int))
        repeated = SetMeasures(true[rows], found[rows], PARTITION)
        for name in ("set_f1", "privileged/f1", "label/cat/recall", "size_error"):
            assert measures.values(name, weights)[0, row] == pytest.approx(repeated.mean(name))


def test_the_results_of_sets_have_f1_and_no_average_precision():
    found = evaluation_dict(TRUE, FOUND, PARTITION)
    assert found["by_group"]["all"]["map"] is None
    assert found["by_group"]["all"]["map_label_prior"] is None
    assert found["by_label"]["sea"]["ap"] is None
    assert found["by_group"]["all"]["sample_f1"] == pytest.approx((2 / 5 + 2 / 3) / 2)
    assert found["by_label"]["bird"]["f1"] == 1.0
    # Over all entries: hits bird and cat; wrong `house cat` and sea; missed dog and sea.
    assert [found["by_group"]["all"][name] for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    nothing = evaluation_dict(TRUE, FOUND & False, PARTITION)
    assert nothing["by_group"]["privileged"]["precision"] is None
    assert nothing["by_group"]["privileged"]["f1"] == 0.0


def test_the_change_of_f1_names_what_fell():
    true, found = np.tile(TRUE, (20, 1)), np.tile(FOUND, (20, 1))
    result = comparison_dict(true, found, true, PARTITION)
    assert {name: row["delta"] for name, row in result["by_group"].items()} == {
        "all": -0.5,
        "privileged": -1.0,
        "non_privileged": pytest.approx(-1 / 3),
    }
    rows = result["by_label"]
    assert (rows["dog"]["f1_reference"], rows["dog"]["f1"], rows["dog"]["delta"]) == (1.0, 0.0, -1.0)
    assert (rows["dog"]["low"], rows["dog"]["high"], rows["dog"]["positives"]) == (-1.0, -1.0, 20)
    assert rows["house cat"]["f1_reference"] is None and rows["house cat"]["delta"] is None  # never true there
    assert result["fell"] == result["fell_surely"] == ["dog"]  # `sea` fell as well, but it is privileged
    assert comparison_dict(true, found, true, PARTITION, allowed_fall=1.0)["fell"] == []


# ---- constrained decoding ----


def byte_tokenizer():
    """One token per byte, as the smallest tokenizer that can write everything."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def test_the_processor_allows_exactly_what_continues_a_set():
    tokenizer = byte_tokenizer()
    end = tokenizer.eos_token_id
    processor = LabelSetLogitsProcessor(Vocabulary(("car", "cat", "cat food")), tokenizer, [end], 0)

    def allowed(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"<end>" if i == end else tokenizer.decode([i]) for i in processor.allowed(ids)}

    assert allowed("") == {" "}
    assert allowed(" ca") == {"r", "t"}
    assert allowed(" cat") == {"<end>", ",", " "}  # the set may end, go on, or the label be `cat food`
    assert allowed(" cat,") == {" "}
    assert allowed(" cat, ca") == {"r", "t"}
    assert allowed(" cat, cat") == {" "}  # cat stands there already: only `cat food` is left
    assert allowed(" car, cat, cat food") == {"<end>"}  # no label is left
    assert processor.allowed([end, 0, 0]) == [end]


def tiny_model(size):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def test_a_random_model_held_to_the_form_writes_label_sets_only():
    tokenizer = byte_tokenizer()
    model = tiny_model(len(tokenizer))
    prompts = ["one\nLabels:", "something longer\nLabels:"]
    state = torch.random.get_rng_state()
    options = {"samples": 4, "temperature": 1.0, "max_new_tokens": 32, "progress": False}
    free = write_sets(model, tokenizer, prompts, VOCABULARY, **options)
    held = write_sets(model, tokenizer, prompts, VOCABULARY, constrained=True, **options)
    again = write_sets(model, tokenizer, prompts, VOCABULARY, constrained=True, batch_size=8, **options)
    assert not any(reading.well_formed for row in free for reading in row)
    assert all(reading.well_formed for row in held for reading in row)
    assert len({reading.text for row in held for reading in row}) > 1
    assert held == again
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_tokenizer_that_joins_label_and_comma_is_refused():
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    with pytest.raises(ValueError, match="does not write the label 'bird' with the same tokens"):
        LabelSetLogitsProcessor(VOCABULARY, fast, [1], 0)
