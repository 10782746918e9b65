"""Tests of the HTML reports: what they say, that nothing in them can act, and that they work in a real browser."""

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser

import pytest
from builders import HOSTILE, around, bare_generation_fields, generation_fields, label_fields, rates, renamed
from helpers_browser import Browser, find_browser

from fairpo_trl.reporting import LabelResults, Results, write_html_report
from fairpo_trl.reporting.blocks import Lines
from fairpo_trl.reporting.cells import text_of
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.render.charts import MOST_STEPS, history, scale
from fairpo_trl.reporting.verdict import generation_verdict, label_verdict, mean_interval


pytestmark = pytest.mark.xdist_group("html_report")  # its fixtures are costly: once for the file


LONG = "w" * 400


class Page(HTMLParser):
    """The elements of a page with their attributes, the text outside of style and script, and those two."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.pieces, self.inside, self.raw = [], [], "", {"style": "", "script": ""}
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside] += data
        else:
            self.pieces.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def page_of(fields, path):
    """Path of the page of one or several candidates."""
    return write_html_report([Results(**each) for each in fields], path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Paths of the pages of one candidate, of three, and of a classifier."""
    folder = tmp_path_factory.mktemp("pages")
    candidates = [
        generation_fields(),
        generation_fields("DPO", brevity=-0.2),
        generation_fields("Other", warmth=0.01),
    ]
    return {
        "one": page_of(candidates[:1], folder / "one.html"),
        "three": page_of(candidates, folder / "three.html"),
        "labels": write_html_report([LabelResults(**label_fields(folder))], folder / "labels.html"),
    }


