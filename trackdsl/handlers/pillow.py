"""PIL images → `.png`, or another image format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import by, one_line
from trackdsl.handlers._handler import Handler, Scalar

#: Modes that PNG holds without loss, see Pillow's list of modes by format.
_MODES = frozenset(["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
#: Modes that Pillow converts to one of those.
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
        """Write the image in a mode of the format. Brightness of more than 16 bits is rescaled to 8 bits."""
        with open(path, "xb") as file:
            save_image(value, file, _FORMATS[path.suffix])

    def read(self, path: Path) -> Any:
        return read_image(path)


def save_image(image: Any, file: Any, kind: str) -> None:
    """Save an image in a format of Pillow, converted to a mode of that format if necessary.

    Raises:
        Exception: the image cannot be saved.
    """
    # A copy, because saving changes attributes of the image.
    picture = image.copy() if kind == "TIFF" else in_colors_of_png(image)
    if kind == "JPEG" and picture.mode not in ("L", "RGB"):
        picture = in_eight_bits(picture)
    try:
        picture.save(file, format=kind)
    except (OSError, ValueError, KeyError):  # The format does not support the mode.
        file.seek(0)
        file.truncate()
        in_eight_bits(in_colors_of_png(picture)).save(file, format=kind)


def in_colors_of_png(image: Any) -> Any:
    """A copy of an image in a mode that PNG has. Numbers outside of the range of brightness are rescaled."""
    mode = image.mode
    if mode in _MODES:
        return image.copy()
    if mode in _CONVERTED:
        return image.convert(_CONVERTED[mode])
    if mode == "LAB":
        from PIL import ImageCms

        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, transform)
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
    """An image with 8 bits for each colour. A grey image of 16 bits stays grey."""
    if image.mode == "I;16":
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    return image.convert("RGB")


def levels_of_floats(array: Any) -> Any:
    """Convert numbers to brightness from 0 to 255.

    Numbers from 0 to 1, and bytes up to 255, keep their meaning. Others are rescaled from their minimum to their
    maximum, as `mlflow.log_image` does.
    """
    import numpy as np

    finite = array[np.isfinite(array)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    array = np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low)
    # Integers are bytes. Numbers slightly above 1 result from smoothing an image with values up to 1.
    if low >= 0 and 1 < high <= 255 and (high > 127 or (array == np.rint(array)).all()):
        return np.rint(array).astype(np.uint8)
    if low < 0 or high > 1:
        array = (array - low) / ((high - low) or 1.0)
    return (array * 255).astype(np.uint8)


def format_of(path: Path) -> str | None:
    """Pillow's name for the format of a file; None if Pillow cannot write it."""
    from PIL import Image

    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    other = Image.registered_extensions().get(suffix)
    return other if other in Image.SAVE else None


def read_image(path: Path) -> Any:
    """Read the whole image in a file, and close the file.

    Raises:
        Exception: the file is incomplete, has an unknown format, or is larger than Pillow considers safe.
    """
    from PIL import Image

    # Only these formats: for some others, Pillow runs external programs.
    with Image.open(path, formats=sorted(set(_FORMATS.values()))) as image:
        image.load()
        return image.copy()


handler = _Image()
