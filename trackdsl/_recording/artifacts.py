"""Snapshots of artifacts: a copy in the journal's folder, made before the call returns, then one event.

The copy is made by the kernel (`copy_file_range`, a shared extent where the file system can), never through memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from trackdsl._core.argument_order import has_suffix, is_path
from trackdsl._core.artifact_paths import checked_path, masked_path, portable_path, quoted_path
from trackdsl._core.events import File, ModelInput
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl._recording.emit import LONG_TEXT, append_params, append_tags, cut_texts, params_of, path_part
from trackdsl._recording.flatten import Flat
from trackdsl._recording.unserializable import OmittedParts
from trackdsl.errors import format_error, is_fault, report, reraise_from_signal
from trackdsl.handlers import _sidecar
from trackdsl.handlers._content import content_of, has_content, text_of_key
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._registry import handler_for, handler_of, name_of, writer_for
from trackdsl.handlers._types import class_name
from trackdsl.handlers.json import Json, write_json
from trackdsl.handlers.scalars import secret
from trackdsl.handlers.text import Text
from trackdsl.journal._allocation import is_shortage

#: A list of more files than this is one file.
_MAX_PARTS = 200


def named(source: Any) -> Path:
    """The path of a file or folder.

    Raises:
        FileNotFoundError: it is empty, or none, as that of a checkpoint which was never written; an empty `Path` would
            be the working directory.
    """
    if source is None or not os.fspath(source):
        raise FileNotFoundError(2, "no file is named", source)
    return Path(source)


def keep_given(run: RunHandle, source: Any, artifact_path: str | None) -> None:
    """Keep a file or folder, several of them, or an object as a file; see `Run.log_artifact`."""
    if source is None or is_path(source):
        snapshot(run, named(source), artifact_path)
    elif artifact_path is None or (isinstance(source, (list, tuple)) and all(map(is_path, source))):
        folder = None if artifact_path is None else f"{artifact_path.rstrip('/')}/"
        for one in source:
            snapshot(run, named(one), folder)
    else:
        handler = handler_of(source)
        keep_object(run, artifact_path if has_suffix(artifact_path) else f"{artifact_path}{handler.suffix}", source)


def snapshot(run: RunHandle, source: Path, artifact_path: str | None) -> None:
    """Keep a file or folder; see `Run.log_artifact`."""
    if source.is_dir():
        name = source.resolve().name
        keep(run, str(PurePosixPath(artifact_path or "") / name), lambda to: _copy_tree(source, to), directory=True)
        return
    if artifact_path is None:
        place = source.name
    elif PurePosixPath(artifact_path).suffix and not artifact_path.endswith("/"):
        place = artifact_path
    else:
        place = str(PurePosixPath(artifact_path) / source.name)
    keep(run, place, lambda to: _copy(source, to))


def snapshot_content(run: RunHandle, source: Path, artifact_path: str | None) -> None:
    """Keep what is inside a folder; see `Run.log_artifacts`. A file is kept in its place."""
    if source.is_file():
        snapshot(run, source, artifact_path)
        return
    keep(run, artifact_path or "", lambda to: _copy_tree(source, to), directory=True)


def write_text(run: RunHandle, text: Any, artifact_file: str) -> None:
    """Keep text as a file."""
    if isinstance(text, (bytes, bytearray)):
        text = text.decode("utf-8", "backslashreplace")
    keep(run, artifact_file, lambda to: _write(to, mask_text(str(text))))


def write_structure(run: RunHandle, value: Any, artifact_file: str, *, with_files: bool = True) -> None:
    """Keep a structure as JSON or YAML, with all of its content.

    Args:
        run: whose file it is.
        value: the structure.
        artifact_file: its path in the run.
        with_files: whether what JSON cannot hold becomes files of its own; else it is described in one line.
    """
    beside = OmittedParts(run, artifact_file, keep_object if with_files else None)
    native = PurePosixPath(artifact_file).suffix.lower() in (".yaml", ".yml")
    tree = content_of(value, beside.keep, beside.note, native_keys=native)
    keep(run, artifact_file, lambda to: write_json(tree, to), handler="builtins.dict")
    beside.write_tags()


def keep_whole(run: RunHandle, flat: Flat, prefix: str = "") -> None:
    """Keep what was too deep or too large to be told by parameters alone, and say what is not plain from names.

    Models among the values become inputs of the run.
    """
    for model in flat.models:
        run.emit(ModelInput(run.key, model, time.time_ns()))
    for key, value in flat.whole.items():
        place = f"trackdsl/params/{path_part(prefix + key)}.json"
        # Data among the arguments is not copied: nobody has asked for its content.
        write_structure(run, value, place, with_files=False)
        append_tags(run, {f"trackdsl.truncated.{prefix}{key}": f"too large for parameters, whole in {place}"})
    if flat.paths:
        paths = {prefix + key: path for key, path in flat.paths.items()}
        append_tags(run, {"trackdsl.params.paths": json.dumps(paths, ensure_ascii=False)})
    append_tags(run, {f"trackdsl.omitted.{prefix}{key}": why for key, why in flat.omitted.items()})


def add_params(run: RunHandle, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Record parameters; what is too deep, too large or too long for one is kept whole as a file."""
    flat = params_of(pairs)
    append_params(run, keep_long(run, flat.values))
    keep_whole(run, flat)


