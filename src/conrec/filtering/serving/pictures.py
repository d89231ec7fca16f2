"""Pictures of items for the page: files that the item table names, as they are. Nothing is decoded or fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conrec.config import ImageConfig
from conrec.items.encoders.images import ImageError, image_bytes

__all__ = ["MAX_BYTES", "Picture", "is_there", "kind_of", "read_picture"]

MAX_BYTES = 4_000_000
"""Larger files are not shown: a page has dozens."""
_HEAD = 16
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file.

    Attributes:
        kind: its media type, by its first bytes.
        data: the file.
    """

    kind: str
    data: bytes


def kind_of(data: bytes) -> str | None:
    """Media type of an image file by its first bytes; None for all that browsers might run or that is no picture.

    >>> kind_of(bytes.fromhex("89504e470d0a1a0a") + b"...")
    'image/png'
    >>> kind_of(b"<svg onload='alert(1)'>") is None
    True
    """
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "image/avif"
    return None


def is_there(image: str | None, folder: Path | None) -> bool:
    """Whether `read_picture` may find a picture, from the first bytes of its file alone.

    Args:
        image, folder: as for `read_picture`.
    """
    text = (image or "").strip()
    if not text or "://" in text:
        return False
    if text[:5].lower() == "data:":
        return True
    path = Path(text) if folder is None else folder / text
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as handle:
            return kind_of(handle.read(_HEAD)) is not None
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


def read_picture(image: str | None, folder: Path | None) -> Picture | None:
    """The picture that an item table names; None where there is none, or not one that can be shown.

    Args:
        image: a path, a data URI or an address (which is not fetched); None: none.
        folder: where relative paths begin; None: the working folder.
    """
    config = ImageConfig(folder=folder, addresses=False, max_bytes=MAX_BYTES)
    try:
        data = image_bytes(image or "", config)
    except ImageError:
        return None
    kind = kind_of(data)
    return None if kind is None else Picture(kind, data)
