"""Write metrics, parameters and tags of a run, fast, and keep faults in tracking away from the program."""

from __future__ import annotations

import enum
import operator
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from trackdsl._core import runtime
from trackdsl._core.argument_order import name_first
from trackdsl._core.events import INT64, LinkedMetrics, Metric, Metrics, Params, Scalar, Tags, encode
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import clean_names, is_secret, mask_prose, mask_text, remember
from trackdsl._core.runtime import Phase
from trackdsl._core.suppression import suppression
from trackdsl._recording.numbers import is_number, number_of
from trackdsl._recording.params import as_name
from trackdsl.errors import TrackdslError, format_error, is_fault, report, reraise_from_signal
from trackdsl.handlers._scalar_text import summary_of_member
from trackdsl.handlers._types import class_name

_now = time.time_ns
_MS = 1_000_000


class _NotGiven:
    def __repr__(self) -> str:
        return "..."


#: The default of an argument that may be None.
NOT_GIVEN: Any = _NotGiven()
#: The types that an event holds as they are. Not bool, which MessagePack would not return as a number.
_NUMBERS = frozenset([float, int])
_NAMES = frozenset([str])


class guarded:  # noqa: N801 - it is used as a function: `with guarded(...)`
    """Keeps faults in tracking away from user code: they are reported once per cause, and the block ends.

    Args:
        doing: the operation, for the log.
        run: gets a tag that reports what is missing.
    """

    __slots__ = ("_doing", "_run", "_thread")

    def __init__(self, doing: str, run: RunHandle | None = None) -> None:
        self._doing = doing
        self._run = run

    def __enter__(self) -> None:
        self._thread = suppression.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        suppression.end(self._thread)
        if error is None or not is_fault(error) or isinstance(error, TrackdslError):
            return False
        fault(self._doing, error)
        if self._run is not None:
            append_tags(self._run, {f"trackdsl.omitted.{self._doing}": mask_prose(format_error(error))[:500]})
        return True


def fault(doing: str, error: BaseException) -> None:
    """Report a fault. Hot paths call it, because `with guarded` takes a quarter of a microsecond."""
    if isinstance(error, TrackdslError):
        raise error
    reraise_from_signal(error)
    report("capture", f"trackdsl: {doing} failed: {format_error(error)}", key=doing)


def record_metric(run: RunHandle, name: str, value: Any, step: Any) -> None:
    """Write one metric point: the hottest path of the program."""
    kind = type(value)
    if (
        (kind is float or kind is int)
        and type(step) is int
        and type(name) is str
        and name in clean_names
        and _active_model is None
    ):
        target, now = run.target, _now()
        try:
            target.append(encode(Metric(run.key, name, value, step, now)), run)
        except (OverflowError, UnicodeEncodeError):
            pass
        else:
            if now > target.watch_at:
                target.watch(now)
            return
    name, value = name_first(name, value)
    if value is NOT_GIVEN or type(name).__hash__ is None:
        raise TypeError("log_metric() takes a name and a value: log_metric('loss', 0.25)")
    # This ends: the masked name is in `clean_names`.
    record_metrics(run, {as_name(name): value}, step)


def record_numbers(run: RunHandle, metrics: Mapping[str, Any], step: Any) -> bool:
    """Write points of several metrics if an event can hold them as they are; else return False."""
    if type(metrics) is not dict or type(step) is not int or _active_model is not None:
        return False
    # A copy, because another thread may change the user's dict between the check and the write.
    values = metrics.copy()
    if not values or not (_NUMBERS.issuperset(map(type, values.values())) and _NAMES.issuperset(map(type, values))):
        return False
    if not clean_names.issuperset(values):
        return False
    target, now = run.target, _now()
    try:
        target.append(encode(Metrics(run.key, values, step, now)), run)
    except (OverflowError, UnicodeEncodeError):
        return False
    if now > target.watch_at:
        target.watch(now)
    return True


class Link(NamedTuple):
    """The model that points belong to, as in `LinkedMetrics`, and the name and digest of their dataset."""

    model: str
    dataset: tuple[str, str] | None


#: The time of the last points that name a model, in nanoseconds since 1970.
_linked_at = 0
_ACTIVE_MODEL = "MLFLOW_ACTIVE_MODEL_ID"


def _active_model_of_environment() -> Callable[[], str | None] | None:
    return partial(os.environ.get, _ACTIVE_MODEL) if _ACTIVE_MODEL in os.environ else None


#: Returns the id of MLflow's active model in this thread, to which points belong that name no other model. None until
#: the program makes a model active.
_active_model = _active_model_of_environment()


def follow_active_model(active_model: Callable[[], str | None] | None) -> None:
    """Register the function that returns the id of MLflow's active model; None if no model was ever active."""
    global _active_model  # An attribute of an object would cost each metric one more lookup.
    _active_model = active_model