class TestWhatItSays:
    def test_every_number_of_a_language_model_appears(self, pages):
        text = Page(pages["one"]).text
        for expected in [
            "+.23 [+.19, +.27]", "+.24 [+.20, +.28]",  # differences by both judges
            ".74 [.70, .78]", ".51 [.48, .54]", "▲ better", "≈ unclear",
            ".61 [.56, .66]", ".63 [.58, .68]",  # at equal length
            "3.10 [2.90, 3.30]", "6.25 [6.05, 6.45]", "+1.15 [+1.05, +1.25]",  # scores
            "120", "121", "122", ".57", ".59", ".71", ".73", ".83", ".85", ".33", ".35",  # pairs
            "200", "201", "20.50", "18.25", "25.0", "50.0", "-1.25",  # guards
            ".59", ".41", ".67", ".18", "-.10",  # histories
            "count:words", "1234", "56", "7", "3, 4", "21 min", "beta = 0.1", "balancer = mirror_ascent",
            "2 CPU cores",
            "warmth 1.50 → 9.25", "brevity 7.50 → 6.00", "brevity -3.50 by the scorer",
            "plain words -2.50 by the scorer",
            "prompt 7", "reference text 7", "trained text 7", "lost brevity 2", "pairs.jsonl", "Small-Instruct",
        ]:  # fmt: skip
            assert re.search(rf"(?<![\w.]){re.escape(expected)}(?![\w])", text), expected

    def test_every_number_of_a_classifier_appears(self, pages):
        page = Page(pages["labels"])
        for expected in [
            "50.0", "51.6", "41.6", "91.6", "71.6", "+1.60 [+.60, +2.60] ▲", "-.30 [-1.30, +.70] ≈",
            "+3.00 [+2.00, +4.00] ▲", "+.20 [-.80, +1.20] ≈", "-2.50 [-3.50, -1.50] ▼", "31", "25", "400", "212",
            "0.0321", "0.0234", "0.0123", "0.0456", "62.0", "66.3", "70.1", "1,100 images, 900 series", "fairpo_cpo",
            "2 min", "beta = 1.0", "The images were chosen by hand.", "birds/owl_1", "82", "31",
            "Not measured, for want of a positive in this split: tree_50%.",
        ]:  # fmt: skip
            assert expected in page.text, expected
        images = [attributes for tag, attributes in page.elements if tag == "img"]
        assert [image["alt"] for image in images] == ["Image birds/owl_1; true labels: owl"]
        assert images[0]["src"].startswith("data:image/png;base64,")

    def test_what_was_not_measured_is_left_out(self, tmp_path):
        page = Page(page_of([bare_generation_fields()], tmp_path / "p.html"))
        assert "Whether a got better was not measured; nothing is held." in page.text
        for absent in ("None", "nan", "undefined", "Judges", "What the models write", "during training", "cost"):
            assert absent not in page.text

    def test_local_paths_are_cut_but_not_in_what_models_wrote(self, tmp_path):
        found = generation_fields()
        found["samples"][0]["trained"] = "Look into /home/me/x.txt"
        page = Page(page_of([found], tmp_path / "p.html"))
        assert "someone" not in page.text and "--output x" in page.text and "/home/me/x.txt" in page.text

    @pytest.mark.parametrize(
        ("changes", "kind", "sentence"),
        [
            ({}, "better", "warmth got better, and no held attribute got measurably worse."),
            ({"brevity": -0.2}, "worse", "warmth got better, but brevity got worse."),
            ({"brevity": -0.2, "plain": -0.2}, "worse", "warmth got better, but brevity and plain words got worse."),
            (
                {"warmth": 0.01},
                "same",
                "It is unclear whether warmth got better; no held attribute got measurably worse.",
            ),
            ({"warmth": -0.2}, "worse", "warmth got worse; no held attribute got measurably worse."),
        ],
    )
    def test_the_verdict(self, changes, kind, sentence):
        found = generation_verdict(Results(**generation_fields(**changes)))
        assert (found.kind, found.sentence) == (kind, sentence)

    def test_a_doubt_of_a_later_judge_stands_in_the_verdict(self):
        found = generation_fields()
        found["attributes"][1]["win_rate"]["second_judge"] = rates(-0.2)
        verdict = generation_verdict(Results(**found))
        assert verdict.kind == "same"
        assert verdict.sentence.endswith("measurably worse, but the second judge sees brevity worse.")
        assert "The second judge sees it differently: brevity -.20 [-.24, -.16] ▼ worse." in verdict.details

    def test_the_worst_held_attribute_and_the_means_stand_out(self):
        verdict = generation_verdict(Results(**generation_fields(brevity=-0.02)))
        tiles = {tile.title: (text_of(tile.value), tile.about) for tile in verdict.tiles}
        assert tiles["held, worst"] == ("-.02 [-.06, +.02]", "brevity")
        assert tiles["held, mean"] == (".00 [-.04, +.04]", "of 2")
        assert tiles["privileged"] == ("+.23 [+.19, +.27]", "warmth")

    def test_the_verdict_of_a_classifier(self):
        found = label_fields()
        verdict = label_verdict(LabelResults(**found))
        assert verdict.kind == "worse"
        assert verdict.sentence == (
            "The privileged labels got better in the mean, but 1 held label fell by more than 1 point."
        )
        found["comparison"]["fell_surely"] = []
        verdict = label_verdict(LabelResults(**found))
        assert verdict.kind == "better" and verdict.sentence.endswith("none with the whole interval.")


