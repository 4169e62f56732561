"""JSON, CSV and text of a certification, against its own rows and radii."""

import csv
import io
import json
import math
from fractions import Fraction

import pytest
from robustness.certifications import EPS, HOSTILE, certification, empty

from lpverify.robustness.report.data import as_csv, as_json, as_text, summary
from lpverify.robustness.report.wording import eps_text, headline, lower_text, percent, upper_text
from lpverify.robustness.tables import COLUMNS


def test_rows_of_the_summary():
    found = certification()
    rows = {(r["method"], r["eps"]): r for r in summary(found)["rows"]}
    assert len(rows) == 9
    for row in found.rows():
        shown = rows[row.method, str(row.eps)]
        assert (shown["proven"], shown["refuted"], shown["unknown"]) == (row.proven, row.refuted, row.unknown)
        assert shown["certified_accuracy"] <= shown["empirical_accuracy"]
        for kind in ("certified", "empirical"):
            low, high = shown[f"{kind}_interval"]
            assert low <= shown[f"{kind}_accuracy"] <= high
    ladder = rows["ladder", "4/255"]
    assert (ladder["proven"], ladder["refuted"], ladder["unknown"]) == (5, 2, 5)
    assert rows["smoothing", "4/255"]["about"] == "smoothed classifier"
    assert ladder["about"] == "network"
    assert ladder["seconds"] == 3.0


def test_radii_of_the_summary():
    shown = summary(certification())["radii"]
    # of 12 samples 6 to 11 are proven up to 4/255, but 9 is wrong; 4 is wrong, too
    assert shown["ladder"]["average_lower"] == pytest.approx(5 / 12 * 4 / 255)
    assert shown["ladder"]["average_upper"] is None
    assert shown["smoothing"]["median_lower"] == pytest.approx(8 / 255)
    every = certification(4, methods=("ladder",))
    assert summary(every)["radii"]["ladder"]["median_upper"] is None


def test_json_is_strict_and_has_every_sample():
    found = certification(
        complete=False, seconds=math.inf, settings={"limit": math.inf, "eps": Fraction(1, 3)}
    )
    content = json.loads(as_json(found), parse_constant=lambda word: pytest.fail(word))
    assert content["complete"] is False
    assert content["settings"] == {"limit": None, "eps": "1/3"}
    assert [s["sample"] for s in content["samples"]] == list(range(12))
    third = content["samples"][3]
    assert third["name"] == HOSTILE
    assert third["counterexample"]["distance"] == 8 / 256
    assert third["radii"]["ladder"]["upper"] == 8 / 256
    assert content["samples"][1]["radii"]["ladder"]["upper"] is None
    assert any("incomplete" in note for note in content["notes"])


def test_csv_can_be_read_back():
    lines = list(csv.reader(io.StringIO(as_csv(certification()), newline="")))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == 1 + 12 * 3 * 3
    assert lines[1 + 9 * 3][1] == HOSTILE
    assert {len(line) for line in lines} == {len(COLUMNS)}


@pytest.mark.parametrize("count", [1, 12, 1234])
def test_text_is_aligned_and_narrow(count):
    lines = as_text(certification(count)).splitlines()
    table = lines[2 : lines.index("", 2)]
    assert len(table) == 10
    assert len({len(line) for line in table}) == 1
    assert max(map(len, lines)) <= 100
    numbers = [line.split()[-4:-1] for line in table[1:]]
    assert {sum(map(int, row)) for row in numbers} == {count}


def test_text_says_what_smoothing_certifies():
    text = " ".join(as_text(certification(complete=False)).split())
    assert "smoothed classifier, not the network" in text
    assert "1 - alpha (alpha = 0.001) per sample" in text
    assert "incomplete" in text
    plain = as_text(certification(methods=("ibp",)))
    assert "smoothed" not in plain
    assert "incomplete" not in plain


@pytest.mark.parametrize("found", [empty(), empty((), ()), empty(("smoothing",)), empty(eps=())])
def test_nothing_to_tell(found):
    assert json.loads(as_json(found))["clean"]["accuracy"] is None
    assert "clean accuracy - (0 of 0)" in as_text(found)
    assert len(as_csv(found).splitlines()) == 1


def test_headline():
    sentence = headline(certification())
    assert sentence.startswith("By ladder, the network is robust on at least 41.7 % and at most 83.3 %")
    assert "within radius 2/255" in sentence
    assert "at least 0.0 % and at most 66.7 % of samples within radius 8/255" in sentence
    alone = headline(certification(methods=("smoothing",)))
    assert "smoothed classifier is certified" in alone
    assert headline(empty()) == "Nothing was asked."


@pytest.mark.parametrize(
    ("hits", "count", "text"),
    [(0, 0, "-"), (0, 9, "0.0 %"), (9, 9, "100.0 %"), (9999, 10000, "99.9 %"), (1, 10000, "0.1 %")],
)
def test_percent(hits, count, text):
    assert percent(hits, count) == text


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (EPS[2], "8/255"),
        (Fraction(1, 10), "0.1"),
        (Fraction(3, 255), "3/255"),
        (Fraction(1, 7), "1/7"),
        (Fraction(2), "2"),
        (Fraction(0.1), "~0.1"),
        (Fraction(1, 10**12), "1e-12"),
    ],
)
def test_eps_text(eps, text):
    assert eps_text(eps) == text


@pytest.mark.parametrize(
    "value", [0.0, 0.1, 1 / 3, 2 / 3, 9.9999, 1e-9 / 7, 1e9 / 7, 5e-324, 3e-310, 1.7e308]
)
def test_ends_are_rounded_outwards(value):
    low, high = Fraction(lower_text(value)), Fraction(upper_text(value))
    assert low <= Fraction(value) <= high
    assert high - low <= Fraction(value) / 500
    assert upper_text(math.inf) == "unknown"
    assert lower_text(math.nan) == "-"
