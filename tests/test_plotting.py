"""Plots: a picture comes out, of any widths. The tests that draw need matplotlib."""

import math

import pytest

from lpverify import plotting
from lpverify.errors import InputError
from lpverify.plotting import require_matplotlib, widths_png

PNG = b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    for draw in (require_matplotlib, lambda: widths_png(["input"], {"ibp": [1.0]})):
        with pytest.raises(InputError, match=r"pip install 'lpverify\[plot\]'"):
            draw()


@pytest.mark.parametrize(
    ("layers", "widths"),
    [
        (["0 input", "1 Relu", "2 Linear"], {"ibp": [0.1, 2.0, 30.0], "crown": [0.1, 1.0, 3.0]}),
        (["0 input"], {"ibp": [0.0]}),
        (["0 input", "1 Exp"], {"ibp": [0.0, math.inf], "crown": [1e-300, 1e300]}),
        ([f"{i} Relu" for i in range(200)], {"ibp": [float(i) for i in range(200)]}),
    ],
)
def test_any_widths_give_a_picture(layers, widths):
    pytest.importorskip("matplotlib")
    assert widths_png(layers, widths).startswith(PNG)
