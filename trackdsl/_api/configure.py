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
    show_url: bool | None = None,
    **unknown: Any,
) -> None:
    """Choose settings for the rest of the program. What is not given stays as it is.

    Runs that are open keep the store they were opened in.

    Args:
        chosen: a `trackdsl.Settings`: what it was given holds; what is given here by name counts before it.
        tracking_uri: where runs go, as MLflow writes it: `sqlite:////path/mlflow.db`, `http://host:5000`.
        experiment_name: the MLflow experiment of root runs that name none.
        mode: `online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.
        spool: the folder of what is not delivered yet; None for the one in the user's state folder.
        strict: raise errors in tracking instead of logging them.
        delivery: `process` delivers from a process of its own, `thread` from a thread of this one.
        secret_names: names of arguments, fields, tags and keys whose values are masked, beside the well-known ones
            (`password`, `token`, `api_key`, …); `*` stands for anything, and case does not matter.
        public_names: the same for names that are no secrets, whatever they look like: `token_*`.
        system_metrics: sample processor, memory, disk, network and graphics cards while root runs are open: `True`,
            or how often, in seconds.
        ranks: what processes that a launcher starts together record, such as those of torchrun, SLURM or MPI:
            `children` of one root run, `main` the first of them alone, `separate` each for itself.
        show_url: write the address of the program's first root run to its errors, once the run is at MLflow; by
            default where these go to a terminal.
        **unknown: refused, with a suggestion.

    Raises:
        SettingsError: a setting or value that does not exist.

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
        "show_url": show_url,
    }
    if chosen is not None and not hasattr(chosen, "given"):
        raise SettingsError(
            f"configure() takes settings by name, or a trackdsl.Settings, not {chosen!r}.", setting="", value=chosen
        )
    pyproject.forget()  # It may have been edited, in a notebook's life.
    told = {} if chosen is None else chosen.given()
    told |= {name: value for name, value in named.items() if value is not None}
    settings.update(**told, **unknown)
    if "spool" in told:
        _target.start_anew()
    state.refresh()
