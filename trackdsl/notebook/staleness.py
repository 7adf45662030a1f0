"""Whether the inputs of an execution are stale: what has happened since to the executions that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trackdsl.notebook.executions import Execution, Executions
from trackdsl.notebook.page import Page

INPUTS = "trackdsl.inputs"
STALE = "trackdsl.stale_inputs"
OUT_OF_ORDER = "trackdsl.out_of_order"


def input_tags(execution: Execution, executions: Executions, page: Page) -> dict[str, str]:
    """The tags about the inputs of an execution that begins. Warnings for people are added to the execution."""
    tags = {}
    runs = dict.fromkeys(one.run.id for each in execution.inputs.values() for one in each)
    if runs:
        tags[INPUTS] = ",".join(runs)
    stale = dict(_stale(execution.inputs, executions, page))
    if stale:
        tags[STALE] = ",".join(stale)
        execution.warnings.append("stale: " + ", ".join(f"{name} ({why})" for name, why in stale.items()))
    below = [name for name, found in execution.inputs.items() if any(page.is_below(one, execution) for one in found)]
    for name, sources in execution.plain_inputs.items():
        if name not in below and any(page.has_below(one, execution) for one in sources):
            below.append(name)
    if below:
        tags[OUT_OF_ORDER] = ",".join(below)
        execution.warnings.append(f"out of order: {', '.join(below)} of a cell further down the page")
    return tags


def _stale(
    inputs: Mapping[str, tuple[Execution, ...]], executions: Executions, page: Page
) -> Iterator[tuple[str, str]]:
    for name, found in inputs.items():
        for one in found:
            if (why := why_stale(one, executions, page)) is not None:
                yield name, why
                break


def why_stale(execution: Execution, executions: Executions, page: Page) -> str | None:
    """Why what an execution has written is stale; None if it is not."""
    seen: set[Execution] = set()
    waiting = [execution]
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.add(one)
        through = "" if one is execution else f"through {execution.name}: "
        if not executions.counts(one):
            return (
                f"{through}{one.name} was executed again" if not one.undone else f"{through}{one.name} was taken back"
            )
        if (why := page.why_stale(one)) is not None:
            return f"{through}the cell of {one.name} {why}"
        waiting += [each for found in one.inputs.values() for each in found]
    return None
