"""PIL images → `.png`, or another format of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import by, one_line
from trackdsl.handlers._registry import Handler, Scalar

#: What PNG holds without a loss, see Pillow's list of modes by format.
_MODES = frozenset(["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip


class _Image(Handler):
    suffix = ".png"
    suffixes = tuple(_FORMATS)[1:]

    def accepts(self, value: Any) -> bool:
        return value.mode in _MODES

    def summary(self, value: Any) -> Scalar:
        return one_line(f"Image {value.mode} {by(value.width, value.height)}")

    def write(self, value: Any, path: Path) -> None:
        # A copy, since saving leaves notes on the image.
        lossy = _FORMATS[path.suffix] == "JPEG" and value.mode not in ("L", "RGB")
        image = value.convert("RGB") if lossy else value.copy()
        with open(path, "xb") as file:
            image.save(file, format=_FORMATS[path.suffix])

    def read(self, path: Path) -> Any:
        return read_image(path)


def read_image(path: Path) -> Any:
    """The image in a file, all of it, and nothing left open.

    Raises:
        Exception: it is cut off, of no known format, or larger than Pillow takes to be safe.
    """
    from PIL import Image

    # Only these: some others are programs that Pillow has another program run.
    with Image.open(path, formats=sorted(set(_FORMATS.values()))) as image:
        image.load()
        return image.copy()


handler = _Image()
