"""What is lost, for the warnings of `flush` and of the end of a program; each loss is reported once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trackdsl._core import runtime
from trackdsl._core.ids import prefix
from trackdsl._core.runtime import Phase
from trackdsl.journal._store_target import Target
from trackdsl.journal._target import known_targets
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.losses import Losses
from trackdsl.store_format.progress import read_progress

#: The losses of each journal at the last report, by the names of journals.
_last_report: dict[str, Losses] = {}


def new_losses(spools: Iterable[Path], *, unrecorded: bool = True) -> str:
    """A text about the events that this process and its children have lost since the last report.

    Args:
        spools: the spools that these processes record to.
        unrecorded: whether to count events for which no journal could be made.

    Returns:
        a text for people; empty if no loss is known.
    """
    descriptions: list[str] = []
    for losses in [*_of_journals(spools), *(_of_targets() if unrecorded else ())]:
        description = losses.since(_last_report.get(losses.journal)).description()
        if description:
            descriptions.append(description)
        _last_report[losses.journal] = losses
    return "; ".join(descriptions)


def _of_journals(spools: Iterable[Path]) -> Iterator[Losses]:
    mine = prefix().hex()
    losses_of = {
        name: losses for spool in spools for name, losses in _losses.read(spool).items() if mine in losses.prefixes
    }
    for target in known_targets():
        writer = target.writer
        if writer is None:
            continue
        name = writer.directory.name
        progress = read_progress(writer.directory)
        if progress is None:
            losses_of[name] = Losses(name, "", unrecorded=writer.lost)
        else:
            known = (tuple(progress.missing), progress.damaged, progress.unknown, progress.refused)
            losses_of[name] = Losses(name, "", *known, unrecorded=writer.lost)
    yield from losses_of.values()


def _of_targets() -> Iterator[Losses]:
    for target in known_targets():
        yield Losses(f"target {id(target)}", "", unrecorded=target.unrecorded, missing=_deleted(target))


def _deleted(target: Target) -> tuple[str, ...]:
    return tuple(
        f"what was not delivered of the journal {journal.name}, which was deleted," for journal in target.deleted
    )


runtime.register("losses that were reported", Phase.MEMORY, after_fork=_last_report.clear, reset=_last_report.clear)
