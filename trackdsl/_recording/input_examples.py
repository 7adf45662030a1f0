"""The input example of a model, and the prediction of the model for it."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_text
from trackdsl._recording.model_options import ModelRequest
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers import _example_files, _examples
from trackdsl.handlers._flavor import Inputs
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._model_handler import ModelHandler
from trackdsl.journal._store_target import DISCARDED, Target
from trackdsl.journal._target import target_for
from trackdsl.journal._writer import LossCounter

#: A larger model is not copied to predict the example, in bytes.
_MAX_COPIED = 32 << 20
#: Packages whose models may predict the example without the user having passed one.
_KNOWN = frozenset(
    ["builtins", "cloudpickle", "collections", "copyreg", "functools", "joblib", "keras", "lightgbm", "numpy", "pandas",
     "scipy", "sklearn", "tensorflow", "torch", "xgboost"]
)  # fmt: skip
#: How many arguments are tried as input of a model that does not record what it was fitted on.
_MAX_TRIES = 3


class WrittenExample(NamedTuple):
    """The input example of a model, as far as it was written.

    Attributes:
        file: describes the file of the example; None without one.
        answer_file: the same for the model's prediction.
        params: the parameters of the prediction.
        problem: why there is no example; empty if there is one, or the user gave none.
    """

    file: dict[str, str] | None
    answer_file: dict[str, str] | None
    params: dict[str, Any] | None
    problem: str


def write_example(
    run: RunHandle, folder: Path, handler: Handler, model: Any, request: ModelRequest, packages: Sequence[str]
) -> WrittenExample:
    """Write the user's input example, or an argument of the call that the model accepts, and the prediction for it.

    Args:
        run: the run that records the model.
        folder: contains `model/`, the files of the model; gets the files of the example.
        handler: the model's handler.
        model: the model.
        request: what the user gave.
        packages: the import names of the packages that the model refers to.
    """
    given = request.input_example is not None
    own, params, unfit = _given(request.input_example)
    tried = [(own, True)] if own is not None else _chosen(handler, model, request.arguments)
    size = sum(path.stat().st_size for path in (folder / "model").rglob("*") if path.is_file())
    may_call = given or (getattr(handler, "callable_unasked", False) and _is_known(model, packages))
    wants_answer = may_call and size <= _MAX_COPIED and request.signature is None
    example, answer = _try(run, handler, model, tried, wants_answer)
    file, problem = _written(example, folder, "example")
    if given and example is None:
        kind = type(request.input_example).__name__
        problem = unfit or f"{kind} is not an input example that the model and MLflow accept"
    return WrittenExample(file, _written(answer, folder, "answer")[0], params, problem)


def _is_known(model: Any, packages: Sequence[str]) -> bool:
    """Whether a model runs only code of well-known libraries: the user's own code may print, count, or take time."""
    parts = [model]
    for walk in ("modules", "_flatten_layers"):  # torch, Keras
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
        super().__init__(DISCARDED, folder, spool=Path(folder), deliver=False)
        self._folder = folder

    def new_file(self, name: str) -> tuple[Path, str]:
        """See `Target`; the file is deleted after the call."""
        relative = f"{next(self._files):06d}/{name}"
        path = Path(self._folder) / relative
        path.parent.mkdir(parents=True, mode=0o700)
        return path, relative

    def _append_first(self, payload: bytes, run: LossCounter | None = None, vital: bool = False) -> None:
        """Discard an event: the prediction for an input example records nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return target_for, (self.uri, self.cwd)