def keep_long(run: RunHandle, values: dict[str, Any]) -> dict[str, Any]:
    """The values with long texts cut; the whole of those is kept as files, as it would burst the journal."""
    long = {key: value for key, value in values.items() if isinstance(value, str) and len(value) > LONG_TEXT}
    for key, value in long.items():
        write_text(run, value, f"trackdsl/whole/{path_part(key)}.txt")
    return cut_texts(values) if long else values


def keep_object(run: RunHandle, place: str, value: Any, own: Handler | None = None) -> str | None:
    """Keep an object as a file.

    Args:
        run: whose file it is.
        place: its path in the run; the suffix names the format. Where the object does not fit that, its handler's own
            format is taken, and where that fails too, a pickle.
        value: the object.
        own: its handler, where that is known.

    Returns:
        where it is; None where it could not be kept, which a tag says.
    """
    place = masked_path(place)
    if _is_written_by_content(value, PurePosixPath(place).suffix.lower()):
        write_structure(run, value, place)
        return place
    own = handler_of(value) if own is None else own
    handler = writer_for(value, own, PurePosixPath(place).suffix.lower())
    if handler is None and (parts := _parts_written(value, PurePosixPath(place).suffix.lower())):
        kept = [keep_object(run, numbered(place, text_of_key(name)), part) for name, part in parts.items()]
        return next(filter(None, kept), None)
    if handler is None:
        told_as = f"{class_name(value)} cannot be written as {PurePosixPath(place).suffix}; kept as {place}{own.suffix}"
        append_tags(run, {f"trackdsl.omitted.{place}": told_as})
        place, handler = f"{place}{own.suffix}", own
    if _reveals(handler, value):
        return _keep_masked(run, place, value)
    if _keep_by(run, place, value, handler):
        return place
    if handler.executes:
        return None
    pickled = handler_for(object)
    place = f"{place.removesuffix(handler.suffix)}{pickled.suffix}"
    if _reveals(pickled, value):
        return _keep_masked(run, place, value)
    return place if _keep_by(run, place, value, pickled) else None


def numbered(place: str, name: str) -> str:
    """The path of one of several files: its number or key, if it has one, before the suffix.

    >>> numbered("plots/roc.png", "0")
    'plots/roc.0.png'
    """
    suffix = PurePosixPath(place).suffix
    return f"{place.removesuffix(suffix)}.{path_part(name)}{suffix}" if name else place


