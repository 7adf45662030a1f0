"""Models → a folder of files that MLflow can load, written without MLflow.

The folder contains `model/` (the files of the handler), an example of the input with the model's prediction for it, and
`spec.json`: the description for MLflow. Delivery makes an MLflow model of it without loading the model.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._core.events import Model, model_key
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_name, mask_text
from trackdsl._recording.emit import append_tags
from trackdsl._recording.model_options import GENERAL, check_save_options
from trackdsl.errors import OptionError, format_error, report, reraise_from_signal
from trackdsl.handlers import _example_files, _examples
from trackdsl.handlers._code import FOLDER, copy_code, local_code
from trackdsl.handlers._flavor import Flavor, Inputs
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._model_handler import ModelHandler
from trackdsl.handlers._registry import handler_named, handler_of, name_of
from trackdsl.handlers._requirements import build_requirements, requirements
from trackdsl.handlers._secret_scan import holds_secret
from trackdsl.handlers.references import note_recorded
from trackdsl.journal._target import Target
from trackdsl.journal._writer import Losing
from trackdsl.markers import check_code_paths

#: The name of the handler for objects that the user calls a model and whose type is unknown.
_ANYTHING = "<model>"
#: A larger model is not copied to predict the example, in bytes.
_MAX_COPIED = 32 << 20
#: Packages whose models may predict the example without the user having passed one.
_KNOWN = frozenset(
    ["builtins", "cloudpickle", "collections", "copyreg", "functools", "joblib", "keras", "lightgbm", "numpy", "pandas",
     "scipy", "sklearn", "tensorflow", "torch", "xgboost"]
)  # fmt: skip
#: How many arguments are tried as input of a model that does not record what it was fitted on.
_MAX_TRIES = 3


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
    try:
        path, relative = run.target.new_file("model")
        try:
            handler, handler_name = _handler(model)
            with _untouched():
                code = _Code(code_paths)
                written = _write(
                    run,
                    path,
                    handler,
                    model,
                    arguments or {},
                    signature,
                    input_example,
                    pip_requirements,
                    code,
                    options or {},
                )
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
    note_recorded(model, model_key(event))
    for place, why in code.omitted.items():
        append_tags(run, {f"trackdsl.omitted.{name}.code": mask_text(f"{place}: {why}")[:500]})
        report("code", f"trackdsl: model {name!r} is recorded without {place}, which it needs: {why}", key=name + place)
    if written.note:
        append_tags(run, {f"trackdsl.omitted.{name}": mask_text(written.note)[:500]})
        report("model", f"trackdsl could not keep all of model {name!r}: {mask_text(written.note)}", key=name)
    if written.no_example:
        append_tags(run, {f"trackdsl.omitted.{name}.example": written.no_example})
        report("example", f"trackdsl left out the input example of model {name!r}: {written.no_example}", key=name)
    return event


def check_model_options(
    model: Any, signature: Any, pip_requirements: Any, code_paths: Any, options: Mapping[str, Any]
) -> None:
    """Check the user's arguments of `log_model`, before anything is written.

    Raises:
        OptionError: an argument has the wrong type, or names a file that does not exist.
    """
    if signature is not None and not isinstance(signature, Mapping) and not hasattr(type(signature), "to_dict"):
        raise OptionError(
            f"log_model(signature=...) takes an mlflow.models.ModelSignature, as mlflow.models.infer_signature returns "
            f"it, not {type(signature).__name__}.",
            option="signature",
        )
    if options:
        found = handler_of(model)
        anything = handler_named(_ANYTHING)
        assert anything is not None
        check_save_options(model, found if found.model else anything, options)
    check_code_paths(code_paths)
    for path in code_paths or ():
        if not os.path.exists(path):
            raise OptionError(f"log_model(code_paths=...): there is no {os.fspath(path)!r}.", option="code_paths")
    if isinstance(pip_requirements, (str, os.PathLike)):
        if not os.path.isfile(pip_requirements):
            raise OptionError(
                f"log_model(pip_requirements=...) takes a list, such as ['scikit-learn==1.5.0'], or the path of a file "
                f"of them: there is no file {os.fspath(pip_requirements)!r}.",
                option="pip_requirements",
            )
    elif pip_requirements is not None and not all(isinstance(line, str) for line in pip_requirements):
        raise OptionError("log_model(pip_requirements=...) takes requirements as text.", option="pip_requirements")


def _handler(model: Any) -> tuple[Handler, str]:
    found = handler_of(model)
    if found.model:
        return found, name_of(found, type(model))
    if holds_secret(model):
        raise TypeError("it holds a secret, which its pickle would contain")
    anything = handler_named(_ANYTHING)
    assert anything is not None
    return anything, _ANYTHING


def _write(
    run: RunHandle,
    folder: Path,
    handler: Handler,
    model: Any,
    arguments: Mapping[str, Any],
    signature: Any,
    input_example: Any,
    pip_requirements: Sequence[str] | str | os.PathLike[str] | None,
    code: _Code,
    options: Mapping[str, Any],
) -> _Written:
    """Write the files, the examples and the description."""
    files = folder / "model"
    files.mkdir(parents=True, mode=0o700)
    general = {key: options[key] for key in GENERAL if options.get(key) is not None}
    own = {key: value for key, value in options.items() if key not in GENERAL and value is not None}
    flavor = handler.save_model(model, files, **own)
    if flavor is None:
        raise TypeError(f"its handler, {type(handler).__name__}, writes no models")
    packages = code.write(files, flavor)
    size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    given, params, unfit = _given(input_example)
    tried = [(given, True)] if given is not None else _chosen(handler, model, arguments)
    asked = input_example is not None or getattr(handler, "callable_unasked", False)
    harmless = input_example is not None or _is_known(model, flavor.packages)
    wants_answer = asked and harmless and size <= _MAX_COPIED and signature is None
    example, answer = _try(run, handler, model, tried, wants_answer)
    kept, omitted = _written(example, folder, "example")
    if input_example is not None and example is None:
        omitted = unfit or f"{type(input_example).__name__} is no input example that the model and MLflow accept"
    spec = {
        "flavor": flavor.name,
        "options": flavor.options | code.option(flavor.name),
        "pyfunc": None if flavor.pyfunc is None else flavor.pyfunc | code.option(),
        "requirements": [*requirements(packages, pip_requirements), *general.pop("extra_pip_requirements", ())],
        "model": json.loads(json.dumps(general, default=str)),
        "python": platform.python_version(),
        "build": build_requirements(),
        "example": kept,
        "params": params,
        "answer": _written(answer, folder, "answer")[0],
        "signature": signature.to_dict() if hasattr(signature, "to_dict") else signature,
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return _Written(flavor.note, omitted)


class _Written(NamedTuple):
    """What is missing of a written model: parts of the model itself, and the reason for a missing input example."""

    note: str
    no_example: str


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
            places = {Path(path).resolve(): os.path.basename(os.path.abspath(path)) for path in self._given}
        else:
            found = local_code(flavor.packages)
            places = found.paths
            self.omitted |= found.omitted
            packages = tuple(sorted({*packages, *found.packages})) if places else packages
        self.omitted |= copy_code(places, folder)
        self._written = (folder / FOLDER).is_dir()
        return packages

    def option(self, flavor: str = "") -> dict[str, str]:
        """The option that says where the code is, for MLflow."""
        return {"code": FOLDER} if self._written and flavor != "python_function" else {}


def _is_known(model: Any, packages: Sequence[str]) -> bool:
    """Whether a model runs only code of well-known libraries: the user's own code may print, count, or take time."""
    parts = [model]
    for walk in ("modules", "_flatten_layers"):  # Of torch, of Keras
        parts += getattr(model, walk)() if callable(getattr(type(model), walk, None)) else []
    roots = {type(part).__module__.partition(".")[0] for part in parts}
    hooks = [getattr(part, name, None) for part in parts for name in ("_forward_hooks", "_forward_pre_hooks")]
    return _KNOWN.issuperset({*packages, *roots}) and not any(hooks)


