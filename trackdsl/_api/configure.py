"""`configure(...)`: settings for the rest of the program."""

# No `from __future__ import annotations`: `inspect.signature` shows the annotations below, and what they stand for.

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackdsl._config import pyproject
from trackdsl._config import resolve as settings
from trackdsl._config.spec import Delivery, Mode, Ranks
from trackdsl._config.state import state
from trackdsl.errors import SettingsError
from trackdsl.journal import _target

if TYPE_CHECKING:
    from trackdsl._config.model import Settings


def configure(
    chosen: "Settings | None" = None,
    /,
    *,
    tracking_uri: str | None = None,
    experiment_name: str | None = None,
    mode: Mode | None = None,
    spool: str | Path | None = None,
    strict: bool | None = None,
    delivery: Delivery | None = None,
    secret_names: Iterable[str] | None = None,
    public_names: Iterable[str] | None = None,
    system_metrics: bool | float | None = None,
    ranks: Ranks | None = None,
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
        system_metrics: sample CPU, memory, disk, network and GPUs while root runs are open: `True`,
            or the seconds between two samples.
        ranks: what the processes of one launch record (torchrun, SLURM, MPI): `children`: each a child of one shared
            root run; `main`: only the first process records; `separate`: each a root run of its own.
        stages: functions that `trackdsl run` makes stages, without a change of the code: `package.module:function`,
            `package.module:train_*`, `package.module:Class.method`.
        changes: write to each root run what changed since the last one like it. For that, the source of stages and what
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
    arguments = {**locals()}  # First of all, while there are no other variables.
    if chosen is not None and not hasattr(chosen, "given"):
        raise SettingsError(
            f"configure() takes settings by name, or one trackdsl.Settings, not {chosen!r}.", setting="", value=chosen
        )
    pyproject.forget()  # In a long notebook session the file may have been edited.
    given = {} if chosen is None else chosen.given()
    given |= {name: arguments[name] for name in settings.NAMES if arguments.get(name) is not None}
    settings.update(**given, **unknown)
    if "spool" in given:
        _target.start_new_journals()
    state.refresh()
