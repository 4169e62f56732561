"""Verdicts as text and report: spellings, exact numbers, atomic files."""

import json
import math
import os
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpverify.errors import InputError
from lpverify.io.results import (
    ReportFile,
    Tensor,
    answer_of,
    competition_text,
    exact_decimal,
    report,
    standard_text,
    undecided,
)
from lpverify.proof import Proof
from lpverify.verdict import Progress, Sat, Timeout, Unknown, Unsat, Witness

TENTH = np.float32(0.1)
WITNESS = Witness(
    (Fraction(float(TENTH)), Decimal("-0.30"), 2),
    np.array([TENTH, -0.3, 2.0], np.float32),
    np.array([1e-5, -3.0], np.float32),
)
SHORT = [Tensor("X", "Real", (3,), 0, np.float32), Tensor("Y", "Real", (2,), 3, np.float32)]
SAT = Sat(WITNESS, Progress(3, 2, -0.5, "attack"))


def test_the_first_line():
    progress = Progress(1, 2, -0.25, "branch and bound")
    expected = [
        (SAT, "sat", "sat"),
        (Unsat(Proof(0, (), False)), "unsat", "unsat"),
        (Unknown("why", progress), "unknown", "unknown"),
        (Timeout(progress), "timeout", "timed-out"),
    ]
    for verdict, word, standard in expected:
        answer = answer_of(verdict)
        assert competition_text(answer).splitlines()[0] == word
        assert standard_text(answer, SHORT).splitlines()[0] == standard
        assert standard_text(answer, SHORT, standard_words=False).splitlines()[0] == word
        assert competition_text(answer).count("\n") == (6 if word == "sat" else 1)


def test_competition_assignment_reads_back_exactly():
    text = competition_text(answer_of(SAT))
    pairs = re.findall(r"\((\w+) ([^\s()]+)\)", text)
    assert [name for name, _ in pairs] == ["X_0", "X_1", "X_2", "Y_0", "Y_1"]
    assert [Fraction(value) for _, value in pairs[:3]] == [Fraction(v) for v in WITNESS.x]
    assert [float(value) for _, value in pairs[3:]] == WITNESS.outputs.tolist()
    assert text.startswith("sat\n((X_0 ")
    assert text.endswith("))\n")
    assert "e" not in text.replace("sat", "").lower()


def test_standard_assignment():
    tensors = [Tensor("X", "Real", (1, 3), 0, np.float32), Tensor("Y", "Real", (2,), 3, np.float32)]
    lines = standard_text(answer_of(SAT), tensors).splitlines()
    assert lines[1] == "X Real [1,3]"
    assert lines[2:5] == ["0.100000001490116119384765625", "-0.30", "2"]
    assert lines[5] == "Y Real [2]"
    assert len(lines) == 8


def test_standard_assignment_follows_the_declarations():
    tensors = [
        Tensor("B", "float32", (), 2, np.float32),
        Tensor("U", "int64", (1, 1), 4, np.int64),
        Tensor("A", "float32", (2,), 0, np.float32),
    ]
    lines = standard_text(answer_of(SAT), tensors).splitlines()
    assert lines[:5] == ["sat", "B float32 []", "2", "U int64 [1,1]", "-3"]
    assert lines[5] == "A float32 [2]" and len(lines) == 8


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
def test_floats_expand_exactly(value):
    for number in (value, Fraction(value), Decimal(value)):
        text = exact_decimal(number)
        assert re.fullmatch(r"-?\d+(\.\d+)?", text)
        assert Fraction(text) == Fraction(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_decimals_stay_as_written(value):
    assert Decimal(exact_decimal(value)) == value


@given(st.fractions(max_denominator=10**6))
def test_fractions_are_near_and_float_back(value):
    text = exact_decimal(value)
    assert abs(Fraction(text) - value) <= abs(value) * Fraction(1, 10**48)
    assert float(text) == float(value)


def test_a_fraction_with_thousands_of_digits():
    number = Fraction(1, 2**12000)
    assert Fraction(Decimal(exact_decimal(number))) == number
    assert len(exact_decimal(number)) > 8000


def test_answers_keep_reason_and_progress():
    answer = answer_of(Unknown("rounding", Progress(4, 1, -math.inf, "leaf")))
    assert (answer.verdict, answer.reason, answer.stage) == ("unknown", "rounding", "leaf")
    assert (answer.closed, answer.open, answer.margin) == (4, 1, None)
    assert answer_of(Timeout()).reason
    assert answer_of(Unsat(Proof(0, (), False))).proof_nodes == 0
    assert undecided("timeout", "late", None, "loading").stage == "loading"
    assert undecided("timeout", "late", Progress(stage="attack"), "loading").stage == "attack"


def test_reports_are_added(tmp_path):
    file = ReportFile(str(tmp_path / "r"), several=True)
    for count in (1, 3):
        file.write(*({"verdict": str(i)} for i in range(count)))
    assert json.loads((tmp_path / "r").read_text())["queries"] == [{"verdict": v} for v in "0012"]


def test_report():
    content = report(answer_of(SAT), seed=7)
    text = json.dumps(content, allow_nan=False)
    back = json.loads(text)
    assert (back["schema"], back["verdict"], back["semantics"], back["seed"]) == (1, "sat", "real", 7)
    assert back["reason"] is None
    assert back["subproblems"] == {"closed": 3, "open": 2}
    assert back["margin"] == -0.5
    assert np.array(back["witness"]["inputs"], np.float32).tolist() == WITNESS.inputs.tolist()
    assert back["witness"]["exact_inputs"][1] == "-0.30"
    assert back["witness"]["outputs"] == WITNESS.outputs.tolist()
    assert report(answer_of(Timeout()))["witness"] is None


# --- the file ---


def test_a_report_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "r.json"
    target.write_text("old")
    file = ReportFile(str(target))
    file.check()
    assert target.read_text() == "old"
    file.write({"a": 1})
    assert json.loads(target.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_failed_report_keeps_the_old_one(tmp_path):
    target = tmp_path / "r.json"
    target.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        ReportFile(str(target)).write({"a": math.nan})
    assert target.read_text() == "old"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    ReportFile(str(tmp_path / "link.json")).write({})
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "{}\n"


def test_special_files_are_not_replaced():
    file = ReportFile(os.devnull)
    file.check()
    file.write({"a": 1})
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("name", ["", "missing/r.json", "file/r.json"])
def test_unwritable_paths_are_told_before(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write the report"):
        ReportFile(str(tmp_path / name)).check()
