"""Writes the tree of a root run as a trace, through MLflow's client of version 3.1 or later.

The calls are those that MLflow's own exporter of traces makes: its public functions choose ids themselves, send in the
background, and only log what fails.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from trackdsl.delivery.mlflow_client._connection import DATABASES, MlflowConnection
from trackdsl.delivery.mlflow_client._errors import is_final
from trackdsl.delivery.store._run_trace import RunTrace, StageSpan, preview
from trackdsl.errors import logger
from trackdsl.store_format.tags import ID_TAG

#: Spans of one request.
_PART = 250
#: Traces that MLflow made inside the runs: how many are read, and how many spans of them are copied.
_MOST_READ, _MOST_COPIED = 200, 1000
#: A trace may begin this long before its run, and end this long after it, in milliseconds: clocks of machines differ.
_TOLERANCE = 1000
_RUN = "mlflow.sourceRun"
#: The stores in which a trace can be changed.
_IN_TABLES = ("http", *DATABASES)
_LOCATION, _IN_THE_STORE = "mlflow.trace.spansLocation", "TRACKING_STORE"
#: The attributes that MLflow adds up over all traces, or takes for the whole trace's, in its own names and in those of
#: OpenTelemetry's conventions for language models.
_COUNTED = re.compile(r"(?i)usage|cost|token|^(session|user)\.id$|conversation\.id$")
#: The prefix of their names in a copy.
_COPIED = "trackdsl.copied."
_TYPE = "mlflow.spanType"


class MlflowTraces(MlflowConnection):
    """Writes traces."""

    def write_trace(self, trace: RunTrace, check_interrupt: Callable[[], None]) -> str:
        """See `Sink`."""
        with self._translated():
            self._point_mlflow_here()
            tracing: Any = getattr(self._client, "_tracing_client", None) or self._client._tracking_client
            known = self._found_trace(trace)
            takes_ids = _takes_ids(tracing.store)
            trace_id = own_id = f"tr-{trace.id}"
            if known is not None:
                trace_id = str(known.trace_id)
            elif not takes_ids:
                trace_id = _begin(tracing.store, trace)
            spans, left_out = self._spans(trace, trace_id, check_interrupt)
            trace = replace(trace, left_out=left_out)
            in_the_store = True
            for start in range(0, len(spans), _PART):
                check_interrupt()
                in_the_store = in_the_store and _log_spans(tracing, trace.experiment_id, spans[start : start + _PART])
            check_interrupt()
            # A server that chose the id, although MLflow here is newer, would make another trace. Files stay the same.
            is_kept = known is not None and takes_ids and (trace_id != own_id or not self._uri.startswith(_IN_TABLES))
            info = known if is_kept else _end(tracing.store, trace, trace_id)
            if not in_the_store or info.tags.get(_LOCATION) != _IN_THE_STORE:
                from mlflow.entities import TraceData

                if str(info.trace_id) != trace_id:
                    spans, _ = self._spans(trace, str(info.trace_id), check_interrupt)
                tracing._upload_trace_data(info, TraceData(spans=spans))
            return str(info.trace_id)

    def _spans(self, trace: RunTrace, trace_id: str, check_interrupt: Callable[[], None]) -> tuple[list[Any], str]:
        """The spans of the runs, and those that MLflow recorded inside; and what is left out."""
        number = int(trace.id, 16)
        found = self._traces_around(trace)
        check_interrupt()
        inner = list(islice(self._inner_spans(found, trace, trace_id, number, check_interrupt), _MOST_COPIED + 1))
        left_out = [trace.left_out]
        if len(inner) > _MOST_COPIED:
            left_out.append(f"all but the first {_MOST_COPIED:,} spans of MLflow's own traces")
        elif len(found) > _MOST_READ:
            left_out.append(f"all but the first {_MOST_READ:,} of MLflow's traces from that time")
        spans = [_span(span, trace_id, number) for span in trace.spans]
        return spans + inner[:_MOST_COPIED], "; ".join(filter(None, left_out))

    def _traces_around(self, trace: RunTrace) -> Sequence[Any]:
        """The traces of the same time."""
        first, last = trace.root.start // 1_000_000 - _TOLERANCE, trace.root.end // 1_000_000 + _TOLERANCE
        where = f"attributes.timestamp_ms >= {first} AND attributes.timestamp_ms <= {last}"
        return self._search_traces(trace.experiment_id, where, _MOST_READ + 1, include_spans=False)

    def _found_trace(self, trace: RunTrace) -> Any:
        """MLflow's description of the trace that was made before; None if there is none."""
        traces = self._search_traces(trace.experiment_id, f"tags.`{ID_TAG}` = '{trace.id}'", 1, include_spans=False)
        return next((one.info for one in traces), None)

    def _search_traces(self, experiment_id: str, where: str, most: int, *, include_spans: bool) -> Sequence[Any]:
        search = self._client.search_traces
        name = "locations" if "locations" in inspect.signature(search).parameters else "experiment_ids"
        options: dict[str, Any] = {name: [experiment_id]}
        traces: Sequence[Any] = search(filter_string=where, max_results=most, include_spans=include_spans, **options)
        return traces

    def _inner_spans(
        self, found: Sequence[Any], trace: RunTrace, trace_id: str, number: int, check_interrupt: Callable[[], None]
    ) -> Iterator[Any]:
        """The spans of the traces that MLflow made inside the runs, below the spans of these runs."""
        for inner in found[:_MOST_READ]:
            around = trace.span_of.get(inner.info.trace_metadata.get(_RUN, ""))
            if around is None or ID_TAG in inner.info.tags:
                continue
            check_interrupt()
            for span in self._spans_of(inner.info.trace_id, trace):
                yield _moved(span, trace_id, number, around)

    def _spans_of(self, trace_id: str, around: RunTrace) -> Sequence[Any]:
        """The spans of a trace; none if its data was never stored, as when a program is killed."""
        try:
            return list(self._client.get_trace(trace_id).data.spans)
        except Exception as error:
            if not is_final(error, self._uri.startswith("http")):
                raise
            logger.warning("trackdsl: trace %s is left out of that of run %s: %s", trace_id, around.run_id, error)
            return []


