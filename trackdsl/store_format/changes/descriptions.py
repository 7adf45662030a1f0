"""Describe what changed: in one line, and as Markdown for the description of a run.

Names and values are hostile: what they contain must do nothing in a terminal, and must not be markup in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trackdsl._core.escaping import printable
from trackdsl._core.readable import difference, duration, moment, number
from trackdsl.store_format.changes.compare import Change, Changes, MetricDelta
from trackdsl.store_format.changes.recorded import Recorded, Stage
from trackdsl.store_format.limits import MAX_TAG

#: In characters.
_LONGEST_LINE, _LONGEST_VALUE, _LONGEST_NAME = 250, 40, 80


@dataclass(frozen=True)
class _Most:
    """Limits for the length of a description.

    Attributes:
        changes, metrics, children: how many.
        name: the characters of a name; values have half as many.
    """

    changes: int
    metrics: int
    children: int
    name: int


#: From much to little. The first that fits into a tag counts; the last one always does.
_MOST = (_Most(15, 12, 20, _LONGEST_NAME), _Most(10, 8, 12, 40), _Most(5, 5, 5, 24), _Most(2, 2, 2, 12))
NOTHING, NOTHING_KNOWN = "nothing", "nothing, as far as is known"
FIRST = "first run"
#: What Markdown may take for markup. A backslash takes the meaning from these in every dialect.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~])")
#: What HTML may take for markup, and what turns a text into a link.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "://": "&#58;//", "@": "&#64;", "www.": "www&#46;"}
_ENTITY = re.compile("|".join(map(re.escape, _ENTITIES)), re.IGNORECASE)


def one_line(changes: Changes | None, unknown: Sequence[str] = ()) -> str:
    """A summary of the changes in one line, for a tag.

    Args:
        changes: what changed; None if there is nothing to compare with.
        unknown: sentences about what is not known.

    >>> one_line(Changes((Change("param", "lr", "0.1", "0.05"), Change("package", "numpy", "1.26", "2.0"))))
    'lr 0.1 → 0.05; numpy 1.26 → 2.0'
    """
    if changes is None:
        return FIRST
    parts = list(_parts(changes))
    if not parts:
        return NOTHING_KNOWN if unknown else NOTHING
    line = parts[0][:_LONGEST_LINE]
    for count, part in enumerate(parts[1:], 1):
        rest = f"; and {len(parts) - count + changes.left_out} more"
        if len(line) + len(part) + len(rest) > _LONGEST_LINE:
            return line + rest
        line = f"{line}; {part}"
    return line


def _parts(changes: Changes) -> Iterator[str]:
    for kind in ("param", "dataset"):
        yield from (valued(change) for change in changes.of_kind(kind))
    if sources := [_cut(change.name, _LONGEST_NAME) for change in changes.of_kind("source")]:
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        yield f"source of {', '.join(sources[:3])}{more}"
    for kind in ("stage", "package", "python", "commit", "patch"):
        yield from (valued(change) for change in changes.of_kind(kind))


def valued(change: Change) -> str:
    """A change with its values, as plain text in one line.

    >>> valued(Change("param", "lr", "0.1", None)), valued(Change("patch", "", "a", None))
    ('lr 0.1 → none', 'no uncommitted changes any more')
    """
    if change.kind == "patch":
        if change.after is None:
            return "no uncommitted changes any more"
        return "uncommitted changes" if change.before is None else "other uncommitted changes"
    if change.kind == "source":
        how = " is new" if change.before is None else " is gone" if change.after is None else ""
        return f"source of {_cut(change.name, _LONGEST_NAME)}{how}"
    if change.kind == "stage":
        return f"stage {_cut(change.name, _LONGEST_NAME)} {_presence(change)}"
    name = {"python": "Python", "commit": "commit"}.get(change.kind) or _cut(change.name, _LONGEST_NAME)
    name = f"dataset {name}" if change.kind == "dataset" else name
    before, after = short_values(change)
    return f"{name} {before} → {after}"


def _presence(change: Change) -> str:
    """Whether a stage is new or gone, or how many runs of it there are."""
    if change.before is not None and change.after is not None:
        return " → ".join(short_values(change))
    times = f", {change.runs} runs" if change.runs > 1 else ""
    return f"is {'new' if change.before is None else 'gone'}{times}"


def short_values(change: Change, longest: int = _LONGEST_VALUE) -> tuple[str, str]:
    """Both values, short; of long ones that begin alike, the part where they differ.

    >>> short_values(Change("param", "path", "x" * 50 + "1", None))
    ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…', 'none')
    >>> short_values(Change("param", "n", "x" * 50 + "1", "x" * 50))
    ('…xxxxxxxxxx1', '…xxxxxxxxxx')
    """
    texts = ["none" if text is None else printable(text) for text in (change.before, change.after)]
    if change.kind == "commit":
        return texts[0][:7], texts[1][:7]
    short = [_cut(text, longest) for text in texts]
    if short[0] == short[1]:
        alike = next(
            (at for at, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts))
        )
        begin = max(0, alike - 10)
        short = [_cut(f"…{text[begin:]}", longest) for text in texts]
    return short[0], short[1]


def _cut(text: str, longest: int) -> str:
    short = printable(text)
    return short if len(short) <= longest else f"{short[: longest - 1]}…"


def inert(text: str, longest: int = _LONGEST_NAME) -> str:
    r"""Text for Markdown that is not markup there: no link, no HTML, no emphasis.

    >>> inert("[a](javascript:alert(1)) <b>"), inert("learning_rate"), inert("http://x")
    ('\\[a\\]\\(javascript:alert\\(1\\)\\) &lt;b&gt;', 'learning\\_rate', 'http&#58;//x')
    """
    escaped = _MARKUP.sub(r"\\\1", _cut(text, longest))
    return _ENTITY.sub(lambda match: _ENTITIES[match[0].lower()], escaped)


def description(
    changes: Changes | None, after: Recorded, before: Recorded | None, experiment_id: str, unknown: Sequence[str] = ()
) -> str:
    """What changed and what came of it, as Markdown for MLflow's page of the run, which fits into a tag.

    Args:
        changes: what changed; None if there is nothing to compare with.
        after: the run.
        before: the run that it is compared with.
        experiment_id: MLflow's id of their experiment.
        unknown: sentences about what is not known.
    """
    text = ""
    for most in _MOST:
        writer = _Markdown(experiment_id, most)
        text = "\n\n".join(writer.blocks(changes, after, before, unknown)) + "\n"
        if len(text) <= MAX_TAG:
            break
    return text


@dataclass(frozen=True)
class _Markdown:
    """Writes a description.

    Attributes:
        experiment_id: MLflow's id of the experiment of the runs.
        most: how much is shown.
    """

    experiment_id: str
    most: _Most

    def blocks(
        self, changes: Changes | None, after: Recorded, before: Recorded | None, unknown: Sequence[str]
    ) -> Iterator[str]:
        """The blocks, between which there are empty lines; see `description`."""
        if changes is None or before is None:
            name = inert(after.name, self.most.name)
            yield f"**First run** of {name} in this experiment: there is nothing to compare it with."
            yield from self._first_results(after.stages[0])
        else:
            yield "\n".join(self._heading_and_list(changes, before, known=not unknown))
            yield self._results(changes)
        yield from self._children(after.stages)
        yield from (f"*{inert(sentence, 15 * self.most.name // 4)}*" for sentence in unknown[:3])

    def _heading_and_list(self, changes: Changes, before: Recorded, *, known: bool) -> Iterator[str]:
        when = (moment(before.start) or "")[:16].replace("T", " ")
        since = f"since {self._link(before.name, before.run_id)} of {when} UTC"
        if not changes.changes:
            yield f"**Nothing changed** {since}{'' if known else ', as far as is known'}."
            return
        yield f"**What changed** {since}\n"
        for change in changes.changes[: self.most.changes]:
            yield f"- {self._item(change)}"
        if (rest := len(changes.changes) - self.most.changes + changes.left_out) > 0:
            yield f"- and {rest} more in `trackdsl/changes.json`"
        if changes.parts_at:
            by = inert(", ".join(changes.parts_by), 5 * self.most.name // 2)
            yield f"\nThe runs part at **{self._inert(changes.parts_at)}**: {by}."

    def _item(self, change: Change) -> str:
        where = [self._inert(path) for path in change.stages if path]
        inside = f" ({', '.join(where[:3])}{' …' if len(where) > 3 else ''})" if where else ""
        if change.kind == "source":
            how = "new" if change.before is None else "gone" if change.after is None else "source"
            return f"{how}{' of' if how == 'source' else ''} **{self._inert(change.name)}**{inside}"
        if change.kind == "stage":
            return f"stage **{self._inert(change.name)}** {self._inert(_presence(change))}"
        if change.kind == "patch":
            return valued(change)
        name = {"python": "Python", "commit": "commit"}.get(change.kind) or self._inert(change.name)
        before, after = map(self._inert, short_values(change, max(16, self.most.name // 2)))
        kind = "dataset " if change.kind == "dataset" else ""
        return f"{kind}**{name}** {before} → {after}{inside if change.kind in ('param', 'dataset') else ''}"

    def _first_results(self, root: Stage) -> Iterator[str]:
        metrics = sorted(root.metrics.items())
        if metrics:
            rows = [f"| {self._inert(name)} | {number(value)} |" for name, value in metrics[: self.most.metrics]]
            yield "\n".join(["| metric | value |", "|---|---|", *rows, *self._more(len(metrics), 2)])

    def _results(self, changes: Changes) -> str:
        rows = []
        if changes.status[0] != changes.status[1]:
            rows.append(f"| status | {changes.status[0]} | {changes.status[1]} | |")
        rows.append(f"| time | {duration(changes.seconds[0])} | {duration(changes.seconds[1])} | |")
        for one in changes.metrics[: self.most.metrics]:
            name = self._inert(f"{one.stage}: {one.name}" if one.stage else one.name)
            rows.append(f"| {name} | {_number(one.before)} | {_number(one.after)} | {_delta(one)} |")
        head = ["**What came of it**", "", "| | before | now | |", "|---|---|---|---|"]
        return "\n".join([*head, *rows, *self._more(len(changes.metrics), 4)])

    def _more(self, count: int, columns: int) -> list[str]:
        """A row about metrics that are not shown."""
        return [f"| and {count - self.most.metrics} more |{' |' * (columns - 1)}"] if count > self.most.metrics else []

    def _children(self, stages: Sequence[Stage]) -> Iterator[str]:
        children = [stage for stage in stages[1:] if stage.path == stage.name]
        if not children:
            return
        links = [self._child(stage) for stage in children[: self.most.children]]
        more = f" and {len(children) - self.most.children} more" if len(children) > self.most.children else ""
        yield f"**Stages:** {' · '.join(links)}{more}"

    def _child(self, stage: Stage) -> str:
        status = "" if stage.status == "FINISHED" else f" {stage.status}"
        return f"{self._link(stage.name, stage.run_id)}{status} {duration(stage.seconds)}"

    def _link(self, name: str, run_id: str) -> str:
        """A link to MLflow's page of a run. Ids of other forms than MLflow's own are not links."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id) or not re.fullmatch(r"[0-9]{1,20}", self.experiment_id):
            return self._inert(name)
        return f"[{self._inert(name) or 'unnamed'}](#/experiments/{self.experiment_id}/runs/{run_id})"

    def _inert(self, text: str) -> str:
        return inert(text, self.most.name)


def _number(value: float | None) -> str:
    return "-" if value is None else number(value)


def _delta(one: MetricDelta) -> str:
    grown = difference(one.before, one.after)
    return "" if grown is None else f"{grown:+.3g}"
