"""The report in headless Chromium: images decode, nothing overflows, nothing is fetched, no complaints."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from robustness.certifications import certification

from lpverify.robustness.report.html import write_report

for module in ("matplotlib", "jinja2", "PIL"):
    pytest.importorskip(module)

BROWSERS = [p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))]
pytestmark = pytest.mark.skipif(not BROWSERS, reason="no Chromium on PATH")
PROBE = """<script>addEventListener("load", () => {
const page = document.documentElement, out = document.createElement("pre");
out.id = "probe";
out.textContent = JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight]),
  width: page.scrollWidth, window: page.clientWidth, title: document.title,
  fetched: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"))});
document.body.append(out); });</script>"""


def browse(folder, *options):
    command = [
        *(BROWSERS[0], "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *options),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("shape", [(3, 16, 16), (30,)])
def test_page_in_a_browser(tmp_path, shape):
    write_report(certification(24, shape, complete=False), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace(
        "</head>", PROBE + "</head>"
    )
    assert probed.count(PROBE) == 1
    (tmp_path / "p.html").write_text(probed, "utf-8")
    done = browse(tmp_path, "--window-size=1000,900", "--dump-dom", (tmp_path / "p.html").as_uri())
    seen = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1]))
    assert len(seen["images"]) > 10
    assert all(whole and width > 0 and height > 0 for whole, width, height in seen["images"])
    assert seen["window"] <= 1000
    assert seen["width"] <= seen["window"]
    assert "incomplete" in seen["title"]
    assert seen["fetched"] == []
    assert "CONSOLE" not in done.stderr


def test_page_as_it_is_can_be_shown(tmp_path):
    write_report(certification(12), tmp_path / "r.html")
    shot = tmp_path / "shot.png"
    done = browse(tmp_path, "--window-size=1000,3000", f"--screenshot={shot}", (tmp_path / "r.html").as_uri())
    assert "CONSOLE" not in done.stderr  # where a policy that is violated would be reported
    from PIL import Image

    with Image.open(shot) as image:
        assert len(image.convert("RGB").resize((200, 600)).getcolors(200 * 600)) > 50