def _takes_ids(store: Any) -> bool:
    """Whether a store takes the id of a trace. In MLflow 3.1 it chooses one."""
    return "trace_info" in inspect.signature(store.start_trace).parameters


def _log_spans(tracing: Any, experiment_id: str, spans: list[Any]) -> bool:
    """Write spans to the tables of the store; returns whether it has such: since MLflow 3.4."""
    if not hasattr(tracing, "log_spans"):
        return False
    try:
        tracing.log_spans(experiment_id, spans)
    except NotImplementedError:
        return False
    return True


def _begin(store: Any, trace: RunTrace) -> str:
    began = store.start_trace(
        experiment_id=trace.experiment_id,
        timestamp_ms=trace.root.start // 1_000_000,
        request_metadata=_metadata(trace),
        tags=_tags(trace),
    )
    return str(began.request_id)


def _end(store: Any, trace: RunTrace, trace_id: str) -> Any:
    """Write what is known of the whole trace; returns its description."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    root = trace.root
    if not _takes_ids(store):
        from mlflow.entities.trace_status import TraceStatus

        status = TraceStatus.OK if root.status == "FINISHED" else TraceStatus.ERROR
        return store.end_trace(
            request_id=trace_id,
            timestamp_ms=root.end // 1_000_000,
            status=status,
            request_metadata=_metadata(trace),
            tags=_tags(trace),
        )
    return store.start_trace(
        TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(trace.experiment_id),
            request_time=root.start // 1_000_000,
            execution_duration=(root.end - root.start) // 1_000_000,
            state=TraceState.OK if root.status == "FINISHED" else TraceState.ERROR,
            request_preview=preview(root.inputs),
            response_preview=preview(root.outputs),
            trace_metadata=_metadata(trace),
            tags=_tags(trace),
        )
    )


def _metadata(trace: RunTrace) -> dict[str, str]:
    from mlflow.tracing.constant import TRACE_SCHEMA_VERSION, TRACE_SCHEMA_VERSION_KEY

    texts = {"mlflow.traceInputs": preview(trace.root.inputs), "mlflow.traceOutputs": preview(trace.root.outputs)}
    version = {TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION)}
    return {name: text[:250] for name, text in trace.metadata.items()} | texts | version | {_RUN: trace.run_id}


def _tags(trace: RunTrace) -> dict[str, str]:
    left_out = {"trackdsl.left_out": trace.left_out} if trace.left_out else {}
    return {"mlflow.traceName": trace.root.name[:250], ID_TAG: trace.id, **left_out}


def _span(span: StageSpan, trace_id: str, number: int) -> Any:
    """A span of MLflow."""
    from mlflow.entities import SpanStatus, SpanStatusCode

    ended_well = span.status == "FINISHED"
    failure = "" if span.failure is None else f"{span.failure.type}: {span.failure.message}"
    attributes = {
        **span.attributes,
        _TYPE: "CHAIN",
        "mlflow.spanInputs": dict(span.inputs),
        "mlflow.spanOutputs": dict(span.outputs),
    }
    return _readable(
        trace_id,
        number,
        span.id,
        span.parent,
        name=span.name,
        start_time=span.start,
        end_time=span.end,
        attributes={name: json.dumps(value) for name, value in attributes.items()},
        status=SpanStatus(
            SpanStatusCode.OK if ended_well else SpanStatusCode.ERROR, "" if ended_well else failure or span.status
        ).to_otel_status(),
        events=_events(span),
    )


def _events(span: StageSpan) -> list[Any]:
    from opentelemetry.sdk.trace import Event

    if span.failure is None:
        return []
    texts = {
        "exception.type": span.failure.type,
        "exception.message": span.failure.message,
        "exception.stacktrace": span.failure.traceback,
    }
    return [Event("exception", texts, span.end)]


def _moved(span: Any, trace_id: str, number: int, around: int) -> Any:
    """A copy of a span of another trace; without a parent of its own, it is below the span of its run."""
    one = span._span
    return _readable(
        trace_id,
        number,
        one.context.span_id,
        around if one.parent is None else one.parent.span_id,
        name=one.name,
        start_time=one.start_time,
        end_time=one.end_time,
        attributes=_uncounted(one.attributes),
        status=one.status,
        events=list(one.events),
    )


def _uncounted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a copy, which MLflow does not count a second time: its totals have the original already.

    >>> _uncounted({"gen_ai.usage.input_tokens": "7", "mlflow.spanType": '"TOOL"'})
    {'trackdsl.copied.gen_ai.usage.input_tokens': '7', 'mlflow.spanType': '"FUNCTION"'}
    """
    copied = {f"{_COPIED}{name}" if _COUNTED.search(name) else name: value for name, value in attributes.items()}
    if copied.get(_TYPE) == '"TOOL"':  # MLflow counts the calls of tools. Its trace view has a sign for functions too.
        copied[_TYPE] = '"FUNCTION"'
    return copied


def _readable(trace_id: str, number: int, id_: int, parent: int | None, *, attributes: Any, **fields: Any) -> Any:
    from mlflow.entities import Span
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TraceFlags

    def context(span: int) -> SpanContext:
        return SpanContext(number, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    return Span(
        ReadableSpan(
            context=context(id_),
            parent=None if parent is None else context(parent),
            attributes={**attributes, "mlflow.traceRequestId": json.dumps(trace_id)},
            resource=Resource.get_empty(),
            **fields,
        )
    )