class TestCharts:
    def test_positions_are_per_cents_of_the_axis(self):
        axis = scale([0.0, 1.0], neutral=0.5)
        assert (axis.at(0.5), axis.neutral, axis.at(axis.low), axis.at(axis.high)) == (50.0, 50.0, 0.0, 100.0)

    @pytest.mark.parametrize(
        ("values", "options", "expected"),
        [
            ([-0.1, 0.2], {"signed": True}, ["-.1", "0", "+.1", "+.2"]),
            ([-0.1, 0.2], {"signed": True, "factor": 100}, ["-10", "0", "+10", "+20"]),
            ([0.496, 0.504], {}, [".496", ".498", ".500", ".502", ".504"]),
            ([0, 40], {}, ["0", "10", "20", "30", "40"]),
        ],
    )
    def test_ticks_have_the_digits_they_need(self, values, options, expected):
        assert [text for _, text in scale(values, **options).ticks] == expected

    def test_a_constant_has_an_axis(self):
        assert scale([0.5, 0.5]).at(0.5) == 50.0

    def test_a_long_history_says_what_it_leaves_out(self):
        entries = [{"step": step, "a": step / 1000} for step in range(1000)]
        found = history(Lines("t", "u", entries, {"a": "privileged"}))
        assert (len(found.rows), found.left_out) == (MOST_STEPS, 700)
        assert (found.rows[0][0], found.rows[-1][0]) == ("0", "999")

    def test_many_lines_are_told_apart_by_role_and_stay_a_small_table(self):
        names = [f"label {i}" for i in range(1000)]
        entries = [{"step": step} | {name: i / 1000 for i, name in enumerate(names)} for step in range(50)]
        found = history(Lines("t", "u", entries, dict.fromkeys(names, "non_privileged")))
        assert not found.named and {line.colour for line in found.lines} == {"held"}
        assert [line.name for line in found.highest] == ["label 999", "label 998", "label 997"]
        assert (len(found.rows), found.left_out) == (12, 38)

    def test_the_interval_of_a_mean_is_the_conservative_one(self):
        found = mean_interval([Interval(**around(0.1, 0.02)), Interval(**around(0.3, 0.04))])
        assert (found.mean, *found.ends) == pytest.approx((0.2, 0.17, 0.23))
        assert mean_interval([Interval(**around(0.1)), Interval(mean=0.3)]) == Interval(mean=0.2)
        assert mean_interval([]) is None


