"""Pictures as addresses of images, and large ones scaled down."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

#: Images by the first bytes of their content; an SVG has no such bytes, and is inert as an image.
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
#: Pictures that are scaled down, and the pixels that one may have: its content says so before it is decoded.
_SCALED, _MOST_PIXELS = ("PNG", "JPEG"), 25_000_000
#: The longest side of a scaled picture in pixels: the first with which it is small enough.
_SIDES = (1400, 900, 600)
_QUALITY = 82
#: The bytes per pixel of a PNG that has more than lines and areas of one colour.
_BUSY = 0.5


class Scaled(NamedTuple):
    """A picture that was scaled down.

    Attributes:
        address: of the image.
        width, height: of the original, in pixels.
    """

    address: str
    width: int
    height: int


def address_of(content: bytes, suffix: str) -> str | None:
    """A picture as the address of an image; None if its content is none.

    Args:
        content: of the file.
        suffix: that of the file's name.
    """
    if suffix == ".svg":
        kind: str | None = "image/svg+xml" if b"<svg" in content[:2000] else None
    else:
        kind = next((name for start, name in _IMAGES.items() if content.startswith(start)), None)
    return None if kind is None else _address(kind, content)


def scaled(content: bytes, largest: int) -> Scaled | None:
    """A PNG or JPEG picture with fewer pixels; None if it cannot be made so small, or without Pillow.

    Args:
        content: of the file.
        largest: how many bytes the result may have.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=_SCALED) as picture:
            width, height = picture.size
            if width * height > _MOST_PIXELS:
                return None
            picture.draft("RGB", (_SIDES[0], _SIDES[0]))  # A JPEG is decoded to this size at once.
            if picture.mode in ("RGB", "RGBA", "L"):  # First of all fewer pixels: each step copies the picture.
                picture.thumbnail((_SIDES[0], _SIDES[0]), reducing_gap=2.0)
            upright = ImageOps.exif_transpose(picture)
            found = upright.convert("RGBA" if upright.mode in ("P", "PA", "LA", "RGBA") else "RGB")
        # Photographs and noise: as PNG they would take long, and be too large.
        is_busy = content.startswith(b"\xff\xd8\xff") or len(content) > _BUSY * width * height
        for side in _SIDES:
            found.thumbnail((side, side), reducing_gap=2.0)
            for kind in ("image/jpeg",) if is_busy else ("image/png", "image/jpeg"):
                small = _encoded(found, kind)
                if len(small) <= largest:
                    return Scaled(_address(kind, small), width, height)
    # Whatever a damaged file makes of Pillow: it has errors of its own, and lets those of its decoders through.
    except Exception:
        return None
    return None


def _encoded(picture: Image, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "image/png":
        picture.save(file, "PNG")
        return file.getvalue()
    if picture.mode == "RGBA":
        from PIL import Image

        opaque = Image.new("RGB", picture.size, "white")
        opaque.paste(picture, mask=picture.getchannel("A"))
        picture = opaque
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
