"""Images and figures → files, and MLflow's own layout for the images of a training loop."""

from __future__ import annotations

import re
import time
import types
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trackdsl._core.argument_order import has_suffix
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_name, mask_prose
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.handlers._content import text_of_key
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._registry import handler_for, handler_of, name_of
from trackdsl.handlers._types import class_name, full_name
from trackdsl.handlers.matplotlib import drawn, figure_of_module, is_plot
from trackdsl.handlers.pillow import format_of, in_colors_of_png, in_eight_bits, levels_of_floats, save_image

#: The longer side of the small copy that MLflow's image grid shows first; see mlflow/tracking/multimedia.py.
_SMALL = 256
_CHANNELS = (1, 3, 4)
#: The suffixes of files that are neither images nor web pages.
_WRITTEN = (".json", ".txt", ".parquet", ".npy", ".bin")
#: The characters that MLflow refuses in the key of an image, see `MlflowClient.log_image`.
_NOT_IN_KEYS = re.compile(r"[^a-zA-Z0-9_\-./ ]")


def record_image(run: RunHandle, image: Any, artifact_path: str) -> None:
    """Keep an image at `artifact_path`, whose suffix selects the format; several as `samples.0.png`, and so on."""
    if has_suffix(artifact_path) and format_of(Path(artifact_path)) is None:
        reason = f"this suffix is not an image format; kept as {artifact_path}.png"
        append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
        artifact_path = f"{artifact_path}.png"
    for name, one in _each(image, artifact_path if has_suffix(artifact_path) else f"{artifact_path}.png"):
        _artifacts.keep(run, name, partial(_write_picture, one))


def record_frame(run: RunHandle, image: Any, key: str, step: int, timestamp: int | None = None) -> None:
    """Keep an image of a series, which the MLflow UI shows in a grid with a slider over the steps.

    The file names are those of `MlflowClient.log_image` of MLflow 3.17: the key with `~` for `/`, the step, the time in
    milliseconds and a random part, joined by `+`. The UI of MLflow 3.1 reads them too. A small copy is kept next to
    each image, and a tag announces images. Several images become one series each, whose keys end in their numbers.
    """
    several = pictures_in(image)
    if several is not None:
        for name, one in several.items():
            record_frame(run, one, f"{key}/{name}", step, timestamp)
        return
    name = _NOT_IN_KEYS.sub(lambda match: f"_x{ord(match[0]):04X}_", mask_name(key)).replace("/", "~")
    now = time.time_ns() // 1_000_000 if timestamp is None else int(timestamp)
    artifact_path = f"images/{name}+step+{step}+timestamp+{now}+{uuid.uuid4()}"
    if _write_both(run, image, f"images/{key}", f"{artifact_path}.png", f"{artifact_path}+compressed.webp"):
        append_tags(run, {"mlflow.loggedImages": "True"})


def record_cell(run: RunHandle, image: Any, table: str) -> dict[str, str] | None:
    """Keep an image of a table as `MlflowClient.log_table` does; return the content of its cell."""
    artifact_path = f"table_images/{table.rpartition('.')[0]}/{uuid.uuid4()}"
    if not _write_both(run, image, table, f"{artifact_path}.png", f"{artifact_path}.webp"):
        return None
    return {"type": "image", "filepath": f"{artifact_path}.png", "compressed_filepath": f"{artifact_path}.webp"}


def record_figure(run: RunHandle, figure: Any, artifact_path: str, save_kwargs: dict[str, Any] | None) -> None:
    """Keep a figure. `save_kwargs` go to the library's own method. Other objects are reported."""
    for name, one in _figures_in(figure).items():
        handler = handler_of(one)
        suffix = (
            "" if has_suffix(artifact_path) else f".{(save_kwargs or {}).get('format') or _suffix_of(one, handler)}"
        )
        _record_one(run, one, _artifacts.numbered(f"{artifact_path}{suffix}", name), handler, save_kwargs)


