"""`configure(...)`: settings for the rest of the program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trackdsl._config import pyproject
from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl.errors import SettingsError
from trackdsl.journal import _target

if TYPE_CHECKING:
    from trackdsl._config.model import Settings


def configure(
    chosen: Settings | None = None,
    /,
    *,
    tracking_uri: str | None = None,
    experiment_name: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    spool: str | Path | None = None,
    strict: bool | None = None,
    delivery: Literal["process", "thread"] | None = None,
    secret_names: Iterable[str] | None = None,
    public_names: Iterable[str] | None = None,
    system_metrics: bool | float | None = None,
    ranks: Literal["children", "main", "separate"] | None = None,
    stages: Iterable[str] | None = None,
    changes: bool | None = None,
    reports: bool | None = None,
    traces: bool | None = None,
    show_url: bool | None = None,
    cards: bool | None = None,
    **unknown: Any,
) -> None:
    """Choose settings for the rest of the program. Settings that are not given keep their values.

    Open runs stay in the store in which they were opened.

    Args:
        chosen: a `trackdsl.Settings`, whose given values are set. Settings that are given by name take precedence.
        tracking_uri: the store that runs go to, as MLflow writes it: `sqlite:////path/mlflow.db`, `http://host:5000`.
        experiment_name: the MLflow experiment of root runs that name none.
        mode: `online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.
        spool: the folder of runs that are not delivered yet; None for a folder in the user's state folder.
        strict: raise errors in tracking instead of logging them.
        delivery: `process` delivers from a process of its own, `thread` from a thread of this one.
        secret_names: names of arguments, fields, tags and keys whose values are masked, besides the well-known ones
            (`password`, `token`, `api_key`, …); `*` matches anything, and case does not matter.
        public_names: names whose values are never masked, even if they look like secrets: `token_*`.
        system_metrics: sample processor, memory, disk, network and graphics cards while root runs are open: `True`,
            or the seconds between two samples.
        ranks: what the processes of one launch record (torchrun, SLURM, MPI): `children`: each a child of one shared
            root run; `main`: only the first process records; `separate`: each a root run of its own.
        stages: functions that `trackdsl run` makes stages, without a change of the code: `package.module:function`,
            `package.module:train_*`, `package.module:Class.method`.
        changes: note on each root run what changed since the last one like it. For that, the source of stages and what
            they use of the project, the list of packages and uncommitted changes are kept at MLflow.
        reports: make a page about each root run with at least two children, after it has ended, as its artifact
            `trackdsl/report.html`.
        traces: make the tree of each root run a trace too, with a span for each stage, for the time line in MLflow's
            Traces tab.
        show_url: print the address of the program's first root run to stderr, once the run exists in MLflow; by default
            only if stderr is a terminal.
        cards: show a card of its run below each notebook cell with `%%stage` or `%%experiment`.
        **unknown: a setting that does not exist; it raises a `SettingsError` with a suggestion.

    Raises:
        SettingsError: a setting does not exist, or cannot have this value.

    Example:
        >>> configure(experiment_name="churn")
    """
    named = {
        "tracking_uri": tracking_uri,
        "experiment_name": experiment_name,
        "mode": mode,
        "spool": spool,
        "strict": strict,
        "delivery": delivery,
        "secret_names": secret_names,
        "public_names": public_names,
        "system_metrics": system_metrics,
        "ranks": ranks,
        "stages": stages,
        "changes": changes,
        "reports": reports,
        "traces": traces,
        "show_url": show_url,
        "cards": cards,
    }
    if chosen is not None and not hasattr(chosen, "given"):
        raise SettingsError(
            f"configure() takes settings by name, or one trackdsl.Settings, not {chosen!r}.", setting="", value=chosen
        )
    pyproject.forget()  # In a long notebook session the file may have been edited.
    given = {} if chosen is None else chosen.given()
    given |= {name: value for name, value in named.items() if value is not None}
    settings.update(**given, **unknown)
    if "spool" in given:
        _target.start_anew()
    state.refresh()
