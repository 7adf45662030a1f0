"""What changed since the last comparable run, as `trackdsl/changes.json` has it."""

from __future__ import annotations

from collections.abc import Iterator

from trackdsl._core.escaping import markup
from trackdsl._core.readable import difference, moment, number
from trackdsl.store_format.changes.compare import Change, MetricDelta
from trackdsl.store_format.changes.descriptions import FIRST, NOTHING, NOTHING_KNOWN, short_values
from trackdsl.store_format.changes.stored import Stored
from trackdsl.store_format.report.sections import cut, folded, table

#: Rows of a table, and of one that is not folded.
_MOST, _FEW = 60, 12
_LONGEST_DIFF = 20_000
_LONGEST_VALUE = 120
_CHANGED = ("what", "name", "before", "now", "stages")
_COMPARED = ("stage", "metric", "before", "now", "difference")
_KINDS = {"param": "parameter", "python": "Python", "commit": "git commit", "patch": "uncommitted changes"}


def changes_html(stored: Stored | None) -> str:
    """The section; empty if nothing is known."""
    return "" if stored is None else "".join(_parts(stored))


def _parts(stored: Stored) -> Iterator[str]:
    changes = stored.changes
    if stored.previous is not None:
        when = (moment(stored.previous.start) or "")[:16].replace("T", " ")
        since = f"{cut(stored.previous.name, 200)} of {when} UTC, run {stored.previous.run_id}"
        yield f'<p class="quiet">Compared with {markup(cut(since))}</p>'
    if changes.changes:
        yield table(_CHANGED, [_row(one) for one in changes.changes[:_MOST]])
    elif stored.summary == FIRST:
        yield "<p>This is the first run of its kind in this experiment: there is nothing to compare it with.</p>"
    elif stored.summary in (NOTHING, NOTHING_KNOWN):
        yield f"<p>Nothing changed{stored.summary.removeprefix(NOTHING)}.</p>"
    elif stored.summary:
        yield f"<p>{markup(cut(stored.summary))}</p>"
    if (more := len(changes.changes) - _MOST + changes.left_out) > 0:
        yield f'<p class="quiet">and {more:,} more</p>'
    if changes.parts_at:
        by = markup(cut(", ".join(changes.parts_by)))
        yield f"<p>The trees part at <b>{markup(cut(changes.parts_at))}</b>: {by}</p>"
    yield from (_diff(name, text) for name, text in list(stored.diffs.items())[:_MOST])
    if changes.metrics:
        rows = [_metric(one) for one in changes.metrics[:_MOST]]
        yield f"<h3>What came of it</h3>{table(_COMPARED, rows[:_FEW], numbers={2, 3, 4})}"
        if rows[_FEW:]:
            yield folded(
                f"{len(changes.metrics) - _FEW:,} more metrics", table(_COMPARED, rows[_FEW:], numbers={2, 3, 4})
            )
    yield from (f'<p class="quiet">{markup(cut(text))}</p>' for text in stored.not_known[:10])


def _row(change: Change) -> list[str]:
    # Hashes of sources and patches say nothing; the differences follow below.
    hidden = change.kind in ("source", "patch")
    shown = ("", "") if hidden else short_values(change, _LONGEST_VALUE)
    before, after = (
        "" if text is None else short for text, short in zip((change.before, change.after), shown, strict=True)
    )
    named = [path for path in change.stages if path]
    more = f" and {len(named) - 4:,} more" if len(named) > 4 else ""
    stages = cut(", ".join(named[:4]), 160) + more
    return [_KINDS.get(change.kind, cut(change.kind, 40)), cut(change.name, _LONGEST_VALUE), before, after, stages]


def _metric(one: MetricDelta) -> list[str]:
    delta = difference(one.before, one.after)
    values = ("" if value is None else number(value) for value in (one.before, one.after))
    return [
        cut(one.stage, _LONGEST_VALUE),
        cut(one.name, _LONGEST_VALUE),
        *values,
        "" if delta is None else f"{delta:+.3g}",
    ]


def _diff(name: str, text: str) -> str:
    lines = text[:_LONGEST_DIFF].splitlines()
    shown = "\n".join(f"<span{_colour(line)}>{markup(line.expandtabs(4))}</span>" for line in lines)
    return folded(f"difference in <b>{markup(cut(name, _LONGEST_VALUE))}</b>", f"<pre>{shown}</pre>")


def _colour(line: str) -> str:
    return {"+": ' class="added"', "-": ' class="removed"'}.get(line[:1], "")
