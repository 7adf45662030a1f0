"""The arguments of `start_logging`, checked and combined: the name of a session, and the store it goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trackdsl._config import resolve as settings
from trackdsl._core.suggest import suggestion_for
from trackdsl._runs.run import Run, checked_run_id
from trackdsl.errors import OptionError, SettingsError

#: The keys that `config` may have.
KEYS = ("tracking_uri", "experiment_name", "run_name", "tags", "run_id")


class SessionSettings(Protocol):
    """What `start_logging(settings=...)` takes: a `trackdsl.Settings`, or a `TraceletSettings`."""

    def session(self) -> Mapping[str, Any]:
        """Any of `project`, `backend`, `tracking_uri`, `experiment_name`, and settings for the whole program."""


@dataclass
class Choice:
    """The name and the destination of a session, from all arguments together.

    Attributes:
        run_name: the name of its run.
        experiment: the MLflow experiment; None if no argument names one.
        tracking_uri: the store; None if no argument names one.
        tags: the tags of the run.
        run_id: the run to resume, instead of a new one.
        renames: whether `config` has a `run_name`.
    """

    run_name: str
    experiment: str | None
    tracking_uri: str | None
    tags: dict[str, Any] = field(default_factory=dict)
    run_id: str | Run | None = None
    renames: bool = False


def choose(
    exp_name: str,
    project: str | None,
    backend: str | Iterable[str],
    config: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Choice:
    """Combine the arguments of `start_logging`: `config` takes precedence, then `settings`, then `project`."""
    _check_backend(given.get("backend") or backend if backend == "mlflow" else backend)
    project = project or given.get("project")
    for option, value in (("exp_name", exp_name), ("project", project)):
        if value is not None and not isinstance(value, str):
            raise OptionError(f"start_logging({option}=...) takes a string, not {value!r}.", option=option)
    named = config.get("experiment_name") or given.get("experiment_name")
    uri = config.get("tracking_uri") or given.get("tracking_uri")
    if uri is not None:
        uri = _checked_uri(uri, "config['tracking_uri']" if config.get("tracking_uri") else "settings.tracking_uri")
    tags = dict(config.get("tags") or {})
    if project is not None:
        tags.setdefault("project", project)
    return Choice(
        run_name=config.get("run_name") or exp_name or "session",
        experiment=named or (project if _no_experiment_is_set() else None),
        tracking_uri=uri,
        tags=tags,
        run_id=None if config.get("run_id") is None else checked_run_id(config["run_id"], "config['run_id']"),
        renames=bool(config.get("run_name")),
    )


def given_by(chosen: SessionSettings | None) -> Mapping[str, Any]:
    """The settings that `start_logging(settings=...)` gives by name."""
    if chosen is None:
        return {}
    session: Callable[[], Mapping[str, Any]] | None = getattr(chosen, "session", None)
    if session is None:
        raise OptionError(
            f"start_logging(settings=...) takes a trackdsl.Settings or a TraceletSettings, not {chosen!r}; pass a dict "
            "as config=...",
            option="settings",
        )
    return session()


def checked(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Check the keys and types of `config`, and return it; an empty mapping for None."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise OptionError(f"start_logging(config=...) takes a dict, not {config!r}.", option="config")
    for key, value in config.items():
        if key not in KEYS:
            hint = suggestion_for(str(key), KEYS)
            raise OptionError(
                f"start_logging(config=...) has no key {key!r}{hint.text} Known: {', '.join(KEYS)}.",
                option=str(key),
                suggestion=hint.name,
            )
        if key == "run_id":
            continue
        kind = Mapping if key == "tags" else str
        if value is not None and not isinstance(value, kind):
            raise OptionError(f"config[{key!r}] must be a {kind.__name__.lower()}, not {value!r}.", option=key)
    return config


def _checked_uri(uri: str, called: str) -> str:
    try:
        return str(settings.checked("tracking_uri", uri, called))
    except SettingsError as error:
        raise OptionError(str(error), option="tracking_uri") from None


def _check_backend(backend: str | Iterable[str]) -> None:
    named = [backend] if isinstance(backend, str) or not isinstance(backend, Iterable) else list(backend)
    for name in named:
        if name != "mlflow":
            raise OptionError(
                f"start_logging(backend={name!r}): trackdsl records to MLflow only. Write backend='mlflow', or leave "
                "it out.",
                option="backend",
            )


def _no_experiment_is_set() -> bool:
    return settings.look_up("experiment_name").source == "default" and settings.experiment_id() is None