def _parts_written(value: Any, suffix: str) -> dict[Any, Any]:
    """The parts of a list or a dict, where each can be a file of this suffix; nothing where not all can."""
    found = handler_for(type(value)).content(value)
    parts = dict(enumerate(found)) if isinstance(found, (list, tuple)) else found
    if not isinstance(parts, Mapping) or len(parts) > _MAX_PARTS:
        return {}
    parts = {name: part for name, part in parts.items() if part is not None}
    handlers = [handler_of(part) for part in parts.values()]
    fitting = all(suffix in (one.suffix, *one.suffixes) and one.suffix not in (".json", ".txt") for one in handlers)
    return dict(parts) if fitting else {}


def _is_written_by_content(value: Any, suffix: str) -> bool:
    """Whether a value becomes JSON or YAML by its content; some handlers have a form of their own for such a file."""
    if suffix not in (".json", ".yaml", ".yml"):
        return False
    handler = handler_for(type(value))
    own_form = suffix in (handler.suffix, *handler.suffixes) and not isinstance(handler, Json)
    return not own_form and has_content(value)


def _reveals(handler: Handler, value: Any) -> bool:
    """Whether a handler would write a secret that it cannot mask."""
    # Imported late, because a program that records only numbers never needs it.
    from trackdsl.handlers._secret_scan import holds_secret

    if isinstance(handler, Text):
        return not isinstance(value, (str, os.PathLike)) and holds_secret(value)
    return isinstance(handler, Pickled) and handler is not secret and holds_secret(value)


def _keep_masked(run: RunHandle, place: str, value: Any) -> str | None:
    """Keep what can be told of what holds a secret; of an object with one in an attribute that is nothing."""
    if not has_content(value):
        reason = f"{class_name(value)} holds a secret, which its pickle would tell; keep what you need of it instead"
        report("artifact", f"trackdsl left out {place!r}: {reason}", key=place)
        append_tags(run, {f"trackdsl.omitted.{place}": reason})
        return None
    told_at = f"{place.removesuffix(PurePosixPath(place).suffix)}.json"
    reason = f"{class_name(value)} holds a secret; its other parts are in {told_at}"
    append_tags(run, {f"trackdsl.omitted.{place}": reason})
    write_structure(run, value, told_at, with_files=False)
    return told_at


def _keep_by(run: RunHandle, place: str, value: Any, handler: Handler) -> bool:
    name = name_of(handler, type(value))
    return keep(
        run,
        place,
        lambda to: _write_by(handler, value, to),
        handler=name,
        hashed=handler.executes,
        what=class_name(value),
    )


def _write_by(handler: Handler, value: Any, path: Path) -> None:
    # Handlers tell formats by suffixes in small letters.
    small = path.with_suffix(path.suffix.lower())
    handler.write(value, small)
    if small != path:
        small.rename(path)
        _sidecar.move(small, path)


def _keep_types(run: RunHandle, place: str, path: Path) -> bool:
    """Keep the types that a handler has noted beside a file, and report what they cannot mend."""
    types = _sidecar.types_of(path)
    differs = types.pop(_sidecar.DIFFERS, "")
    if differs:
        reason = mask_prose(f"read back, it differs: {differs}")[:500]
        report("artifact", f"trackdsl wrote {place!r}, but {reason}", key=place)
        append_tags(run, {f"trackdsl.omitted.{place}": reason})
    _sidecar.beside(path).unlink(missing_ok=True)
    return bool(types) and keep(run, _sidecar.place_of(place), partial(_write, text=json.dumps(types)))