class TestNothingActs:
    def test_text_from_data_is_text(self, tmp_path):
        found = renamed(generation_fields(HOSTILE), "brevity", HOSTILE)
        found["attributes"][1]["win_rate"] = {HOSTILE: rates(0.1)}
        found |= {"title": HOSTILE, "command": HOSTILE, "settings": {HOSTILE: HOSTILE}, "data": HOSTILE}
        for key in ("prompt", "reference", "trained"):
            found["samples"][0][key] = HOSTILE
            found["regressions"][0][key] = HOSTILE + "\x00\x1b[31m\ud800"
        plain = Page(page_of([generation_fields(), generation_fields()], tmp_path / "plain.html"))
        page = Page(page_of([found, found], tmp_path / "p.html"))
        assert page.text.count(HOSTILE) > 20 and "\x1b" not in page.text and "7006652" not in page.text
        assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
        assert (page.count("script"), page.count("img")) == (1, 0)
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]

    def test_labels_are_text_too(self, tmp_path):
        found = renamed(label_fields(tmp_path), "owl", "<b onclick=alert(1)>owl")
        found = renamed(found, "birds/owl_1", "<i>owl</i>")
        page = Page(write_html_report([LabelResults(**found)], tmp_path / "p.html"))
        assert "<b onclick=alert(1)>owl" in page.text and "<i>owl</i>" in page.text
        assert not [attributes for tag, attributes in page.elements if tag == "i" or "onclick" in attributes]

    @pytest.mark.parametrize("name", ["one", "three", "labels"])
    def test_the_policy_allows_only_what_the_page_holds(self, pages, name):
        page = Page(pages[name])
        (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
        hashes = {
            tag: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
            for tag, text in page.raw.items()
        }
        assert policy == (
            f"default-src 'none'; img-src data:; style-src {hashes['style']}; script-src {hashes['script']}; "
            "base-uri 'none'; form-action 'none'"
        )
        assert not [a for _, a in page.elements if "style" in a], "a style attribute would be refused"
        for tag, attributes in page.elements:
            for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
        assert "http" not in "".join(page.raw.values())

    def test_a_failed_report_leaves_the_old_one(self, tmp_path):
        path = write_html_report([LabelResults(**label_fields(tmp_path))], tmp_path / "p.html")
        before = path.read_bytes()
        (tmp_path / "samples" / "0.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match=r"samples/0\.png"):
            write_html_report([LabelResults(**label_fields())], path)
        with pytest.raises(ValueError, match="at least one document"):
            write_html_report([], path)
        assert path.read_bytes() == before and {file.name for file in tmp_path.iterdir()} == {"p.html", "samples"}

    @pytest.mark.parametrize("name", ["one", "three", "labels"])
    def test_headings_skip_no_level_and_ids_are_unique(self, pages, name):
        page = Page(pages[name])
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in page.elements:
            for key in ("aria-controls", "aria-labelledby"):
                assert attributes.get(key, ids[0] if ids else None) in [*ids, None], attributes

    def test_a_missing_image_is_named(self, tmp_path):
        found = LabelResults(**label_fields(tmp_path))
        with pytest.raises(FileNotFoundError, match="birds/owl_1"):
            write_html_report([found], tmp_path / "elsewhere" / "p.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("no chromium: install it to run the pages in a real browser")
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


SHOWN = "[...document.querySelectorAll('{}')].filter((e) => e.checkVisibility()).map((e) => e.textContent.trim())"


def shown(browser, selector):
    """Texts of the elements that can be seen."""
    return browser.ask(SHOWN.format(selector))


def choose(browser, selector, value):
    browser.ask(
        f"(() => {{ const e = [...document.querySelectorAll('{selector}')].find((e) => e.checkVisibility());"
        f" e.value = {value!r}; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }})()"
    )


class TestInABrowser:
    @pytest.mark.parametrize("name", ["one", "three", "labels"])
    @pytest.mark.parametrize("width", [360, 1280])
    def test_a_page_loads_quietly_and_fits(self, browser, pages, name, width):
        browser.open(pages[name], width)
        assert not browser.complaints
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
        assert [url for url in browser.requests if url.startswith("file")] == [pages[name].as_uri()]
        assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.ask("window.innerWidth") == width

    def test_long_words_stay_within_a_phone(self, browser, tmp_path):
        found = renamed(generation_fields(LONG), "brevity", LONG)
        found |= {"title": LONG, "command": LONG, "settings": {LONG: LONG}, "model": LONG, "reference_name": LONG}
        found["margins_history"] = [{"step": step, LONG: 0.1} for step in (1, 2)]
        found["judges"] = {LONG: {"kind": LONG, "calls": 1, "cached": 1, "failures": 0}}
        found["samples"][0] |= {"prompt": LONG, "reference": LONG, "trained": LONG}
        browser.open(page_of([found, generation_fields()], tmp_path / "p.html"), 360)
        assert browser.ask("document.documentElement.scrollWidth") == 360

    def test_hostile_text_neither_runs_nor_loads(self, browser, tmp_path):
        found = generation_fields()
        found["samples"][0]["prompt"] = found["title"] = HOSTILE
        browser.open(page_of([found], tmp_path / "p.html"))
        assert browser.ask("typeof window.hit") == "undefined" and not browser.complaints
        assert len(browser.requests) == 1 and shown(browser, "h1") == [HOSTILE]

    def test_even_unescaped_markup_could_neither_run_nor_load(self, browser, pages, tmp_path):
        """The policy is the second wall; this also shows that the tests above would see a breach."""
        text = pages["one"].read_text(encoding="utf-8")
        path = tmp_path / "breached.html"
        path.write_text(text.replace("<header>", "<header>" + HOSTILE.replace("</div>", ""), 1), encoding="utf-8")
        browser.open(path)
        assert browser.ask("typeof window.hit") == "undefined"
        assert len([text for text in browser.complaints if "Content Security Policy" in text]) >= 2
        assert browser.refused == [url for url in browser.requests if url.startswith("http")] != []

    def test_the_keys_switch_between_candidates(self, browser, pages):
        browser.open(pages["three"])
        assert shown(browser, ".candidate .sentence > span:last-child") == [
            "warmth got better, and no held attribute got measurably worse."
        ]
        browser.ask("document.querySelector('.candidates [role=tab]').focus()")
        browser.press("ArrowRight")
        assert browser.ask("document.activeElement.textContent") == "DPO"
        assert shown(browser, ".candidate .sentence > span:last-child") == [
            "warmth got better, but brevity got worse."
        ]
        browser.press("End")
        assert browser.ask("document.activeElement.textContent") == "Other"
        browser.press("ArrowRight")
        assert browser.ask("document.activeElement.textContent") == "FairPO-CPO"
        states = "[...document.querySelectorAll('.candidates [role=tab]')].map((t) => [t.ariaSelected, t.tabIndex])"
        assert browser.ask(states) == [["true", 0], ["false", -1], ["false", -1]]
        second = "document.querySelectorAll('.candidate')[1]"
        assert browser.ask(f"[{second}.role, {second}.ariaLabelledByElements[0].textContent]") == ["tabpanel", "DPO"]

    def test_the_attribute_switch_shows_its_samples(self, browser, pages):
        browser.open(pages["three"])
        assert shown(browser, ".pair .prompt") == [f"prompt {i}" for i in range(6)]
        assert shown(browser, ".count") == ["6 of 8 texts"]
        browser.ask("[...document.querySelectorAll('.more')].find((e) => e.checkVisibility()).click()")
        assert shown(browser, ".pair .prompt") == [f"prompt {i}" for i in range(8)]
        choose(browser, ".by-attribute", "1")
        assert shown(browser, ".pair .prompt") == [f"prompt {i}" for i in (1, 3, 5, 7)]
        assert set(shown(browser, ".chips li")) == {"brevity 7.50 → 6.00"}

    def test_the_regressions_view_follows_the_attribute(self, browser, pages):
        browser.open(pages["three"])
        browser.ask("document.querySelector('.texts [role=tab]').focus()")
        browser.press("ArrowRight")
        assert shown(browser, ".pair .prompt") == ["lost brevity 0", "lost plain words 1", "lost brevity 2"]
        choose(browser, ".by-attribute", "1")
        assert shown(browser, ".pair .prompt") == ["lost brevity 0", "lost brevity 2"]
        assert shown(browser, ".count") == ["2 of 3 texts"]
        choose(browser, ".by-attribute", "0")
        assert shown(browser, ".pair .prompt") == [] and shown(browser, ".count") == ["none for this attribute"]

    def test_labels_are_filtered(self, browser, pages):
        browser.open(pages["labels"])
        rows = ".filtered tbody tr > th"
        assert shown(browser, rows) == ["owl", "harp", "cat"] and shown(browser, ".count") == ["3 of 3 labels"]
        choose(browser, ".by-role", "privileged")
        assert shown(browser, rows) == ["owl", "harp"]
        browser.ask("document.querySelector('.by-kind').click()")
        assert shown(browser, rows) == ["owl"]
        choose(browser, ".by-role", "")
        browser.ask("document.querySelector('.by-name').focus()")
        browser.type("CA")
        assert shown(browser, rows) == ["cat"] and shown(browser, ".count") == ["1 of 3 labels"]

    def test_paper_shows_everything_and_no_switch(self, browser, pages):
        browser.open(pages["three"], media="print", dark=True)
        assert len(shown(browser, ".pair")) == 3 * 11 and len(shown(browser, ".candidate > h2")) == 3
        assert not shown(browser, "button, select, summary")
        assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

    def test_the_dark_is_dark_and_legible(self, browser, pages):
        contrast = """(() => {
            const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
                .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const page = light(getComputedStyle(document.body).backgroundColor);
            const ratio = (e) => { const t = light(getComputedStyle(e).color);
                return (Math.max(t, page) + 0.05) / (Math.min(t, page) + 0.05); };
            return [page, Math.min(...[...document.querySelectorAll("p, td, th, h1, dt, dd, a, summary")].map(ratio))];
        })()"""
        for dark in (False, True):
            browser.open(pages["three"], dark=dark)
            page, least = browser.ask(contrast)
            assert (page < 0.05) == dark and least >= 4.5

    def test_without_scripts_everything_is_there(self, browser, pages):
        browser.send("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(pages["three"])
            assert len(shown(browser, ".pair")) == 3 * 11 and not shown(browser, "button, select")
        finally:
            browser.send("Emulation.setScriptExecutionDisabled", value=False)
