"""Events → tags of runs, and batches within MLflow's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from trackdsl._core import events
from trackdsl._core.redaction import mask_text
from trackdsl.delivery.batches._model_points import Link
from trackdsl.delivery.store._sink import Batch
from trackdsl.journal._files import read_regular
from trackdsl.journal._origin import Origin
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.call_tag import CALL_TAG, GIT_DIRTY_TAG, MAX_CALL, SPOOL, call_texts, fit_call, lane_text
from trackdsl.store_format.files_tag import FileNote
from trackdsl.store_format.tags import path_of_text

_INT64 = 1 << 63
#: An answer of git with more bytes is not valid.
_MOST_ANSWERED = 1 << 16


class Pending(msgspec.Struct):
    """The content that was read for one run and is not written yet.

    Attributes:
        batch: fields within MLflow's limits.
        texts: whole texts of fields that had to be cut, by their paths in the run.
        links: the models and datasets that points name, by the index of the point in the batch.
        files: how files that were stored are read back, by their paths in the run.
    """

    batch: Batch = msgspec.field(default_factory=Batch)
    texts: dict[str, str] = msgspec.field(default_factory=dict)
    links: dict[int, Link] = msgspec.field(default_factory=dict)
    files: dict[str, FileNote] = msgspec.field(default_factory=dict)

    def add_tags(self, tags: dict[str, str]) -> None:
        """Add tags."""
        if _limits.all_fit(tuple(tags)) and max(map(len, tags.values()), default=0) <= MAX_CALL:
            self.batch.tags.update(tags)
            return
        for key, value in tags.items():
            self.add_tag(key, value)

    def add_params(self, values: dict[str, events.Scalar]) -> None:
        """Add parameters, formatted as MLflow does."""
        texts = fitting_params(values)
        if texts is not None:
            self.batch.params.update(texts)
            return
        for key, value in values.items():
            self.add_param(key, value)

    def add_param(self, key: str, value: events.Scalar) -> None:
        """Add a parameter, formatted as MLflow does."""
        text = str(value)
        name = self._name(key)
        if len(text) > _limits.MAX_PARAM:
            text = self._cut(path_of_text("params", name), text, _limits.MAX_PARAM)
        self.batch.params[name] = text

    def add_tag(self, key: str, value: str) -> None:
        """Add a tag."""
        name = self._name(key)
        limit, fit = (MAX_CALL, fit_call) if key == CALL_TAG else (_limits.MAX_TAG, _limits.fit_value)
        if len(value) > limit:
            value = self._cut(path_of_text("tags", name), value, limit, fit)
        self.batch.tags[name] = value

    def add_metric(self, key: str, value: float, time: int, step: int, link: Link | None = None) -> None:
        """Add a point; `time` in milliseconds since 1970."""
        if link is not None:
            self.links[len(self.batch.metrics)] = link
        self.batch.metrics.append((self._name(key), value, time, min(max(step, -_INT64), _INT64 - 1)))

    def add(self, other: Pending) -> None:
        """Add fields and texts that are prepared already."""
        self.batch.params.update(other.batch.params)
        self.batch.tags.update(other.batch.tags)
        self.texts.update(other.texts)

    def _name(self, key: str) -> str:
        name = _limits.fit_key(key)
        if name != key:
            self.batch.tags[_limits.cut_key(f"trackdsl.renamed.{name}")] = _limits.fit_text(key, _limits.MAX_TAG)
        return name

    def _cut(self, path: str, text: str, limit: int, fit: Callable[[str, int], str] = _limits.fit_value) -> str:
        """The text as far as it fits; the whole text becomes a file at a path of the run."""
        self.texts[path] = text
        self.batch.tags[_limits.fit_key(f"trackdsl.truncated.{path}")] = f"{len(text)} characters, whole in {path}"
        return fit(text, limit)


def fitting_params(values: dict[str, events.Scalar]) -> dict[str, str] | None:
    """Parameters as MLflow formats them; None if some of them do not fit as they are."""
    texts = {key: str(value) for key, value in values.items()}
    fits = _limits.all_fit(tuple(texts)) and max(map(len, texts.values()), default=0) <= _limits.MAX_PARAM
    return texts if fits else None


def split(batch: Batch) -> Iterator[Batch]:
    """The batch in parts that fit into one request; parameters and tags come first."""
    params, tags, metrics = iter(batch.params.items()), iter(batch.tags.items()), iter(batch.metrics)
    while True:
        part = Batch(dict(islice(params, _limits.MAX_PARAMS)), dict(islice(tags, _limits.MAX_TAGS)))
        room = min(_limits.MAX_METRICS, _limits.MAX_ITEMS - len(part.params) - len(part.tags))
        part.metrics = list(islice(metrics, room))
        if not part:
            return
        yield part


def halves(batch: Batch) -> Iterator[Batch]:
    """The batch in smaller parts, to find the item that is refused; nothing if it is one item."""
    params, tags, metrics = list(batch.params.items()), list(batch.tags.items()), batch.metrics
    if bool(params) + bool(tags) + bool(metrics) > 1:
        yield from filter(None, (Batch(params=dict(params)), Batch(tags=dict(tags)), Batch(metrics=metrics)))
    elif (size := len(params) + len(tags) + len(metrics)) > 1:
        for part in (slice(None, size // 2), slice(size // 2, None)):
            yield Batch(dict(params[part]), dict(tags[part]), metrics[part])


def opening_tags(
    origin: Origin, event: events.Open, git: dict[str, str], spool: str, *, of_process: bool = True
) -> dict[str, str]:
    """The tags of a run that begins; those that start with `mlflow.` are MLflow's own.

    Args:
        origin: the program that recorded the run.
        event: the event that opens the run.
        git: the tags from git, see `git_tags`; empty if git has not answered.
        spool: the name of the spool that delivers the run, see `spool_name`.
        of_process: whether the run is that of one process, and not shared by several.
    """
    function, file, digest = event.site or ("", "", "")
    tags = {
        "mlflow.user": origin.user,
        "mlflow.source.name": origin.source,
        "mlflow.source.type": "LOCAL",
        **git,
        **event.tags,
    }
    # The experiment's id is only for delivery: MLflow shows which experiment a run is in.
    tags.pop(events.EXPERIMENT_ID, None)
    dirty = tags.pop(GIT_DIRTY_TAG, None)
    before, after = call_texts(
        (
            ("function", function),
            ("file", file),
            ("source_hash", digest),
            ("index", 0),
            ("decorator", event.decorator),
            ("host", origin.host if of_process else ""),
            ("pid", origin.pid if of_process else None),
            ("version", origin.version),
            (SPOOL, spool),
            ("git_dirty", None if dirty is None else dirty == "true"),
        )
    )
    # Last, so that no tag of the user replaces them: after a crash, a run is found by its id.
    tags["trackdsl.id"] = event.run.hex()
    tags["trackdsl.path"] = event.path
    lane = "" if event.lane is None or not of_process else lane_text(event.lane)
    tags[CALL_TAG] = f"{before}{event.index}{lane}{after}"
    return tags


def rank_tags(rank: events.Rank) -> dict[str, str]:
    """The tags for the run of a rank: its position in the launch."""
    tags = {"trackdsl.rank": str(rank.rank), "trackdsl.node": rank.node}
    if rank.local_rank is not None:
        tags["trackdsl.local_rank"] = str(rank.local_rank)
    return tags | launch_tags(rank)


def launch_tags(rank: events.Rank) -> dict[str, str]:
    """The tags that all ranks of a launch share."""
    tags = {"trackdsl.launch": rank.launch, "trackdsl.world_size": str(rank.size)}
    return tags if rank.attempt == 1 else {**tags, "trackdsl.attempt": str(rank.attempt)}


def failure_tags(failure: events.Failure) -> dict[str, str]:
    """The tags about the exception that ended a run."""
    return {
        "trackdsl.exception.type": failure.type,
        "trackdsl.exception.message": failure.message,
        "trackdsl.exception.traceback": failure.traceback,
    }


def git_tags(directory: Path) -> dict[str, str] | None:
    """The tags from git about the program's source; None if git has not answered."""
    try:
        answer = read_regular(directory / "git", _MOST_ANSWERED)
    except FileNotFoundError:
        return None
    except OSError:  # It is too large, or not a file.
        return {}
    lines = answer.decode("utf-8", "replace").split("\n")
    if len(lines) < 4:
        return {}
    commit, branch, url, state = lines[:4]
    tags = {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        "mlflow.source.git.repoURL": mask_text(url),
        GIT_DIRTY_TAG: "true" if state == "dirty" else "false",
    }
    return {key: value for key, value in tags.items() if value}
