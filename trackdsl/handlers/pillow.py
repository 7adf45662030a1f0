"""PIL images → `.png`, or another format of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import by, one_line
from trackdsl.handlers._handler import Handler, Scalar

#: What PNG holds without a loss, see Pillow's list of modes by format.
_MODES = frozenset(["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
#: What becomes another mode by Pillow's own conversion.
_CONVERTED = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip


class _Image(Handler):
    suffix = ".png"
    suffixes = tuple(_FORMATS)[1:]

    def summary(self, value: Any) -> Scalar:
        return one_line(f"Image {value.mode} {by(value.width, value.height)}")

    def write(self, value: Any, path: Path) -> None:
        """Write the image in the colours that the format has; brightness beyond 16 bits is rescaled to 8."""
        with open(path, "xb") as file:
            save_image(value, file, _FORMATS[path.suffix])

    def read(self, path: Path) -> Any:
        return read_image(path)


def save_image(image: Any, file: Any, kind: str) -> None:
    """Save an image in a format of Pillow's; where that has no such colours, in those that it has.

    Raises:
        Exception: it cannot be saved.
    """
    # A copy, since saving leaves notes on the image.
    picture = image.copy() if kind == "TIFF" else in_colors_of_png(image)
    if kind == "JPEG" and picture.mode not in ("L", "RGB"):
        picture = in_eight_bits(picture)
    try:
        picture.save(file, format=kind)
    except (OSError, ValueError, KeyError):  # No such colours.
        file.seek(0)
        file.truncate()
        in_eight_bits(in_colors_of_png(picture)).save(file, format=kind)


def in_colors_of_png(image: Any) -> Any:
    """A copy of an image in a mode that PNG has. Numbers that are no such brightness are rescaled."""
    mode = image.mode
    if mode in _MODES:
        return image.copy()
    if mode in _CONVERTED:
        return image.convert(_CONVERTED[mode])
    if mode == "LAB":
        from PIL import ImageCms

        way = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, way)
    if mode == "F":
        import numpy as np
        from PIL import Image

        return Image.fromarray(levels_of_floats(np.asarray(image)))
    if mode.startswith("I"):
        whole = image.convert("I")
        low, high = whole.getextrema()
        if low < 0 or high > 65535:
            scale = 255 / ((high - low) or 1)
            return whole.convert("F").point(lambda level: level * scale + -low * scale).convert("L")
        return whole.convert("I;16" if high > 255 or mode != "I" else "L")
    return image.convert("RGB")


def in_eight_bits(image: Any) -> Any:
    """An image as red, green and blue, or as grey where it has more than 8 bits of that."""
    if image.mode == "I;16":
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    return image.convert("RGB")


def levels_of_floats(array: Any) -> Any:
    """Numbers as brightness from 0 to 255.

    Those up to 1, or up to 255, are what they are; others are stretched from the least to the greatest, as
    `mlflow.log_image` does it.
    """
    import numpy as np

    finite = array[np.isfinite(array)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    array = np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low)
    # Whole numbers were bytes once; numbers a little above 1 come of smoothing.
    if low >= 0 and 1 < high <= 255 and (high > 127 or (array == np.rint(array)).all()):
        return np.rint(array).astype(np.uint8)
    if low < 0 or high > 1:
        array = (array - low) / ((high - low) or 1.0)
    return (array * 255).astype(np.uint8)


def format_of(path: Path) -> str | None:
    """Pillow's name of the format of a file; None for one that it does not write."""
    from PIL import Image

    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    other = Image.registered_extensions().get(suffix)
    return other if other in Image.SAVE else None


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