def keep(
    run: RunHandle,
    place: str,
    write: Callable[[Path], dict[str, str] | None],
    *,
    directory: bool = False,
    handler: str = "",
    hashed: bool = False,
    what: str = "",
) -> bool:
    """Write a snapshot and tell of it; False where that could not be done, which a tag says."""
    if run.target.discards:
        return True
    try:
        place = masked_path(place)
        asked, place = place, portable_path(place)
        renamed = {place: asked} if place != checked_path(asked) else {}
        path, relative = run.target.new_file(PurePosixPath(place).name or "content")
        try:
            missing = write(path) or {}
            types = bool(handler) and _keep_types(run, place, path)
            digest = sha256_of(path) if hashed else ""
            if directory:
                renamed |= {f"{place}/{new}": f"{place}/{old}" for new, old in _rename_unsafe(path).items()}
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
    except BaseException as error:
        if not is_fault(error):
            raise
        reraise_from_signal(error)
        if is_shortage(error):
            run.target.unrecorded += 1
        reason = mask_prose(f"{what}: {format_error(error)}" if what else format_error(error))
        report("artifact", f"trackdsl could not keep the artifact {place!r}: {reason}", key=place)
        append_tags(run, {f"trackdsl.omitted.{place or 'log_artifacts'}": reason[:500]})
        return False
    append_tags(run, {f"trackdsl.renamed.{new}": masked_path(old) for new, old in renamed.items()})
    if missing:
        report("artifact", f"trackdsl left out of {place!r}: {missing}", key=place)
        append_tags(
            run,
            {
                f"trackdsl.omitted.{masked_path(f'{place}/{name}')}": mask_prose(why)[:500]
                for name, why in missing.items()
            },
        )
    run.emit(File(run.key, place, relative, directory, handler, digest, types), vital=True)
    return True


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _copy(source: Path, target: Path) -> None:
    if not source.is_file() and source.exists():
        raise OSError(22, "neither a file nor a folder", str(source))  # Opening a FIFO would wait for its writer.
    with open(source, "rb") as reader, open(target, "xb") as writer:
        if not _clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1 << 20)


def _clone(source: int, target: int) -> bool:
    """Copy inside the kernel; False where it cannot."""
    left = os.fstat(source).st_size
    try:
        while left > 0:
            copied = os.copy_file_range(source, target, min(left, 1 << 30))
            if copied == 0:
                break
            left -= copied
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) == 28:  # ENOSPC: no other way of copying would help.
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        return False
    # A file that reports no size (in /proc), or one that has shrunk: take what comes.
    return left == 0 and os.fstat(source).st_size > 0


def _copy_tree(source: Path, target: Path) -> dict[str, str]:
    """Copy a folder; returns what could not be copied, by its path in it, with the reason."""
    if not source.is_dir():
        raise NotADirectoryError(20, "not a folder", str(source))

    def copy(one: str, other: str) -> str:
        _copy(Path(one), Path(other))
        return other

    try:
        shutil.copytree(source, target, copy_function=copy, ignore=partial(_loops, source))
    except shutil.Error as error:  # It has copied all the others.
        return {os.path.relpath(str(one), source): str(reason) for one, _, reason in error.args[0]}
    return {}


def _rename_unsafe(folder: Path) -> dict[str, str]:
    """Rename what a store would keep under another name; returns the new path of each in the folder, and the old."""
    renamed = {}
    for inner, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            new = os.path.join(inner, quoted_path(name))
            if quoted_path(name) != name and not os.path.lexists(new):
                os.rename(os.path.join(inner, name), new)
                renamed[os.path.relpath(new, folder)] = os.path.relpath(os.path.join(inner, name), folder)
    return renamed


def _loops(source: Path, folder: str, names: list[str]) -> list[str]:
    """Links to a folder that this one is inside of, by whatever way it was reached: they would never end."""
    way = Path(folder)
    around = [os.path.join(os.path.realpath(way), "")]
    while way not in (source, way.parent):
        way = way.parent
        around.append(os.path.join(os.path.realpath(way), ""))
    loops = []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            real = os.path.join(os.path.realpath(path), "")
            loops += [name] if any(one.startswith(real) for one in around) else []
    return loops
