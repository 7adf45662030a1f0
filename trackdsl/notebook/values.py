"""Variables and the value of a cell → parameters, metrics and artifacts of its run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._core.suppression import suppression
from trackdsl._decorate.arguments import CallPlan
from trackdsl._decorate.returns import ReturnPlan
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.collector import Collector
from trackdsl._recording.emit import append_tags, guarded, record_metrics
from trackdsl._recording.flatten import Flat
from trackdsl._runs.run import Run
from trackdsl.errors import report
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.names import Names

_AUTO, _NONE = "auto", "none"


def flat_params(arguments: Arguments, values: Mapping[str, Any], names: Names) -> Flat:
    """The parameters that are known when a cell begins: those of its magic, and literals that it assigns.

    Args:
        arguments: of the magic.
        values: the values of the magic's expressions.
        names: the names of the cell.
    """
    flat = Flat()
    for key, value in {**chosen_literals(arguments, names), **values}.items():
        flat.add(key, value)
    return flat


def flat_of(key: str, value: Any) -> dict[str, Any]:
    """The parameters that a value is recorded as."""
    flat = Flat()
    flat.add(key, value)
    return dict(flat.values)


def note_replaced(run: Run, given: Mapping[str, dict[str, Any]], namespace: Mapping[str, Any]) -> None:
    """Note the values of a magic that its cell has replaced, as the parameters are those of the magic.

    Args:
        run: the run of the cell.
        given: the parameters of the magic's values that the cell assigns too, by the name of the variable.
        namespace: the variables.
    """
    for name, before in given.items():
        if name in namespace and flat_of(name, namespace[name]) != before:
            reason = "the cell assigns another value than the magic's, which is the parameter"
            report("params", f"trackdsl: {name!r} of {run.name!r}: {reason}", key=f"{run.name}:replaced:{name}")
            append_tags(run, {f"trackdsl.omitted.{name}": reason})


def chosen_literals(arguments: Arguments, names: Names) -> dict[str, Any]:
    """The literals of a cell that are parameters."""
    if arguments.options.get("params", _AUTO) == _AUTO:
        metrics = arguments.names("metrics")
        return {name: value for name, value in names.literals.items() if name not in metrics}
    wanted = arguments.names("params")
    return {name: names.literals[name] for name in wanted if name in names.literals}


def late_params(arguments: Arguments, names: Names) -> tuple[str, ...]:
    """The variables that `--params` names and that are read when the cell is over."""
    if arguments.options.get("params", _AUTO) in (_AUTO, _NONE):
        return ()
    known = {*names.literals, *arguments.expressions}
    return tuple(name for name in arguments.names("params") if name not in known)


def record_variables(
    run: Run, arguments: Arguments, names: Names, namespace: Mapping[str, Any], steps: Mapping[str, int]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Record the variables that the options of a magic name.

    Args:
        run: the run of the cell.
        arguments: of the magic.
        names: the names of the cell.
        namespace: the variables.
        steps: the last step of metrics that the cell has recorded: the variable's value is the last one.

    Returns:
        those that are metrics, and the names that are not variables.
    """
    late = late_params(arguments, names)
    with guarded("recording parameters", run):
        _artifacts.add_params(run, list(_read(run, "params", late, namespace)))
    metrics = dict(_read(run, "metrics", arguments.names("metrics"), namespace))
    for step in dict.fromkeys(steps.get(name, 0) for name in metrics):
        record_metrics(run, {name: one for name, one in metrics.items() if steps.get(name, 0) == step}, step)
    record_artifacts(run, dict(_read(run, "artifacts", arguments.names("artifacts"), namespace)))
    every = (*late, *arguments.names("metrics"), *arguments.names("artifacts"))
    return metrics, frozenset(name for name in every if name not in namespace)


@contextlib.contextmanager
def untracked() -> Iterator[None]:
    """Record no calls of decorated functions and no blocks in this thread."""
    thread = suppression.begin()
    try:
        yield
    finally:
        suppression.end(thread)


def record_artifacts(run: Run, values: Mapping[str, Any]) -> None:
    """Keep values as files under their names, each in the format of its type."""
    with guarded("recording artifacts", run):
        found = Collector(run, "", 0, dict)
        for name, value in values.items():
            found.keep(None, value, name)


def _read(run: Run, option: str, names: Iterable[str], namespace: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name in names:
        if name in namespace:
            yield name, namespace[name]
            continue
        reason = f"--{option} names it, but the cell leaves no variable of this name"
        report("returns", f"trackdsl recorded nothing for {name!r}: {reason}", key=f"{run.name}:{option}:{name}")
        append_tags(run, {f"trackdsl.omitted.{name}": reason})


def record_value(run: Run, name: str, value: Any, names: tuple[str, ...] = ()) -> None:
    """Record the value of a cell's last expression, as `track_returns` records what a function returns."""
    if value is None or (not names and _is_drawing(value)):
        return
    with guarded("track_returns", run):
        function = _named(name)
        ReturnPlan(function, names).record(run, value, 0, CallPlan(function, False, "track_returns"), (), {})


def _named(name: str) -> Callable[[], None]:
    def cell() -> None: ...

    cell.__name__ = cell.__qualname__ = mask_text(name)
    return cell


def _is_drawing(value: Any) -> bool:
    """Whether a value is what functions of matplotlib return beside the figure: axes, lines, texts, lists of them."""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
        parts = list(value.flat) if hasattr(value, "flat") else list(value)
        return bool(parts) and any(map(_is_drawing, parts[:3]))
    module, name = type(value).__module__, type(value).__name__
    return module.startswith("matplotlib.") and name != "Figure"
