"""`runs`: the runs of experiments as a data frame, and `best`: the run with the best value of a metric."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from trackdsl._core.suggest import suggestion_for
from trackdsl._core.terminal import at_terminal
from trackdsl.errors import ExperimentNotFound, QueryError
from trackdsl.query import _shown
from trackdsl.query._call_filters import without_call_values
from trackdsl.query._conditions import Condition, conditions_from
from trackdsl.query._frame import frame_of, paths_of
from trackdsl.query._grammar import check_filter, is_nameable, quoted_key
from trackdsl.query._order import order_in_mlflow
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundExperiment, FoundRun, Search
from trackdsl.query._store import opened
from trackdsl.query._superseded import superseded_ids

if TYPE_CHECKING:
    from trackdsl.query._frame_type import Frame

#: Reading that takes longer shows a progress bar, in seconds.
_BAR_AFTER = 1.0


def runs(
    experiment: str | Sequence[str] | None = None,
    where: str | None = None,
    order_by: str | Sequence[str] | None = None,
    max_results: int | None = None,
    *,
    numbers: bool = True,
    superseded: bool = False,
    tracking_uri: str | None = None,
    **conditions: Any,
) -> Frame:
    r"""The runs of experiments as a pandas data frame with a row for each run.

    The columns are `run_id` (MLflow's), `id` (trackdsl's), `name`, `experiment`, `status`, `start` (UTC), `duration`
    (seconds), `parent` (MLflow's id) and `path` (the names from the root run down). Then follow `params.<name>`,
    `metrics.<name>` (the latest value) and `tags.<name>`, your own tags first. Values that a run does not have are
    missing (`isna()`).

    A column of parameters has numbers or booleans if every text in it is what Python writes for such a value, so that
    `str` gives the text back. With `numbers=False` all parameters stay text. Metrics are as MLflow has them: NaN stays
    NaN, and infinity is the largest float.

    Keywords are conditions, and a run has to pass all of them. A name is a column (`status="FINISHED"`), else a metric
    or parameter, else a tag. Use `metrics__loss`, `params__lr` or `tags__team` to choose. A name can end with an
    operator: `__ne`, `__gt`, `__ge`, `__lt`, `__le`, `__in`, and for text `__like`, `__ilike`, `__contains`,
    `__startswith`. Numbers are compared as numbers: `epochs=10` finds the parameters `10` and `10.0`. As in MLflow, a
    run without the name passes no condition, not even `__ne`. Use a dictionary for names that are not identifiers:
    `runs("churn", **{"val/loss__lt": 0.3})`.

    The function first waits for the delivery of this process's records, for 30 seconds at most.

    Args:
        experiment: the name or MLflow's id of an experiment, or several; by default all that are not deleted.
        where: a filter in MLflow's language, such as `"metrics.accuracy > 0.9 AND params.model = 'rf'"`. It can also
            name a field of the tag `trackdsl.call`: `"tags.trackdsl.call.function = 'shop.train'"`.
        order_by: one name or several, such as `"accuracy DESC"`, `"params.lr"` or `"start"`; by default the newest
            first. MLflow orders parameters as text.
        max_results: the largest number of runs; by default all.
        numbers: whether to convert parameters to numbers and booleans.
        superseded: include runs of notebook cells that were executed again since, and the runs below them.
        tracking_uri: the store; by default the configured one.
        **conditions: see above.

    Returns:
        the data frame.

    Raises:
        ExperimentNotFound: there is no such experiment.
        QueryError: the filter, an operator, a name or a value is not valid.
        TrackingServerUnreachable: no server answers at the tracking URI.

    Example:
        >>> runs("churn", accuracy__gt=0.9, model="rf", order_by="accuracy DESC")  # doctest: +SKIP
    """
    with opened(tracking_uri) as reader:
        asked = Question.of(reader, experiment, where, order_by, conditions, superseded=superseded)
        matches = asked.ask(max_results)
        return frame_of(matches, asked.names, paths_of(matches, reader), numbers=numbers)


@dataclass(frozen=True)
class BestRun:
    """The run with the best value of a metric.

    Attributes:
        run_id: MLflow's id.
        id: trackdsl's id; None for a run of plain MLflow.
        name: its name.
        experiment: the name of its experiment.
        status: its status.
        metric: the metric.
        value: its value of the metric.
        params: its parameters, as text.
        metrics: its metrics.
        tags: its tags.
    """

    run_id: str
    id: str | None
    name: str
    experiment: str
    status: str
    metric: str
    value: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<BestRun {self.name!r} {self.metric} {_shown.number(self.value)} {self.run_id}>"


def best(
    experiment: str | Sequence[str] | None,
    metric: str,
    mode: str = "max",
    where: str | None = None,
    *,
    superseded: bool = False,
    tracking_uri: str | None = None,
    **conditions: Any,
) -> BestRun:
    """The run whose latest value of a metric is the largest or smallest; the newest one if several are equal.

    Runs of every status count, including those that still run. Use `status="FINISHED"` to exclude others.

    Args:
        experiment: see `runs`.
        metric: the name of the metric.
        mode: `max` or `min`.
        where: see `runs`.
        superseded: see `runs`.
        tracking_uri: the store; by default the configured one.
        **conditions: see `runs`.

    Returns:
        the run. NaN is never the best value.

    Raises:
        QueryError: no run has the metric, or no run with it passes the conditions; see also `runs`.

    Example:
        >>> best("churn", "accuracy", model="rf").params["lr"]  # doctest: +SKIP
        '0.1'
    """
    if mode not in ("max", "min"):
        raise QueryError(f"mode is 'max' or 'min', not {mode!r}.", argument="mode", suggestion="max")
    check_metric(metric)
    with opened(tracking_uri) as reader:
        asked = Question.of(reader, experiment, where, None, conditions, superseded=superseded)
        metric = _known_metric(metric, reader, asked)
        order = f"metrics.{quoted_key(metric)} {'DESC' if mode == 'max' else 'ASC'}"
        for run in asked.passing(order=(order,)):
            value = run.metrics.get(metric)
            if value is None:
                break  # Runs without the metric come last.
            if not math.isnan(value):
                return _best_run(run, asked, metric, value)
        limits = " that passes the conditions" if where or conditions else ", other than NaN"
        raise QueryError(f"no run has a value of {metric!r}{limits}.", argument="metric")


def _best_run(run: FoundRun, asked: Question, metric: str, value: float) -> BestRun:
    return BestRun(
        run_id=run.run_id,
        id=run.id,
        name=run.name,
        experiment=asked.names[run.experiment_id],
        status=run.status,
        metric=metric,
        value=value,
        params=dict(run.params),
        metrics=dict(run.metrics),
        tags=dict(run.tags),
    )


def check_metric(metric: object) -> None:
    """Check that the name of a metric is text.

    Raises:
        QueryError: it is not.
    """
    if not isinstance(metric, str):
        raise QueryError(f"a metric is given by its name, such as 'loss', not by {metric!r}.", argument="metric")


def _known_metric(metric: str, reader: PagedReader, asked: Question) -> str:
    from trackdsl.store_format.limits import fit_key

    for name in (metric, fit_key(metric)):
        if is_nameable(name) and reader.has_key("metrics", name, tuple(asked.names)):
            return name
    raise no_metric(metric, sorted(reader.keys(tuple(asked.names))["metrics"]), reader)


def no_metric(metric: str, known: Sequence[str], reader: PagedReader) -> QueryError:
    """The error about a metric that no run has."""
    nearest = suggestion_for(metric, known)
    there = (
        f"There are: {', '.join(map(_shown.printable, known[:20]))}{' …' if len(known) > 20 else ''}."
        if known
        else "There are none."
    )
    missing = f"there is no metric {metric!r}{nearest.text} {there}"
    message = reader.absent(f"the metric {metric!r}", missing, nearest.text)
    return QueryError(message, argument="metric", suggestion=nearest.name)


@dataclass(frozen=True)
class Question:
    """A query for runs, after its arguments were checked.

    Attributes:
        reader: the reader of the store.
        names: the names of the experiments, by MLflow's id.
        where: the filter that the user gave, in MLflow's language.
        prefilter: what MLflow's language can express of the conditions.
        order_by: the order, in MLflow's language.
        conditions: the conditions that runs have to pass too.
    """

    reader: PagedReader
    names: Mapping[str, str]
    where: str
    prefilter: str
    order_by: tuple[str, ...]
    conditions: tuple[Condition, ...]
    left_out: frozenset[str]

    @classmethod
    def of(
        cls,
        reader: PagedReader,
        experiment: str | Sequence[str] | None,
        where: str | None,
        order_by: str | Sequence[str] | None,
        conditions: Mapping[str, Any],
        *,
        superseded: bool = False,
    ) -> Question:
        """Check the arguments of a query.

        Raises:
            QueryError: one of them is not valid.
        """
        on_calls: list[Condition] = []
        if where:
            check_filter(where)
            where, on_calls = without_call_values(where)
        names = {one.id: one.name for one in _experiments(experiment, reader)}
        ids = tuple(names)
        read = (*on_calls, *conditions_from(conditions, reader, ids))
        prefilter = " AND ".join(part for part in (one.prefilter() for one in read) if part)
        left_out = frozenset() if superseded else superseded_ids(reader, ids)
        return cls(reader, names, where or "", prefilter, order_in_mlflow(order_by, reader, ids), read, left_out)

    def ask(self, most: int | None, *, roots_first: bool = False) -> list[FoundRun]:
        """The runs that match, in order.

        Args:
            most: the largest number of runs, or None for all.
            roots_first: if no order is given, root runs come before all others.
        """
        if not _is_count(most):
            raise QueryError(f"max_results is a number of runs, not {most!r}.", argument="max_results")
        if most == 0:
            return []
        if not roots_first or self.order_by:
            return list(islice(self.passing(most), most))
        roots = list(islice(self.passing(most, roots=True), most))
        left = None if most is None else most - len(roots)
        return roots if left == 0 else roots + list(islice(self.passing(left, roots=False), left))

    def passing(
        self, most: int | None = None, order: tuple[str, ...] | None = None, roots: bool | None = None
    ) -> Iterator[FoundRun]:
        """Iterate over the runs; see `Search` for `roots`."""
        limit = None if self.conditions or self.left_out else most
        ordered = self.order_by if order is None else order
        wanted = Search(tuple(self.names), self.where, self.prefilter, ordered, limit, roots)
        for run in _with_bar(iter(self.reader.search(wanted))):
            if run.run_id not in self.left_out and all(condition.holds(run) for condition in self.conditions):
                yield run


def _with_bar(found: Iterator[FoundRun]) -> Iterator[FoundRun]:
    """The runs, with a progress bar once reading takes long. Until then, tqdm is not imported."""
    end = time.monotonic() + _BAR_AFTER
    count = 0
    for run in found:
        yield run
        count += 1
        if time.monotonic() > end:
            break
    else:
        return
    from tqdm import tqdm

    hidden = not at_terminal()
    yield from tqdm(found, desc="trackdsl: reading runs", unit=" runs", initial=count, disable=hidden, leave=False)


def _is_count(most: object) -> bool:
    return most is None or (isinstance(most, int) and not isinstance(most, bool) and most >= 0)


def _experiments(asked: str | Sequence[str] | None, reader: PagedReader) -> list[FoundExperiment]:
    if asked is None:
        return reader.experiments()
    names: list[Any] = [asked] if isinstance(asked, str) or not isinstance(asked, Iterable) else list(asked)
    return list(dict.fromkeys(_experiment(name, reader) for name in names))


def _experiment(name: str, reader: PagedReader) -> FoundExperiment:
    if not isinstance(name, str):
        raise QueryError(f"an experiment is given by its name, not by {name!r}.", argument="experiment")
    known = reader.experiments()
    match = next((one for one in known if one.name == name), None) or next(
        (one for one in known if one.id == name), None
    )
    if match is not None:
        return match
    deleted = next((one for one in reader.experiments(deleted=True) if name in (one.name, one.id)), None)
    if deleted is not None:
        raise ExperimentNotFound(
            f"the experiment {name!r} is deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {deleted.id}`.",
            argument="experiment",
        )
    names = [one.name for one in known]
    nearest = suggestion_for(name, names)
    there = f"There are: {', '.join(map(repr, names[:20]))}{' …' if len(names) > 20 else ''}."
    missing = f"there is no experiment {name!r}{nearest.text} {there}"
    message = reader.absent(f"the experiment {name!r}", missing, nearest.text)
    raise ExperimentNotFound(message, argument="experiment", suggestion=nearest.name)
