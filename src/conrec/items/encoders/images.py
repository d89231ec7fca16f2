"""One image, from wherever it is, as RGB: read under limits, or refused by name. Never trusted, never fatal.

A refusal is an `ImageError` with one of `REASONS`; whoever encodes a catalogue counts them and goes on without the
image. Nothing is unpacked before its size in bytes and its pixels are known to be within the limits, only plain image
formats are tried (of those that Pillow knows, some start other programs), and what is drawn is what a viewer shows:
upright, on white, the first picture of an animation.
"""

from __future__ import annotations

import base64
import io
import os
import re
import stat
import struct
import urllib.parse
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conrec.config import ImageConfig
from conrec.errors import DataError
from conrec.items.encoders.addresses import AddressError, fetch_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LARGEST_SIDE", "REASONS", "ImageError", "decode_image", "image_bytes", "read_image"]

REASONS = (
    "no image",
    "missing file",
    "not a file",
    "unreadable file",
    "unreadable address",
    "addresses are off",
    "address of another kind",
    "damaged data URI",
    "too many bytes",
    "empty",
    "not an image",
    "too many pixels",
    "too narrow",
    "truncated",
    "damaged",
)
"""Why an image was not read."""
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LARGEST_SIDE = 2048
"""Larger images are scaled down to it: encoders look at a few hundred pixels, and a batch must fit into memory."""
NARROWEST = 20
"""A side may be so many times the other: encoders scale the shorter one, and the longer would grow with it."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class ImageError(DataError):
    """An image that is not read.

    Attributes:
        reason: one of `REASONS`.
    """

    def __init__(self, reason: str, detail: str = "", *, where: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason, where=where or "image")
        self.reason = reason


def read_image(source: str | bytes | Path, config: ImageConfig) -> Image:
    """One image as RGB.

    Args:
        source: a path (a relative one is below ``config.folder``), an http or https address, a data URI, or the
            bytes of an image file.
        config: folder, whether addresses are fetched, limits.

    Returns:
        A PIL image of mode RGB, sides at most `LARGEST_SIDE`.

    Raises:
        ImageError: it is missing, too large, or no image that can be read whole.
    """
    return decode_image(image_bytes(source, config), config, where=_shown(source))


def image_bytes(source: str | bytes | Path, config: ImageConfig) -> bytes:
    """The file behind ``source``, at most ``config.max_bytes`` of it; arguments and errors as for `read_image`."""
    where = _shown(source)
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, Path):
        data = _file(source, config, where)
    elif not source.strip():
        raise ImageError("no image", where=where)
    elif source[:5].lower() == "data:":
        data = _data_uri(source, config, where)
    elif scheme := _SCHEME.match(source):
        data = _address(source, scheme[1].lower(), config, where)
    else:
        data = _file(Path(source), config, where)
    if len(data) > config.max_bytes:
        raise ImageError("too many bytes", f"more than {config.max_bytes:,}", where=where)
    if not data:
        raise ImageError("empty", "no bytes", where=where)
    return data


def decode_image(data: bytes, config: ImageConfig, where: str = "image") -> Image:
    """The image that a file's bytes hold; result and errors as for `read_image`."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - comes with an extra

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=[one for one in FORMATS if one in _known()]) as opened:
                _check_size(opened.size, config, where)
                # JPEG alone can be unpacked at a fraction of its size.
                opened.draft(None, (LARGEST_SIDE, LARGEST_SIDE))
                opened.load()
                picture = _rgb(_upright(opened))
                picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                return picture
        except ImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError("too many pixels", _line(error), where=where) from None
        except UnidentifiedImageError:
            raise ImageError("not an image", f"begins with {data[:8]!r}", where=where) from None
        except (EOFError, struct.error, zlib.error) as error:
            raise ImageError("truncated", _line(error), where=where) from None
        except Exception as error:  # each of Pillow's formats raises errors of its own
            reason = "truncated" if "truncated" in str(error).lower() else "damaged"
            raise ImageError(reason, _line(error), where=where) from None


def _known() -> set[str]:
    """Formats that this build of Pillow reads."""
    from PIL import Image  # noqa: PLC0415

    Image.init()
    return set(Image.OPEN)


def _check_size(size: tuple[int, int], config: ImageConfig, where: str) -> None:
    width, height = size
    shown = f"{width} × {height}"
    if min(size) < 1:
        raise ImageError("empty", shown, where=where)
    if width * height > config.max_pixels:
        raise ImageError("too many pixels", shown, where=where)
    if max(size) > NARROWEST * min(size):
        raise ImageError("too narrow", shown, where=where)


def _upright(picture: Image) -> Image:
    """Turned as its EXIF data says; as it is where they cannot be read."""
    from PIL import ImageOps  # noqa: PLC0415

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken note beside an image that was read whole
        return picture


def _rgb(picture: Image) -> Image:
    """RGB from any mode; what is transparent lies on white, and 16 bits keep their upper 8."""
    from PIL import Image  # noqa: PLC0415

    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):  # numbers without a fixed range: from the smallest, black, to the largest, white
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        grey = ((values - low) * (255 / (high - low) if high > low else 0.0)).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return picture.convert("RGB")


def _file(path: Path, config: ImageConfig, where: str) -> bytes:
    path = (config.folder / path) if config.folder is not None else path
    try:
        # Looked at before it is opened: opening a pipe waits for a writer that may never come.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a file", "a folder" if path.is_dir() else "a device", where=where)
        if found.st_size > config.max_bytes:
            raise ImageError("too many bytes", f"{found.st_size:,}", where=where)
        with path.open("rb") as handle:
            return handle.read(config.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing file", os.fspath(path), where=where) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageError("unreadable file", _line(error), where=where) from None


def _data_uri(source: str, config: ImageConfig, where: str) -> bytes:
    head, comma, body = source.partition(",")
    if not comma:
        raise ImageError("damaged data URI", "has no comma", where=where)
    if len(body) > 3 * config.max_bytes:  # the longest form, %41, has three characters a byte
        raise ImageError("too many bytes", f"{len(body):,} characters", where=where)
    data = urllib.parse.unquote_to_bytes(body)
    if not head.lower().rstrip().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data)
    except ValueError as error:
        raise ImageError("damaged data URI", _line(error), where=where) from None


def _address(source: str, scheme: str, config: ImageConfig, where: str) -> bytes:
    if scheme not in ("http", "https"):
        raise ImageError("address of another kind", scheme, where=where)
    if not config.addresses:
        raise ImageError("addresses are off", "encoder.image.addresses", where=where)
    try:
        return fetch_bytes(source, config.max_bytes, config.timeout_seconds, private=config.private_addresses)
    except AddressError as error:
        raise ImageError("unreadable address", str(error), where=where) from None


def _shown(source: str | bytes | Path) -> str:
    """A source in a line of an error."""
    text = f"{len(source):,} bytes" if isinstance(source, bytes) else str(source)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