def _given(input_example: Any) -> tuple[Any, dict[str, Any] | None, str]:
    """The user's own example, the parameters of its prediction, and why there is no example."""
    params = None
    try:
        if isinstance(input_example, tuple) and len(input_example) == 2 and isinstance(input_example[1], dict):
            input_example, given = input_example
            params = _example_files.plain(given)
        taken = _examples.rows_of(input_example, None)
    except Exception as error:  # Data that a library cannot convert: the model is kept without it.
        reraise_from_signal(error)
        return None, None, mask_text(format_error(error))[:500]
    return (input_example if taken is None else taken), params, ""


def _chosen(handler: Handler, model: Any, arguments: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Possible examples among the arguments of the call."""
    wanted = Inputs()
    if isinstance(handler, ModelHandler):
        with contextlib.suppress(Exception):  # The model is not fitted.
            wanted = handler.inputs(model)
    return _examples.candidates(arguments, wanted)


def _try(run: RunHandle, handler: Handler, model: Any, tried: Any, wants_answer: bool) -> tuple[Any, Any]:
    """The first example that the model can predict, and the prediction."""
    if not isinstance(handler, ModelHandler):
        return next(((example, None) for example, _ in tried), (None, None))
    try:
        for number, (example, certain) in enumerate(tried):
            if number == _MAX_TRIES:
                break
            with contextlib.suppress(Exception, SystemExit):
                prepared = handler.prepare(model, example)
                if not wants_answer:
                    return prepared, None
                # On copies: a prediction may change the model or the example.
                return prepared, _discarding_records(run, _answer, handler, model, prepared)
            if certain:
                return example, None
    except Exception:  # The arguments are the user's objects: reading them may raise.
        return None, None
    return None, None


def _answer(handler: ModelHandler, model: Any, example: Any) -> Any:
    return _examples.answer_of(handler.predict(copy.deepcopy(model), copy.deepcopy(example)))


def _written(value: Any, folder: Path, stem: str) -> tuple[dict[str, str] | None, str]:
    """Write an example without pickle; return None and the reason if that is not possible."""
    if value is None:
        return None, ""
    try:
        return _example_files.write(value, folder, stem), ""
    except Exception as error:
        for path in folder.glob(f"{stem}.*"):
            path.unlink()
        reraise_from_signal(error)
        return None, mask_text(format_error(error))[:500]


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Restore the global random generators afterwards: a recorded program must draw the same numbers."""
    before = [(kept, kept()) for kept in _generators()]
    try:
        yield
    finally:
        # An unchanged generator is left alone: another thread may be drawing.
        for kept, state in before:
            if not _same(state, kept()):
                kept.put_back(state)


class _Generator:
    """A global random generator: a call returns its state."""

    def __init__(self, get: Any, put_back: Any) -> None:
        self._get = get
        self.put_back = put_back

    def __call__(self) -> Any:
        return self._get()


def _generators() -> Iterator[_Generator]:
    yield _Generator(random.getstate, random.setstate)
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None:
        yield _Generator(numpy.get_state, numpy.set_state)
    if torch is not None and hasattr(torch, "get_rng_state"):
        yield _Generator(torch.get_rng_state, torch.set_rng_state)
        if torch.cuda.is_initialized():
            yield _Generator(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool((one == other).all()) if hasattr(one, "shape") else bool(one == other)


def _discarding_records(run: RunHandle, call: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a context whose records are discarded: `predict` may be decorated, for example."""
    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        example = run.detached("example", _DiscardingTarget(folder))

        def inside() -> Any:
            _context.enter(Scope(example, None, example, 0))
            return call(*args)

        return contextvars.copy_context().run(inside)


class _DiscardingTarget(Target):
    """A target that discards all events."""

    __slots__ = ("_folder",)

    def __init__(self, folder: str) -> None:
        super().__init__("trackdsl-nowhere:", folder, spool=Path(folder), deliver=False)
        self._folder = folder

    def new_file(self, name: str) -> tuple[Path, str]:
        """See `Target`; the file is deleted after the call."""
        relative = f"{next(self._files):06d}/{name}"
        path = Path(self._folder) / relative
        path.parent.mkdir(parents=True, mode=0o700)
        return path, relative

    def _append_first(self, payload: bytes, run: Losing | None = None, vital: bool = False) -> None:
        """Discard the event."""
