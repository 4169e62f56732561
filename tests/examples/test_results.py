"""Tables, checks, figure and notebook of the tutorial."""

import csv
import io
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import lpverify
from lpverify.robustness.certification import Certification
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, records_of
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

EPS = (Fraction(1, 100), Fraction(1, 10))
METHODS = ("ibp", "crown", "lp", "ladder", "smoothing")


def study_of(*more, drop=(), data="digits", network="plain", seconds=0.5):
    """Two samples: 0 is proven by all at both radii, 1 attacked from 1/20 on, proven below by all but ibp."""
    from results import Study

    found = [Clean(0, 3, True, 1.0), Clean(1, 4, True, 0.5)]
    for method in METHODS:
        found += [Attempt(0, method, eps, "proven", method, seconds) for eps in EPS]
        found.append(Attempt(1, method, EPS[0], "unknown" if method == "ibp" else "proven", method, seconds))
    found.append(Adversarial(1, np.zeros(4), 5, Fraction(1, 20), "attack"))
    found = [f for f in found if not (isinstance(f, Attempt) and (f.sample, f.method, f.eps) in drop)]
    samples = Samples(np.zeros((2, 4)), np.array([3, 4]), ("0", "1"), (4,))
    records = tuple(records_of(2, [*found, *more]))
    threat = Threat(10, math.inf, (0, 1))
    return Study(data, network, 0.75, Certification(samples, threat, EPS, METHODS, records, {}))


def test_table_has_the_shares():
    from results import table

    text = table(study_of())
    assert "clean accuracy 0.750 on the whole test set, 1.000 on the 2 samples" in text
    assert "| ibp | 0.50 | 0.50 | 0.0500 |" in text
    assert "| lp | 1.00 | 0.50 | 0.0550 |" in text
    assert "| *not attacked* | 1.00 | 0.50 |" in text


def test_csv_has_a_line_for_each_method_and_radius():
    from results import COLUMNS, as_csv

    lines = list(csv.DictReader(io.StringIO(as_csv([study_of(), study_of(network="ibp")]))))
    assert len(lines) == 2 * len(METHODS) * len(EPS)
    assert tuple(lines[0]) == COLUMNS
    first = lines[0]
    assert [first[c] for c in ("method", "eps", "proven", "refuted", "unknown")] == [
        "ibp",
        "1/100",
        "1",
        "0",
        "1",
    ]


def test_checks_pass_where_all_is_well():
    from results import check_attacks, check_inclusions

    assert "ibp => crown => lp => ladder holds for all 4 pairs" in check_inclusions(study_of(), 5.0)
    assert "of 1 counterexamples none" in check_attacks(study_of())


def test_a_broken_chain_is_told_unless_time_ran_out():
    from results import check_inclusions

    drop = {(0, "lp", EPS[1])}
    broken = study_of(drop=drop)
    with pytest.raises(AssertionError, match="sample 0 at eps 1/10 is certified by crown but not by lp"):
        check_inclusions(broken, 5.0)
    late = study_of(Attempt(0, "lp", EPS[1], "unknown", "lp", 4.5), drop=drop)
    assert "1 steps are left out" in check_inclusions(late, 5.0)


def test_a_certified_sample_with_a_counterexample_is_told():
    from results import check_attacks

    attacked = study_of(Adversarial(0, np.zeros(4), 5, EPS[1], "attack"))
    with pytest.raises(
        AssertionError, match="sample 0 is certified at eps 1/10 by ibp but has a counterexample"
    ):
        check_attacks(attacked)
    with pytest.raises(AssertionError, match="misclassified"):
        check_attacks(study_of(Clean(0, 5, False, -1.0)))


def test_what_smoothing_says_is_no_contradiction():
    from results import check_attacks

    check_attacks(study_of(Attempt(1, "smoothing", EPS[1], "proven", "smoothing", 0.1)))


def test_tension_compares_both_networks():
    from results import tension

    (sentence,) = tension([study_of(), study_of(network="ibp")])
    assert sentence.startswith(
        "digits: plain training 0.750 clean and 0.50 certified by ladder at eps 0.1, ibp"
    )


def test_figure_is_drawn_the_same_each_time():
    pytest.importorskip("matplotlib")
    from results import figure

    studies = [study_of(), study_of(network="ibp")]
    first, second = figure(studies), figure(studies)
    assert first["png"].startswith(b"\x89PNG")
    assert b"<svg" in first["svg"]
    assert first["svg"] == second["svg"]


def test_panels_show_the_rows():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure
    from results import draw

    axes = Figure().subplots()
    draw(axes, study_of())
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert list(lines["ibp"]) == [0.5, 0.5]
    assert list(lines["crown"]) == [1.0, 0.5]
    assert list(lines["not attacked (empirical)"]) == [1.0, 0.5]
    assert list(lines["clean"]) == [1.0]


# Notebook


def test_notebook_is_up_to_date(folder):
    import make_notebook

    text = (folder / "tutorial.ipynb").read_text()
    assert text == make_notebook.text_of((folder / "tutorial.py").read_text()), (
        "run examples/make_notebook.py"
    )
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")


def test_cells_by_their_marks():
    from make_notebook import cells

    script = '"""Doc."""\n# %% [markdown]\n# # Title\n#\n# Text\n\n# %%\na = 1\n\n\n'
    script += '# %% active="ipynb"\n# a\n# if a:\n#     b\n# %% active="py"\nmain()\n'
    assert list(cells(script)) == [
        ("markdown", "# Title\n\nText"),
        ("code", "a = 1"),
        ("code", "a\nif a:\n    b"),
    ]
    with pytest.raises(ValueError, match="slides"):
        list(cells("# %% [slides]\n"))


# The tutorial itself

ready = pytest.mark.skipif(not hasattr(lpverify, "certify"), reason="lpverify.certify is missing")


@ready
def test_quick_tutorial(folder, tmp_path):
    for package in ("torch", "sklearn", "matplotlib", "jinja2", "PIL"):
        pytest.importorskip(package)
    command = [
        sys.executable,
        str(folder / "tutorial.py"),
        "--quick",
        "--samples",
        "6",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ibp => crown => lp => ladder holds") == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert {"figure.png", "figure.svg", "table.csv", "digits-plain.onnx", "digits-ibp.html"} <= names


@ready
@pytest.mark.parametrize(
    "arguments", [["--samples", "0"], ["--seed", "-1"], ["--quick", "--data", "mnist"], ["--data", "cifar"]]
)
def test_wrong_arguments_are_told(arguments, capsys):
    pytest.importorskip("torch")
    import tutorial

    with pytest.raises(SystemExit) as stopped:
        tutorial.options(arguments)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err
