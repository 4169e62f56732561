"""Folders of images against the arrays they were made from; what does not fit is refused, never changed."""

import importlib.util
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lpverify.errors import InputError
from lpverify.robustness.data import images
from lpverify.robustness.data.images import Layout, read_images
from lpverify.robustness.data.reading import read_samples
from tests.robustness.test_reading import classifier

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 5, 7), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
LABELS = [0, 2, 2, 10]
PLACES = ["0/b.png", "2/a.png", "2/c.bmp", "10/a.ppm"]


def save(folder, arrays, places=PLACES):
    for array, place in zip(arrays, places, strict=True):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / place)


def refused(message, *args, **options):
    with pytest.raises(InputError) as caught:
        read_images(*args, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 5, 7), (5, 7, 1), (5, 7)])
def test_grey_images(tmp_path, shape):
    save(tmp_path, GREY)
    (tmp_path / ".hidden").touch()
    (tmp_path / "2/.hidden").touch()
    x, y, names = read_images(tmp_path, None, shape)
    assert (x.dtype, y.tolist(), list(names)) == (np.uint8, LABELS, PLACES)
    np.testing.assert_array_equal(x, GREY.reshape(4, *shape))


def test_colours(tmp_path):
    save(tmp_path, COLOURS)
    np.testing.assert_array_equal(read_images(tmp_path, None, (5, 7, 3))[0], COLOURS)
    channels_first = read_images(tmp_path, None, (3, 5, 7))[0]
    np.testing.assert_array_equal(channels_first, np.moveaxis(COLOURS, 3, 1))
    refused("0/b.png: it has colours, and the model's input is grey", tmp_path, None, (1, 5, 7))


def test_grey_images_for_a_model_of_colours(tmp_path):
    save(tmp_path, GREY)
    np.testing.assert_array_equal(read_images(tmp_path, None, (5, 7, 3))[0], GREY[..., None].repeat(3, 3))


def test_flat_squares(tmp_path):
    save(tmp_path, GREY[:, :5, :5])
    np.testing.assert_array_equal(read_images(tmp_path, None, (25,))[0], GREY[:, :5, :5].reshape(4, 25))


@pytest.mark.parametrize("shape", [(26,), (2, 5, 7), (5, 7, 4), (1, 1, 5, 7)])
def test_inputs_that_are_no_images(tmp_path, shape):
    save(tmp_path, GREY)
    refused("is no grey or RGB image", tmp_path, None, shape)


def test_channels_first_where_both_ways_fit():
    assert Layout.of((3, 32, 3)) == Layout(32, 3, 3, True)


def test_jpeg(tmp_path):
    flat = np.full((5, 7, 3), 77, np.uint8)
    save(tmp_path, [flat, flat], ["1/a.jpg", "1/b.JPEG"])
    assert (read_images(tmp_path, None, (3, 5, 7))[0] == 77).all()