def _record_one(
    run: RunHandle, figure: Any, artifact_path: str, handler: Handler, save_kwargs: dict[str, Any] | None
) -> None:
    if not _is_figure(figure):
        _artifacts.keep(run, artifact_path, partial(_refuse_figure, figure))
    elif not save_kwargs and not handler.executes:
        if artifact_path.lower().endswith(".txt"):  # The handler of text would write the `str` of any object.
            reason = f"a figure cannot be written as text; kept as {artifact_path}{handler.suffix}"
            append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
            artifact_path = f"{artifact_path}{handler.suffix}"
        _artifacts.keep_object(run, artifact_path, figure)
    else:
        kind = name_of(handler, type(figure))
        _artifacts.keep(run, artifact_path, lambda to: _save_figure(figure, to, save_kwargs or {}), handler=kind)


def _refuse_figure(figure: Any, _: Path) -> None:
    raise TypeError(
        f"{class_name(figure)} is not a figure: give one of matplotlib, seaborn, plotly, altair or bokeh. log_dict, "
        "log_text and log_artifact record other objects"
    )


def is_picture(value: Any) -> bool:
    """Whether a value has a type of images: Pillow's, or `mlflow.Image`."""
    return any(full_name(base) in ("PIL.Image.Image", _MLFLOW) for base in type(value).__mro__)


def picture_of(value: Any) -> Any:
    """Convert an image to a new Pillow image, because saving changes an image's metadata.

    Args:
        value: an image of Pillow or MLflow, or an array or tensor of (height, width), with 1, 3 or 4 channels last or
            first. If both are possible, an array has its channels last, and a torch tensor first.

    Raises:
        TypeError: it is none of these, or its numbers are not brightness values.
        ValueError: it has another shape, or integers outside 0 to 255.
    """
    names = {full_name(base) for base in type(value).__mro__}
    if "PIL.Image.Image" in names:
        return value.copy()
    if _MLFLOW in names:
        return value.to_pil().copy()
    if "torch.Tensor" in names:
        return _from_array(_array_of_tensor(value), first=True)
    if hasattr(value, "__array__"):
        import numpy as np

        return _from_array(np.asarray(value))
    raise TypeError(
        f"{class_name(value)} is not an image: give an array, a tensor, or a Pillow image. log_figure records figures, "
        "log_artifact files"
    )


def pictures_in(value: Any) -> dict[str, Any] | None:
    """The images of a list, a dict, or a batch, by their numbers or keys; None for one image, or another object.

    A batch is an array or tensor of four dimensions or more, or of three where none of them can be the channels.
    """
    if isinstance(value, (list, tuple)):
        parts = {str(index): one for index, one in enumerate(value) if one is not None}
        return parts if parts and all(map(_may_be, parts.values())) else None
    if isinstance(value, Mapping):
        return {text_of_key(key): one for key, one in value.items()} if value else None
    if not _may_be(value) or is_picture(value):
        return None
    shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
    rows = len(shape) == 3 and min(shape[1:]) > max(_CHANNELS) and shape[0] not in _CHANNELS
    batch = rows or (len(shape) > 3 and 0 not in shape)
    return {str(index): value[index] for index in range(len(value))} if batch else None