def follows_active_model() -> bool:
    """Whether a model was ever active."""
    return _active_model is not None


runtime.register("the active model", Phase.MEMORY, reset=lambda: follow_active_model(_active_model_of_environment()))


def record_metrics(
    run: RunHandle, metrics: Any, step: Any, timestamp: int | None = None, link: Link | None = None
) -> None:
    """Write points of several metrics. Values that are not numbers are left out, which a tag reports.

    Args:
        run: whose metrics they are.
        metrics: numbers by name; also nested structures, series and frames, see `series.py`.
        step: of the points; of the first point of a series.
        timestamp: in milliseconds since 1970; now by default.
        link: the model and dataset of the points.
    """
    if link is None is timestamp and record_numbers(run, metrics, step):
        return
    with guarded("log_metrics", run):
        if is_number(metrics) and not is_number(step):  # They were given in the other order.
            metrics, step = step, metrics
        link = _active(link)
        first_step, tags = _valid_step(step)
        plain = _plain_numbers(metrics)
        if plain is not None:
            found = [(first_step, plain)]
        else:
            # Imported here: programs that record only numbers do not need it.
            from trackdsl._recording.series import Points

            points = Points(first_step)
            points.add_all(metrics)
            found = [(first_step, points.values), *points.series()]
            tags |= {f"trackdsl.omitted.{as_name(name)}": why for name, why in points.omitted.items()}
        now = _now() if timestamp is None else int(timestamp * 1_000_000)
        for at_step, values in found:
            if values:
                named = {as_name(name): value for name, value in values.items()}
                event = Metrics(run.key, named, _within(at_step), now)
                run.target.append(encode(event if link is None else _linked(event, link, timestamp)), run)
        if tags:
            reasons = "; ".join(f"{key.removeprefix('trackdsl.omitted.')}: {reason}" for key, reason in tags.items())
            report("omitted", f"trackdsl left out values that are not metrics: {reasons}", key=str(sorted(tags)))
            append_tags(run, tags)


def _active(link: Link | None) -> Link | None:
    """Link points to the active model, if there is one and the link names no other."""
    active = None if _active_model is None or (link is not None and link.model) else _active_model()
    return Link(active, None if link is None else link.dataset) if active else link


def _linked(event: Metrics, link: Link, timestamp: int | None) -> LinkedMetrics:
    """Give points a millisecond of their own: a model has one point per metric, step and millisecond."""
    global _linked_at
    time = event.time
    if timestamp is None:
        time = _linked_at = max(time, _linked_at + _MS)
    return LinkedMetrics(event.run, event.values, event.step, time, *link)


def _plain_numbers(metrics: Any) -> dict[Any, float] | None:
    """A dict that contains only numbers, of any library, as Python numbers; None for other values."""
    if type(metrics) is not dict:
        return None
    found = {}
    try:
        for name, value in metrics.copy().items():
            number = number_of(value)
            if number is None:
                return None
            found[name] = number
    except Exception:  # The slower code finds out which value failed, and why.
        return None
    return found


def _valid_step(step: Any) -> tuple[int, dict[str, str]]:
    """A step that MLflow can hold, and a tag that reports a changed step."""
    tags = {}
    try:
        number = operator.index(step)
    except TypeError:
        try:
            number = int(step)
        except (TypeError, ValueError, OverflowError):
            number = 0
        reason = f"step {step!s:.200} is not an integer; recorded at step {number}"
        tags["trackdsl.omitted.step"] = mask_prose(reason)[:500]
    if number != _within(number):
        tags["trackdsl.omitted.step"] = f"step {number} does not fit 64 bits; recorded at the nearest step that does"
    return _within(number), tags


def _within(step: int) -> int:
    return min(max(step, -INT64), INT64 - 1)


def append_params(run: RunHandle, values: dict[str, Scalar]) -> None:
    """Write parameters that are flat and masked already."""
    if not values:
        return
    run.emit(Params(run.key, values))


def append_tags(run: RunHandle, values: dict[str, str]) -> None:
    """Write tags that are masked already."""
    if not values:
        return
    run.emit(Tags(run.key, values), vital=True)


def clean_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags as text, with secrets masked. A tag reports a value that cannot be read."""
    if tags is not None and not isinstance(tags, Mapping):
        raise TypeError(f"tags must be a dict of names and values, not {class_name(tags)}")
    return tags_of(dict(tags or {}).items())


def tags_of(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Pairs of name and value as tags, with secrets masked. A tag reports a value that cannot be read."""
    found = {}
    for key, value in pairs:
        name = as_name(key)
        try:
            text = str(summary_of_member(value)) if isinstance(value, enum.Enum) else str(value)
            found[name] = remember(value) if is_secret(name, value) else mask_text(text)
        except Exception as error:
            reraise_from_signal(error)
            found[f"trackdsl.omitted.{name}"] = mask_prose(format_error(error))[:500]
    return found
