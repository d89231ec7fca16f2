"""Images of every kind that catalogues hold, and of every kind that they should not."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from conrec.config import ImageConfig
from conrec.items.encoders.images import FORMATS, LARGEST_SIDE, REASONS, ImageError, image_bytes, read_image
from tests.items.encoders.small_models import file_of, picture

PNG = file_of(picture(1))
CONFIG = ImageConfig()


def refused(source: str | bytes | Path, config: ImageConfig = CONFIG) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, config)
    assert caught.value.reason in REASONS
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


def test_one_picture_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(PNG)
    config = ImageConfig(folder=tmp_path)
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    escaped = "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG)
    sources = [PNG, tmp_path / "a b.png", str(tmp_path / "a b.png"), "a b.png", Path("a b.png"), uri, escaped]
    for source in sources:
        found = read_image(source, config)
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), np.asarray(picture(1)))
        assert image_bytes(source, config) == PNG


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind: str) -> None:
    image = picture(2)
    found = read_image(
        file_of(image, kind, **({"quality": 95} if kind in ("JPEG", "MPO", "WEBP", "AVIF") else {})), CONFIG
    )
    assert (found.mode, found.size) == ("RGB", image.size)
    assert np.abs(np.asarray(found, dtype=float) - np.asarray(image)).mean() < 25


def test_formats_that_are_not_tried(tmp_path: Path) -> None:
    """PostScript would start another program."""
    assert refused(file_of(picture(1), "EPS")) == "not an image"
    assert refused(file_of(picture(1), "PPM")) == "not an image"
    assert refused(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "not an image"
    assert refused(b"<html>404</html>") == "not an image"


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_modes_show_what_a_viewer_shows(mode: str) -> None:
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    grey = Image.new("L", (20, 20), 255)
    grey.paste(0, (0, 0, 10, 20))
    image = grey.convert("RGBA").convert(mode) if mode in ("LA", "RGBA") else grey.convert("RGB").convert(mode)
    found = np.asarray(read_image(file_of(image, kind), CONFIG))
    assert found.shape == (20, 20, 3)
    assert found[:, :8].max() < 30
    assert found[:, 12:].min() > 225


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 5, 10))
    found = np.asarray(read_image(file_of(image), CONFIG))
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[0, 9].tolist() == [255, 255, 255]
    palette = image.convert("RGB").convert("P")
    hidden = palette.getpixel((9, 0))
    found = np.asarray(read_image(file_of(palette, "PNG", transparency=hidden), CONFIG))
    assert found[0, 9].tolist() == [255, 255, 255]


def test_sixteen_bits_and_floats_keep_their_range() -> None:
    ramp = np.linspace(0, 65535, 400).reshape(20, 20)
    sixteen = read_image(file_of(Image.fromarray(ramp.astype(np.uint16))), CONFIG)
    floating = read_image(file_of(Image.fromarray((ramp / 7 - 3).astype(np.float32)), "TIFF"), CONFIG)
    for found in (sixteen, floating):
        grey = np.asarray(found)[:, :, 0].astype(int).ravel()
        assert (grey[0], grey[-1]) == (0, 255)
        assert np.abs(grey - ramp.ravel() / 257).max() <= 1
    holes = np.full((8, 8), np.nan, dtype=np.float32)
    assert np.asarray(read_image(file_of(Image.fromarray(holes), "TIFF"), CONFIG)).max() == 0


def test_the_first_picture_of_an_animation() -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        assert np.asarray(read_image(data, CONFIG)).reshape(-1, 3).mean(0) == pytest.approx([255, 0, 0], abs=6)


def test_turned_as_its_camera_says() -> None:
    image, exif = picture(3), Image.Exif()
    exif[0x0112] = 6
    found = read_image(file_of(image, "PNG", exif=exif), CONFIG)
    assert found.size == image.size[::-1]
    assert np.array_equal(np.asarray(found), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_large_ones_are_scaled_down() -> None:
    found = read_image(file_of(picture(4, (3 * LARGEST_SIDE, 600)), "JPEG"), CONFIG)
    assert found.size == (LARGEST_SIDE, 200)


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    small = ImageConfig(max_bytes=len(PNG) - 1, folder=tmp_path)
    uri = "data:;base64," + base64.b64encode(PNG).decode()
    assert [refused(source, small) for source in (PNG, "a.png", uri)] == ["too many bytes"] * 3
    assert refused("data:," + "a" * 400, ImageConfig(max_bytes=100)) == "too many bytes"
    assert refused(PNG, ImageConfig(max_pixels=40 * 60 - 1)) == "too many pixels"
    read_image(PNG, ImageConfig(max_bytes=len(PNG), max_pixels=40 * 60))
    # A side that grows to hundreds of thousands when an encoder scales the other one.
    assert refused(file_of(Image.new("RGB", (2001, 100)))) == "too narrow"
    read_image(file_of(Image.new("RGB", (2000, 100))), CONFIG)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was unpacked"))
    assert refused(bomb(10_000, 10_000)) == "too many pixels"
    # Beyond what Pillow warns of, and beyond what it takes at all; the limit here is larger than both.
    generous = ImageConfig(max_pixels=10**12)
    assert refused(bomb(10_000, 10_000), generous) == "too many pixels"
    assert refused(bomb(100_000, 100_000), generous) == "too many pixels"


def test_a_text_that_unpacks_to_gigabytes_is_damage() -> None:
    head, end = PNG[:33], PNG[33:]
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 100_000_000))
    assert refused(head + text + end) in ("damaged", "truncated", "not an image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_half_a_file(kind: str) -> None:
    data = file_of(picture(5, (200, 200)), kind)
    for share in (0.98, 0.5, 0.1):
        assert refused(data[: int(len(data) * share)]) in ("truncated", "damaged", "not an image")
    assert refused(file_of(picture(5, (200, 200)), "JPEG")[:3000]) == "truncated"


def test_files_that_are_none(tmp_path: Path) -> None:
    config = ImageConfig(folder=tmp_path)
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.jpg").write_text("not a picture at all")
    (tmp_path / "to_nothing.png").symlink_to("nowhere.png")
    expected = {
        "missing.png": "missing file",
        "text.jpg/x.png": "missing file",
        "to_nothing.png": "missing file",
        "empty.png": "empty",
        "folder.png": "not a file",
        "pipe.png": "not a file",
        "/dev/zero": "not a file",
        "text.jpg": "not an image",
        "a\0b.png": "unreadable file",
        "x" * 5000: "unreadable file",
        "": "no image",
        "  ": "no image",
    }
    assert {source: refused(source, config) for source in expected} == expected
    assert refused(b"") == "empty"
    assert refused(bomb(0, 5)) in ("empty", "damaged", "not an image")


def test_addresses_and_data_uris_that_are_none() -> None:
    expected = {
        "http://example.org/a.png": "addresses are off",
        "ftp://example.org/a.png": "address of another kind",
        "file:///etc/hostname": "address of another kind",
        "data:image/png;base64": "damaged data URI",
        "data:image/png;base64,AAA": "damaged data URI",
        "data:,": "empty",
        "data:,hello": "not an image",
    }
    assert {source: refused(source) for source in expected} == expected


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)

    def forbidden(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert refused(tmp_path / "a.png") == "unreadable file"


WHOLE = [file_of(picture(6), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]


@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
    front=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=6),
    end=st.floats(0.02, 1),
)
def test_whatever_a_file_holds_it_is_an_image_or_refused_by_name(
    data: bytes, changes: list[tuple[float, int]], front: list[tuple[int, int]], end: float
) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(mutated))] = value
    for place, value in front:
        mutated[place] = value
    found = picture_or_reason(bytes(mutated[: max(1, int(end * len(mutated)))]))
    if isinstance(found, str):
        assert found in REASONS
    else:
        assert found.mode == "RGB"
        assert 1 <= min(found.size) <= max(found.size) <= LARGEST_SIDE
        assert np.asarray(found).shape == (*found.size[::-1], 3)


def picture_or_reason(data: bytes) -> Image.Image | str:
    try:
        return read_image(data, ImageConfig(max_pixels=10**6))
    except ImageError as error:
        return error.reason
