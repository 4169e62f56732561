"""The HTML report: what it says, what is escaped, files, figures, pictures."""

import base64
import io
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from robustness.certifications import EPS, HOSTILE, certification, empty

from lpverify.errors import InputError
from lpverify.robustness.report import charts
from lpverify.robustness.report.charts import certified_hits, curve_svg, empirical_hits, histogram_svg
from lpverify.robustness.report.html import ATTACKED, UNKNOWN, flat, hardest, report_html, write_report
from lpverify.robustness.report.pictures import Painter

for module in ("matplotlib", "jinja2", "PIL"):
    pytest.importorskip(module)

VOID = {"meta", "img", "col", "br", "link"}


class Page(HTMLParser):
    """Tags, attributes and text; checks that tags are nested."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_page_is_whole_and_needs_nothing_else():
    page = Page(report_html(certification()))
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("a")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.all("img"))
    assert all(th["scope"] in ("row", "col") for th in page.all("th"))
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert len(page.all("table")) == 3 + 1 + 2
    for src in (image["src"] for image in page.all("img")):
        assert b"http" not in base64.b64decode(src.split(",")[1]).replace(b"http://www.w3.org/", b"")


def test_untrusted_text_is_escaped():
    found = certification(methods=("ibp", "<b>bold", "smoothing"), settings={HOSTILE: {"path": HOSTILE}})
    text = report_html(found)
    assert "<script" not in text
    assert "<b>" not in text
    page = Page(text)
    assert page.text.count(HOSTILE) >= 4  # the sample, its attack, a key and a value
    assert "<b>bold" in page.text


def test_what_must_be_said():
    page = Page(report_html(certification(complete=False)))
    text = " ".join(page.text.split())
    assert "certifies the smoothed classifier, not the network" in text
    assert "probability at least 1 - alpha (alpha = 0.001) per sample" in text
    assert "incomplete" in text
    assert {"id": "incomplete", "class": "warning"} in page.all("p")
    plain = Page(report_html(certification(methods=("ibp",)))).text
    assert "smoothed" not in plain
    assert "ncomplete" not in plain
    assert "smoothing.sigma" in plain
    assert certification().samples.fingerprint in plain


@pytest.mark.parametrize(
    "found", [empty(), empty((), ()), empty(("smoothing",)), empty(eps=()), certification(1, (1,), norm=2)]
)
def test_hardly_anything_to_tell(found):
    Page(report_html(found))


def test_figures_repeat_and_leave_matplotlib_alone():
    import matplotlib

    before, found = dict(matplotlib.rcParams), certification()
    assert report_html(found) == report_html(certification())
    assert dict(matplotlib.rcParams) == before
    assert curve_svg(found).startswith("<svg")
    assert "<metadata" not in histogram_svg(found)


@pytest.mark.parametrize("method", ["$\\frac$", "_hidden", "日本", "a" * 200])
def test_any_name_can_be_drawn(method):
    report_html(certification(methods=(method,)))


@pytest.mark.parametrize("eps", [EPS, (Fraction(26, 256), Fraction(29, 256), Fraction(32, 256))])
def test_curves_agree_with_the_rows(eps):
    found = certification(40, eps=eps)  # the second time radii are the distances of counterexamples
    for row in found.rows():
        eps = np.array([float(row.eps)])
        assert certified_hits(found.radii(row.method), eps) == row.proven
        if row.method != "smoothing":
            assert empirical_hits(found.radii(row.method), eps) == row.count - row.refuted


@pytest.mark.parametrize("order", [1, -1])
def test_hardest_samples(order):
    found = certification(40)
    found = replace(found, records=found.records[::order])
    groups = dict(hardest(found))
    distances = [found.records[i].nearest.distance for i in groups[ATTACKED]]
    everywhere = [r.nearest.distance for r in found.records if r.nearest is not None]
    assert distances == sorted(everywhere)[:8]
    leads = [found.records[i].clean.margin for i in groups[UNKNOWN]]
    assert leads == sorted(leads)
    assert not set(groups[ATTACKED]) & set(groups[UNKNOWN])
    assert all(found.records[i].clean.correct for i in groups[ATTACKED] + groups[UNKNOWN])
    assert all(found.verdict(i, "ladder", found.eps[0]) == "unknown" for i in groups[UNKNOWN])


def _pixels(picture):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture.png)))


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((1, 4, 5), (4, 5)),
        ((4, 5), (4, 5)),
        ((3, 4, 5), (4, 5, 3)),
        ((4, 5, 3), (4, 5, 3)),
        ((4, 5, 1), (4, 5)),
        ((16,), (4, 4)),
        ((1, 600, 400), (200, 134)),
        ((30,), (64, 240, 3)),
        ((1000,), (64, 256, 3)),
        ((2, 3, 5), (64, 240, 3)),
    ],
)
def test_shapes_of_pictures(shape, pixels):
    x = np.linspace(0, 1, int(np.prod(shape)))
    picture = Painter(shape, 0.0, 1.0).sample(x)
    assert _pixels(picture).shape == pixels
    assert (picture.height, picture.width) == pixels[:2]
    assert picture.strip == (pixels[0] == 64)


def test_pixels_are_the_sample():
    x = np.arange(60) / 59
    shown = _pixels(Painter((3, 4, 5), 0.0, 1.0).sample(x))
    assert (shown == np.rint(255 * x.reshape(3, 4, 5).transpose(1, 2, 0))).all()
    change, largest = Painter((4, 5), 0.0, 1.0).difference(np.zeros(20), np.eye(4, 5).reshape(-1) / -64)
    assert largest == 1 / 64
    assert (_pixels(change) == np.where(np.eye(4, 5) == 1, 0, 128)).all()


def test_bars_have_the_height_of_the_value():
    shown = _pixels(Painter((3,), 0.0, 4.0).sample(np.array([0.0, 1.0, 4.0])))
    filled = (shown != 255).any(axis=2).sum(axis=0)
    assert filled[[0, 100, -1]].tolist() == [0, 16, 64]


def test_huge_numbers_can_be_drawn():
    painter = Painter((2,), -1.7e308, 1.7e308)
    painter.sample(np.array([-1.7e308, 1.7e308]))
    painter.difference(np.array([-1.7e308, 0.0]), np.array([1.7e308, 0.0]))


def test_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setattr("lpverify.robustness.report.html.report_html", lambda found: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(certification(), path)
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_report(certification(2), path)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(InputError, match="can't write the report"):
        write_report(certification(2), tmp_path / "missing" / "r.html")


def test_missing_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(charts, "find_spec", lambda name: None if name == "PIL" else object())
    with pytest.raises(InputError, match=r"reports need Pillow; .* pip install 'lpverify\[report\]'"):
        write_report(certification(2), tmp_path / "r.html")


def test_settings_are_flattened():
    settings = {"a": {"b": 1, "c": [1, "x"]}, "d": None, "e": "text", "f": {}}
    assert list(flat(settings)) == [
        ("a.b", "1"),
        ("a.c", '[1, "x"]'),
        ("d", "null"),
        ("e", "text"),
        ("f", "{}"),
    ]


def test_template_is_package_data():
    assert files("lpverify.robustness.report").joinpath("report.html.j2").is_file()
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert re.search(r'wheel\.packages = \["lpverify"\]', project.read_text())
