"""Models → a folder of files that MLflow can load, written without MLflow.

The folder contains `model/` (the files of the handler), an example of the input with the model's prediction for it, and
`spec.json`: the description for MLflow. Delivery makes an MLflow model of it without loading the model.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl._core.events import Model, model_key
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_name, mask_text
from trackdsl._recording.emit import append_tags
from trackdsl._recording.input_examples import write_example
from trackdsl._recording.model_options import GENERAL, UNKNOWN_MODEL, ModelRequest
from trackdsl._recording.random_state import unchanged_random_state
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.handlers._code import FOLDER, copy_code, local_code
from trackdsl.handlers._flavor import Flavor
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_named, handler_of, name_of
from trackdsl.handlers._requirements import build_requirements, requirements
from trackdsl.handlers._secret_scan import holds_secret
from trackdsl.handlers.references import remember_recorded


def models_in(value: Any) -> dict[Any, Any]:
    """The models of a list or dict that contains only models; else nothing."""
    parts = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
    if not isinstance(parts, Mapping) or not all(handler_of(part).model for part in parts.values()):
        return {}
    return dict(parts)


def record_model(
    run: RunHandle,
    model: Any,
    name: str,
    *,
    registered_model_name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    step: int = 0,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Sequence[str] | str | os.PathLike[str] | None = None,
    code_paths: Sequence[str | os.PathLike[str]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Model | str:
    """Record a model. A tag reports what cannot be written; nothing is raised.

    Args:
        run: whose model it is.
        model: an estimator or network of a known library, a `PythonModel`, or anything else that can be pickled.
        name: its name; characters that MLflow refuses are replaced.
        registered_model_name: register it under this name too.
        arguments: those of the call that made it, by name; the input example is one of them.
        step: the step it belongs to.
        signature: an `mlflow.models.ModelSignature`; by default it is inferred from the example.
        input_example: data that the model takes, or a tuple of such data and a dict of parameters.
        pip_requirements: requirements of loading it, or the path of a file with requirements. By default the
            installed versions of the packages that the model refers to.
        code_paths: files and folders of modules that loading it needs; by default the project's own modules that its
            pickle refers to, and those that they import.
        options: further options, see `model_options.py`.

    Returns:
        its event, or why it could not be recorded.
    """
    if run.target.discards:
        return "another process of the launch records, and this one does not"
    name = mask_name(name) or "model"
    request = ModelRequest(
        arguments or {}, signature, input_example, pip_requirements, code_paths, {} if options is None else options
    )
    try:
        path, relative = run.target.new_file("model")
        try:
            handler, handler_name = _handler(model)
            with unchanged_random_state():
                missing = _write(run, path, handler, model, request)
            digest = sha256_of_files(path / "model")
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
    except Exception as error:
        reraise_from_signal(error)
        reason = mask_text(f"{type(model).__name__}: {format_error(error)}")
        append_tags(run, {f"trackdsl.omitted.{name}": reason[:500]})
        report("model", f"trackdsl could not keep the model {name!r}: {reason}", key=name)
        return reason
    registered = None if registered_model_name is None else mask_name(registered_model_name)
    event = Model(run.key, name, relative, registered, step, time.time_ns(), handler_name, digest)
    run.emit(event, vital=True)
    remember_recorded(model, model_key(event))
    _report_missing(run, name, missing)
    return event


class _Missing(NamedTuple):
    """The parts that are missing from a recorded model.

    Attributes:
        code: the modules and files that it needs, with the reasons.
        parts: which parts of the model itself, and why; empty if it is whole.
        example: why it has no input example; empty if it has one, or needs none.
    """

    code: dict[str, str]
    parts: str
    example: str


def _report_missing(run: RunHandle, name: str, missing: _Missing) -> None:
    for source, why in missing.code.items():
        append_tags(run, {f"trackdsl.omitted.{name}.code": mask_text(f"{source}: {why}")[:500]})
        message = f"trackdsl: model {name!r} is recorded without {source}, which it needs: {why}"
        report("code", message, key=name + source)
    if missing.parts:
        parts = mask_text(missing.parts)
        append_tags(run, {f"trackdsl.omitted.{name}": parts[:500]})
        report("model", f"trackdsl could not keep all of model {name!r}: {parts}", key=name)
    if missing.example:
        append_tags(run, {f"trackdsl.omitted.{name}.example": missing.example})
        report("example", f"trackdsl left out the input example of model {name!r}: {missing.example}", key=name)


def _handler(model: Any) -> tuple[Handler, str]:
    found = handler_of(model)
    if found.model:
        return found, name_of(found, type(model))
    if holds_secret(model):
        raise TypeError("it holds a secret, which its pickle would contain")
    anything = handler_named(UNKNOWN_MODEL)
    assert anything is not None
    return anything, UNKNOWN_MODEL


def _write(run: RunHandle, folder: Path, handler: Handler, model: Any, request: ModelRequest) -> _Missing:
    """Write the files, the examples and the description; return what is missing."""
    files = folder / "model"
    files.mkdir(parents=True, mode=0o700)
    given = {key: value for key, value in request.options.items() if value is not None}
    general = {key: given[key] for key in GENERAL if key in given}
    own = {key: value for key, value in given.items() if key not in GENERAL}
    flavor = handler.save_model(model, files, **own)
    if flavor is None:
        raise TypeError(f"its handler, {type(handler).__name__}, writes no models")
    code = _Code(request.code_paths)
    packages = code.write(files, flavor)
    example = write_example(run, folder, handler, model, request, flavor.packages)
    signature = request.signature
    spec = {
        "flavor": flavor.name,
        "options": flavor.options | code.option(flavor.name),
        "pyfunc": None if flavor.pyfunc is None else flavor.pyfunc | code.option(),
        "requirements": [*requirements(packages, request.pip_requirements), *general.pop("extra_pip_requirements", ())],
        "model": json.loads(json.dumps(general, default=str)),
        "python": platform.python_version(),
        "build": build_requirements(),
        "example": example.file,
        "params": example.params,
        "answer": example.answer_file,
        "signature": signature.to_dict() if hasattr(signature, "to_dict") else signature,
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return _Missing(code.omitted, flavor.note, example.problem)


class _Code:
    """The code that goes with a model.

    Args:
        given: files and folders; None for the project's own modules that the model refers to.

    Attributes:
        omitted: the code that is left out, with the reasons.
    """

    def __init__(self, given: Sequence[str | os.PathLike[str]] | None) -> None:
        self._given = given
        self._written = False
        self.omitted: dict[str, str] = {}

    def write(self, folder: Path, flavor: Flavor) -> tuple[str, ...]:
        """Copy the code to a model's folder; return the packages that the model needs."""
        packages = flavor.packages
        if self._given is not None:
            paths = {Path(path).resolve(): os.path.basename(os.path.abspath(path)) for path in self._given}
        else:
            found = local_code(flavor.packages)
            paths = found.paths
            self.omitted |= found.omitted
            packages = tuple(sorted({*packages, *found.packages})) if paths else packages
        self.omitted |= copy_code(paths, folder)
        self._written = (folder / FOLDER).is_dir()
        return packages

    def option(self, flavor: str = "") -> dict[str, str]:
        """The option that says where the code is, for MLflow."""
        return {"code": FOLDER} if self._written and flavor != "python_function" else {}