def _may_be(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return pictures_in(value) is not None
    return is_picture(value) or hasattr(type(value), "__array__")


def _each(image: Any, artifact_path: str) -> list[tuple[str, Any]]:
    several = pictures_in(image)
    if several is None:
        return [(artifact_path, image)]
    return [
        (name, inner)
        for key, one in several.items()
        for name, inner in _each(one, _artifacts.numbered(artifact_path, key))
    ]


def _figures_in(value: Any) -> dict[str, Any]:
    """The distinct figures of a list, a dict, or an array of axes, by number or key; a single figure has no name."""
    found: dict[str, Any] = {}
    if isinstance(value, Mapping):
        for key, part in value.items():
            for name, one in ({} if part is None else _figures_in(part)).items():
                found[".".join(filter(None, (text_of_key(key), name)))] = one
    elif _is_list(value):
        figures = {id(figure): figure for figure in map(_whole_figure, _listed(value)) if figure is not None}
        found = {"" if len(figures) == 1 else str(index): figure for index, figure in enumerate(figures.values())}
    else:
        return {"": _whole_figure(value)}
    return found if any(map(_is_figure, found.values())) else {"": value}


def _is_list(value: Any) -> bool:
    """Whether a value is a list of figures or axes, or a result of pyplot for lines and bars."""
    if hasattr(value, "flat") and hasattr(value, "dtype"):
        return bool(value.dtype == object)
    return isinstance(value, (list, tuple)) or handler_for(type(value)).listed


def _listed(value: Any) -> Iterator[Any]:
    for part in value.flat if hasattr(value, "flat") else value:
        if _is_list(part):
            yield from _listed(part)
        else:
            yield part


def _whole_figure(value: Any) -> Any:
    """The figure that an object belongs to: axes, lines, seaborn's grids, scikit-learn's displays, pyplot itself."""
    if isinstance(value, types.ModuleType):
        return figure_of_module(value)
    if is_plot(value):
        return drawn(value)
    for way in ("figure", "figure_", "fig"):
        found = getattr(value, way, None)
        if found is not None and not callable(found):
            return found
    return value


def _is_figure(value: Any) -> bool:
    handler = handler_of(value)
    return not (handler.executes or handler.suffix in _WRITTEN) or _saves_itself(value)


def _saves_itself(figure: Any) -> bool:
    return any(callable(getattr(figure, way, None)) for way in ("savefig", "write_html"))


def _suffix_of(figure: Any, handler: Handler) -> str:
    if handler.executes:
        return "png" if hasattr(figure, "savefig") else "html"
    return handler.suffix[1:]


_MLFLOW = "mlflow.tracking.multimedia.Image"


def _write_both(run: RunHandle, image: Any, name: str, artifact_path: str, small: str) -> bool:
    try:
        picture = picture_of(image)
        shrunk = _shrunk(picture)
    except Exception as error:
        # Reported by the name, which stays the same in a loop; the paths differ.
        reraise_from_signal(error)
        reason = mask_prose(format_error(error))
        report("image", f"trackdsl could not keep an image of {mask_name(name)!r}: {reason}", key=name)
        append_tags(run, {f"trackdsl.omitted.{mask_name(name)}": reason[:500]})
        return False
    return _artifacts.keep(run, artifact_path, lambda to: _save(picture, to)) and _artifacts.keep(
        run, small, lambda to: _save(shrunk, to)
    )


def _array_of_tensor(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16.
    return tensor.numpy()


def _from_array(array: Any, *, first: bool = False) -> Any:
    from PIL import Image

    if array.ndim == 3 and array.shape[0] in _CHANNELS and (first or array.shape[2] not in _CHANNELS):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS) or not array.size:
        raise ValueError(
            f"an image has a height, a width, and no channels or 1, 3 or 4; this array has the shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(_levels_of(array))


def _levels_of(array: Any) -> Any:
    """Brightness from 0 to 255, or up to 65535 for gray images; floats as in `levels_of_floats`."""
    import numpy as np

    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind in "iu":
        low, high = array.min(), array.max()
        if kind == "u" and array.dtype.itemsize == 2 and high > 255:
            return array.astype(np.uint16) if array.ndim == 2 else (array / 257).astype(np.uint8)
        if low < 0 or high > 255:
            raise ValueError(f"integers of an image are from 0 to 255, not from {low} to {high}")
        return array.astype(np.uint8)
    if kind != "f":
        raise TypeError(f"an array of {array.dtype} is not an image")
    return levels_of_floats(array)


def _shrunk(picture: Any) -> Any:
    picture = in_colors_of_png(picture)
    picture = in_eight_bits(picture) if picture.mode == "I;16" else picture
    width, height = picture.size
    scale = _SMALL / max(width, height)
    return picture.resize((max(1, int(width * scale)), max(1, int(height * scale))))


def _write_picture(image: Any, path: Path) -> None:
    _save(picture_of(image), path)


def _save(picture: Any, path: Path) -> None:
    with open(path, "xb") as file:
        save_image(picture, file, format_of(path) or "PNG")


def _save_figure(figure: Any, path: Path, options: dict[str, Any]) -> None:
    if hasattr(figure, "savefig"):
        figure.savefig(path, **options)
    elif path.suffix == ".html":
        figure.write_html(path, **options)
    elif path.suffix == ".json":
        figure.write_json(path, **options)
    else:
        figure.write_image(path, **options)
