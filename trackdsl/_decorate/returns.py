"""Return values → metrics, files, models and datasets of a run.

The plan is made once, at decoration, from the names given to `track_returns` and the markers of the return annotation.
The caller gets the value unchanged, and recording it never raises.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, get_args, get_origin

from trackdsl._core.redaction import mask_prose
from trackdsl._decorate.arguments import CallPlan
from trackdsl._recording.choices import Choices, Expected
from trackdsl._recording.collector import Collector, NumberCollector
from trackdsl._recording.emit import append_tags, guarded, record_numbers
from trackdsl._recording.sorting import Sorter
from trackdsl._runs.run import Run
from trackdsl.errors import ReturnsError, report
from trackdsl.handlers._annotations import annotations_of

#: The return annotations of generator functions. Their first argument is the type of what is yielded.
_YIELDING = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)


class ReturnPlan:
    """How the return values of one function are recorded.

    Args:
        fn: the function.
        names: names of the returned values, in order.
        prefix: put before every metric's name.
        metrics: the only names to record as metrics, or None for all numbers.
        artifacts: the only names to record as files (a mapping gives their paths), or None for all the rest.

    Raises:
        ReturnsError: there are more names than the return annotation has values.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        names: tuple[str, ...] = (),
        prefix: str = "",
        metrics: Collection[str] | None = None,
        artifacts: Collection[str] | Mapping[str, str] | None = None,
    ) -> None:
        name: str = getattr(fn, "__name__", type(fn).__name__)
        self._choices = Choices.of(name, names, metrics, artifacts)
        self._prefix = prefix
        self._unread: Callable[..., Any] | None = fn
        self._expected = Expected()
        self._yielded = Expected()
        self._chooses = bool(names or prefix or metrics is not None or artifacts is not None)
        #: Whether no option or marker applies, so that a dict of numbers can be recorded without sorting it.
        self._plain = self._yields_plain = False
        self._read_annotation()
        count = len(self._expected.parts)
        if 0 < count < len(names):
            raise self._too_many(count)

    def record(
        self,
        run: Run,
        value: Any,
        step: int,
        plan: CallPlan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        section: str = "",
    ) -> None:
        """Record one returned value. Names without a value are reported.

        Args:
            run: the run to record to.
            value: what the function returned.
            step: the step of the metrics.
            plan: the plan of the call.
            args: the positional arguments, from which a model's input example is taken.
            kwargs: the keyword arguments.
            section: `name/` for a section of a run, else empty.
        """
        if value is None:
            return
        if self._unread is not None:
            self._read_annotation()
            self._unread = None
        if self._plain and not section and record_numbers(run, value, step):
            return
        with guarded("track_returns", run):
            collector = Collector(run, section + self._prefix, step, partial(plan.open_arguments, args, kwargs))
            sorter = Sorter(self._choices, collector)
            try:
                sorter.sort(value, self._expected)
            finally:
                collector.write()
            returned = "" if sorter.by_key else f"{sorter.count} value{'s' if sorter.count != 1 else ''}"
            self._report_unmet(run, {**sorter.absent, **self._choices.missing(sorter.found, returned)})

    def record_numbers(self, run: Run, value: Any, step: int, met: dict[str, None], section: str = "") -> None:
        """Record the numbers in a yielded value, and ignore the rest of it.

        Args:
            run: the run to record to.
            value: what was yielded.
            step: the step of the metrics.
            met: the names of all values so far, to which the names of this value are added.
            section: as for `record`.
        """
        if value is None:
            return
        if self._yields_plain and not section and record_numbers(run, value, step):
            return
        with guarded("track_returns", run):
            collector = NumberCollector(run, section + self._prefix, step, dict)
            sorter = Sorter(self._choices, collector)
            try:
                sorter.sort(value, self._yielded)
            finally:
                collector.write()
                met.update(sorter.found)

    def report_unmet_by_yields(self, run: Run, met: dict[str, None]) -> None:
        """Report the names given to `track_returns` that no yielded value has."""
        with guarded("track_returns", run):
            self._report_unmet(run, self._choices.missing(met, "no such value"))

    def _report_unmet(self, run: Run, unmet: Mapping[str, str]) -> None:
        if unmet:
            why = {name: mask_prose(reason)[:500] for name, reason in unmet.items()}
            missing = "; ".join(f"{name!r}: {reason}" for name, reason in why.items())
            report(
                "returns", f"trackdsl recorded nothing for {missing}", key=f"{self._choices.function}:{sorted(unmet)}"
            )
            append_tags(run, {f"trackdsl.omitted.{name}": reason for name, reason in why.items()})

    def _too_many(self, count: int) -> ReturnsError:
        given = self._choices.names
        names = ", ".join(repr(name) for name in given)
        return ReturnsError(
            f"@track_returns({names}) has {len(given)} names, but {self._choices.function}() returns {count} values. "
            f"Remove {', '.join(repr(n) for n in given[count:])}, or return a value for each name.",
            names=given,
        )

    def _read_annotation(self) -> None:
        fn = self._unread
        if fn is None:
            return
        annotations = annotations_of(fn)
        annotation = annotations.get("return")
        yields = get_origin(annotation) in _YIELDING
        # The last of the three arguments of `Generator` is the type of its return value.
        expected = Expected.of(annotations, (get_args(annotation)[2:] or (None,))[0] if yields else annotation)
        # Reading it a second time, with fewer names known, may give less.
        if expected.has_effect() or expected.parts:
            self._expected = expected
        yielded = get_args(annotation)[:1] if yields else ()
        self._yielded = Expected.of(annotations, yielded[0]) if yielded else self._expected
        self._plain = not self._chooses and not self._expected.has_effect()
        self._yields_plain = not self._chooses and not self._yielded.has_effect()
        if not annotations.missing and not annotations.failed:
            self._unread = None