def test_table(tmp_path):
    save(tmp_path, GREY, names := ["a.png", "b.png", "sub/c.png", "d.png"])
    for text in (
        "".join(f"{n},{i}\n" for i, n in enumerate(names)),
        "label,x,file\n2,,sub/c.png\n0,,a.png\n",
    ):
        (tmp_path / "labels.csv").write_text(text)
        x, y, found = read_images(tmp_path, None, (5, 7))
        assert [names[i] for i in y] == list(found)
        np.testing.assert_array_equal(x, GREY[y])
    (tmp_path / "other.csv").write_text("file,label\nd.png,3\n")
    x, y, found = read_images(tmp_path, tmp_path / "other.csv", (5, 7))
    assert (y.tolist(), found) == ([3], ("d.png",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no images"),
        ("file,label\n", "no images"),
        ("file,label\na.png\n", "expected file,label in each line, got 'a.png'"),
        ("a.png,1,2\n", "expected file,label in each line"),
        ("a.png,cat\n", "label 'cat' of 'a.png' is no whole number"),
        ("a.png,-1\n", "is no whole number"),
        ("../a.png,1\n", "'../a.png' is no file within the folder"),
        ("/a.png,1\n", "is no file within the folder"),
        (",1\n", "is no file within the folder"),
        ("none.png,1\n", "none.png: No such file"),
        ('"a.png,1\n', "no readable table"),
        (b"\xff,1\n", "no readable table"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    save(tmp_path, GREY, ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(message, tmp_path, None, (5, 7))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a.png", "expected subfolders named 0, 1 ... or a labels.csv, found 'a.png'"),
        ("cat/a.png", "found 'cat'"),
        ("0/notes.txt", "0/notes.txt is no .png, .jpg, .bmp or .ppm file"),
        ("0/more.png/a.png", "0/more.png is no .png"),
    ],
)
def test_unknown_files_are_refused(tmp_path, place, message):
    save(tmp_path, GREY)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(b"")
    refused(message, tmp_path, None, (5, 7))


def test_empty_folder(tmp_path):
    refused("no images", tmp_path, None, (5, 7))
    (tmp_path / "0").mkdir()
    refused("no images", tmp_path, None, (5, 7))


def test_size_is_never_changed(tmp_path):
    save(tmp_path, GREY)
    refused("0/b.png: 7x5 pixels, the model takes 5x7", tmp_path, None, (7, 5))
    refused("0/b.png: 7x5 pixels, the model takes 28x28", tmp_path, None, (784,))


def png(tmp_path, image, **options):
    (tmp_path / "0").mkdir()
    image.save(tmp_path / "0/a.png", **options)


def test_opacity(tmp_path):
    opacity = np.full((5, 7, 1), 255, np.uint8)
    png(tmp_path, Image.fromarray(np.concatenate([COLOURS[0], opacity], axis=2)))
    np.testing.assert_array_equal(read_images(tmp_path, None, (5, 7, 3))[0][0], COLOURS[0])
    opacity[2, 3] = 254
    Image.fromarray(np.concatenate([COLOURS[0], opacity], axis=2)).save(tmp_path / "0/a.png")
    refused("a.png: it has transparent pixels", tmp_path, None, (5, 7, 3))


def test_palettes(tmp_path):
    grey = Image.fromarray(GREY[0])
    png(tmp_path, grey.convert("P"))
    np.testing.assert_array_equal(read_images(tmp_path, None, (5, 7))[0][0], GREY[0])


def test_black_and_white(tmp_path):
    png(tmp_path, Image.fromarray(GREY[0] > 127))
    np.testing.assert_array_equal(read_images(tmp_path, None, (5, 7))[0][0], 255 * (GREY[0] > 127))


def test_deep_pixels(tmp_path):
    png(tmp_path, Image.fromarray(GREY[0].astype(np.uint16) * 257))
    refused("expected grey or RGB pixels of 8 bits", tmp_path, None, (5, 7))
    rows = b"".join(b"\0" + row.tobytes() for row in COLOURS[0].astype(">u2"))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (tmp_path / "0/a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    refused("expected grey or RGB pixels of 8 bits", tmp_path, None, (5, 7, 3))


def test_several_images_in_a_file(tmp_path):
    png(tmp_path, Image.fromarray(GREY[0]), save_all=True, append_images=[Image.fromarray(GREY[1])])
    refused("more than one image", tmp_path, None, (5, 7))


def test_damaged_images(tmp_path):
    png(tmp_path, Image.fromarray(GREY[0]))
    path = tmp_path / "0/a.png"
    whole = path.read_bytes()
    for size in range(len(whole) - 12):  # before the end mark
        path.write_bytes(whole[:size])
        refused("0/a.png: ", tmp_path, None, (5, 7))
    for place in range(41, len(whole) - 12):  # of the pixels
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused("0/a.png: ", tmp_path, None, (5, 7))
    bomb = whole[:16] + struct.pack(">II", 60_000, 60_000) + whole[24:]
    for data in (b"GIF89a" + bytes(40), bomb):
        path.write_bytes(data)
        refused("0/a.png: ", tmp_path, None, (5, 7))


def test_without_pillow(tmp_path, monkeypatch):
    save(tmp_path, GREY)
    monkeypatch.setattr(
        images, "find_spec", lambda name: None if name == "PIL" else importlib.util.find_spec(name)
    )
    refused("pip install 'lpverify[report]'", tmp_path, None, (5, 7))


def test_as_samples(tmp_path):
    save(tmp_path, COLOURS[:3], PLACES[:3])
    found = read_samples(classifier(["N", 3, 5, 7]), tmp_path, divide=255, clip=(0, 1), limit=2)
    expected = np.moveaxis(COLOURS[:2], 3, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(found.x, expected.reshape(2, -1).astype(np.float64))
    assert (found.y.tolist(), found.names, found.shape) == ([0, 2], tuple(PLACES[:2]), (3, 5, 7))
    with pytest.raises(InputError, match="the label of sample 3, 10, is no class"):
        save(tmp_path, COLOURS)
        read_samples(classifier(["N", 3, 5, 7]), tmp_path)
