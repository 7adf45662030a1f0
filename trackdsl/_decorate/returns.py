"""What a function returns → metrics, files, models and datasets of a run.

The plan is compiled once, at decoration, from the names given to `track_returns` and the markers of the return
annotation. The value itself is handed on untouched, and nothing is raised once it is there.
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

#: What a generator function is annotated to return; the first argument says what it yields.
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
        #: Nothing chooses, names or places: a dict of numbers is recorded as it is.
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
        """Record one returned value, as far as that goes; what has a name and is not there is reported.

        Args:
            run: where to.
            value: what the function returned.
            step: of the metrics.
            plan: of the call.
            args: its arguments; a model's input example is taken from them.
            kwargs: those given by name.
            section: `name/` for a section of a run, else nothing.
        """
        if value is None:
            return
        if self._unread is not None:
            self._read_annotation()
            self._unread = None
        if self._plain and not section and record_numbers(run, value, step):
            return
        with guarded("track_returns", run):
            found = Collector(run, section + self._prefix, step, partial(plan.open_arguments, args, kwargs))
            sorter = Sorter(self._choices, found)
            try:
                sorter.sort(value, self._expected)
            finally:
                found.write()
            returned = "" if sorter.by_key else f"{sorter.count} value{'s' if sorter.count != 1 else ''}"
            self._report_unmet(run, {**sorter.absent, **self._choices.unmet(sorter.met, returned)})

    def record_numbers(self, run: Run, value: Any, step: int, met: dict[str, None], section: str = "") -> None:
        """Record the numbers in a value, such as one that a generator yields; everything else is passed over.

        Args:
            run: where to.
            value: what was yielded.
            step: of the metrics.
            met: the names that values have had so far; those of this one are added.
            section: as for `record`.
        """
        if value is None:
            return
        if self._yields_plain and not section and record_numbers(run, value, step):
            return
        with guarded("track_returns", run):
            found = NumberCollector(run, section + self._prefix, step, dict)
            sorter = Sorter(self._choices, found)
            try:
                sorter.sort(value, self._yielded)
            finally:
                found.write()
                met.update(sorter.met)

    def report_unmet_by_yields(self, run: Run, met: dict[str, None]) -> None:
        """Report the names that nothing had which a generator has yielded."""
        with guarded("track_returns", run):
            self._report_unmet(run, self._choices.unmet(met, "no such value"))

    def _report_unmet(self, run: Run, unmet: Mapping[str, str]) -> None:
        if unmet:
            why = {name: mask_prose(reason)[:500] for name, reason in unmet.items()}
            told = "; ".join(f"{name!r}: {reason}" for name, reason in why.items())
            report("returns", f"trackdsl recorded nothing for {told}", key=f"{self._choices.function}:{sorted(unmet)}")
            append_tags(run, {f"trackdsl.omitted.{name}": reason for name, reason in why.items()})

    def _too_many(self, count: int) -> ReturnsError:
        given = self._choices.names
        names = ", ".join(repr(name) for name in given)
        return ReturnsError(
            f"@track_returns({names}) names {len(given)} values, but {self._choices.function}() returns {count}. "
            f"Drop {', '.join(repr(n) for n in given[count:])}, or return as many values as there are names.",
            names=given,
        )

    def _read_annotation(self) -> None:
        fn = self._unread
        if fn is None:
            return
        annotations = annotations_of(fn)
        annotation = annotations.get("return")
        yields = get_origin(annotation) in _YIELDING
        # Of the three that a `Generator` has, the last is what it returns.
        expected = Expected.of(annotations, (get_args(annotation)[2:] or (None,))[0] if yields else annotation)
        # Read a second time, further from where it was written, it may tell less.
        if expected.says_anything() or expected.parts:
            self._expected = expected
        yielded = get_args(annotation)[:1] if yields else ()
        self._yielded = Expected.of(annotations, yielded[0]) if yielded else self._expected
        self._plain = not self._chooses and not self._expected.says_anything()
        self._yields_plain = not self._chooses and not self._yielded.says_anything()
        if not annotations.missing and not annotations.failed:
            self._unread = None
