"""Every setting in one place: its name, type, default, variables and help.

The `Settings` model, the checks, `trackdsl doctor`, the guide's table and the settings that a context carries to other
processes are all made from these rows.
"""

# No `from __future__ import annotations`: the annotations below are read when this module is imported.

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from trackdsl._core.suggest import suggestion_for
from trackdsl._core.uris import describe_mistake, without_credentials
from trackdsl.errors import SettingsError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
#: The default and the shortest interval between samples of the machine, in seconds. MLflow has the same default.
_INTERVAL, _SHORTEST_INTERVAL = 10.0, 0.1

#: Turns a given value into one of the setting's type. The first argument is the setting's name for an error message.
Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Row:
    """What an annotation below says of its setting.

    Attributes:
        default: the value where nothing sets one.
        help: one sentence for `configure` and `Settings`.
        default_help: the default as the guide's table shows it; by default, its value.
        also: environment variables that count after `TRACKDSL_<NAME>`, in this order.
        check: by default, the one of the setting's type.
        travels: whether a context carries what `configure` set to other processes.
    """

    default: Any
    help: str
    default_help: str = ""
    also: tuple[str, ...] = ()
    check: Check | None = None
    travels: bool = False


def _is_true(setting: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return _one_of(setting, str(value), (*_TRUE, *_FALSE)) in _TRUE


def _text(setting: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{setting} takes text, not {value!r}.", setting=setting, value=value)
    return value


def _path(setting: str, value: Any) -> Any:
    return value if isinstance(value, Path) else _text(setting, value)


def _uri(setting: str, value: Any) -> str:
    uri = _text(setting, value)
    wrong = describe_mistake(uri)
    if wrong is not None:
        raise SettingsError(
            f"{setting} is {without_credentials(uri)!r}: {wrong}", setting=setting, value=without_credentials(uri)
        )
    return uri


def _names(setting: str, value: Any) -> tuple[str, ...]:
    """Names, from several or from a text with commas."""
    if isinstance(value, str):
        names: tuple[Any, ...] = tuple(name.strip() for name in value.split(",") if name.strip())
    else:
        names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting} takes names, not {value!r}.", setting=setting, value=value)
    return names


def _interval(setting: str, value: Any) -> float:
    """Seconds, from a truth value or a number, or the text of either."""
    text = str(value).strip().lower()
    if text in (*_TRUE, *_FALSE):
        return _default_interval() if text in _TRUE else 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{setting} is {value!r}: it takes true, false, or how often, in seconds."
        raise SettingsError(message, setting=setting, value=value)
    return max(seconds, _SHORTEST_INTERVAL)


def _default_interval() -> float:
    """The interval of MLflow's own variable, where that is set."""
    try:
        return max(float(os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"]), _SHORTEST_INTERVAL)
    except (KeyError, ValueError):
        return _INTERVAL


def _one_of(setting: str, value: Any, known: tuple[str, ...]) -> str:
    plain = value.strip().lower() if isinstance(value, str) else value
    if plain in known:
        return str(plain)
    hint = suggestion_for(str(plain), known)
    raise SettingsError(
        f"{setting} is {value!r}{hint.text} It must be one of: {', '.join(k for k in known if k)}.",
        setting=setting,
        value=value,
    )


class Rows:
    """The settings, one annotation each, in the order in which they are shown."""

    tracking_uri: Annotated[
        str,
        Row(
            DEFAULT_TRACKING_URI,
            "where runs go, as MLflow writes it: `sqlite:////path/mlflow.db`, `http://host:5000`.",
            default_help="`sqlite:///mlflow.db` in the working directory, as MLflow",
            also=("TRACELET_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
            check=_uri,
        ),
    ]
    experiment_name: Annotated[
        str,
        Row(
            "Default",
            "the MLflow experiment of root runs that name none.",
            default_help="`Default`; `MLFLOW_EXPERIMENT_ID` counts as in MLflow",
            # MLflow's id of an experiment holds at one store alone, see `settings.experiment_id`.
            also=("TRACELET_MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"),
        ),
    ]
    mode: Annotated[
        Literal["online", "offline", "disabled"],
        Row(
            "online",
            "`online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.",
            default_help="`online`; `offline` keeps everything for `trackdsl sync`; `disabled` does nothing, "
            "in 0.3 µs a call",
            travels=True,
        ),
    ]
    spool: Annotated[
        Path | None,
        Row(
            None,
            "the folder of what is not delivered yet; None for the one in the user's state folder.",
            default_help="the user's state folder; in an existing folder that is used for something else or that "
            "others may read, such as `/tmp`, a private folder `trackdsl-spool-<uid>` is made",
            check=_path,
        ),
    ]
    strict: Annotated[
        bool,
        Row(
            False,
            "raise errors in tracking instead of logging them.",
            default_help="off; `1` raises errors in tracking instead of logging them on logger `trackdsl`",
            travels=True,
        ),
    ]
    delivery: Annotated[
        Literal["process", "thread"],
        Row(
            "process",
            "`process` delivers from a process of its own, `thread` from a thread of this one.",
            default_help="`process`; `thread` where no process can be started",
            travels=True,
        ),
    ]
    secret_names: Annotated[
        tuple[str, ...],
        Row(
            (),
            "names of arguments, fields, tags and keys whose values are masked, beside the well-known ones "
            "(`password`, `token`, `api_key`, …); `*` stands for anything, and case does not matter.",
            default_help="none; several are separated by commas",
            travels=True,
        ),
    ]
    public_names: Annotated[
        tuple[str, ...],
        Row(
            (),
            "the same for names that are no secrets, whatever they look like: `token_*`.",
            default_help="none; several are separated by commas",
            travels=True,
        ),
    ]
    system_metrics: Annotated[
        bool | float,
        Row(
            0.0,
            "sample processor, memory, disk, network and graphics cards while root runs are open: `True`, or how "
            "often, in seconds.",
            default_help="off; `true`, or how often to sample root runs, in seconds",
            also=("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",),
            check=_interval,
        ),
    ]
    ranks: Annotated[
        Literal["children", "main", "separate"],
        Row(
            "children",
            "what processes that a launcher starts together record, such as those of torchrun, SLURM or MPI: "
            "`children` of one root run, `main` the first of them alone, `separate` each for itself.",
            default_help="`children`",
        ),
    ]
    show_url: Annotated[
        bool | None,
        Row(
            None,
            "write the address of the program's first root run to its errors, once the run is at MLflow; by default "
            "where these go to a terminal.",
            default_help="the address of a program's first root run is printed at a terminal; `0` turns that off",
        ),
    ]


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: as `configure` takes it.
        type: its annotation.
        default: its value where nothing sets one.
        variables: its environment variables, the one that counts first in front.
        check: turns a given value into one of its type.
        help: one sentence.
        default_help: the default in words, for the guide's table.
        travels: whether a context carries what `configure` set to other processes.
    """

    name: str
    type: Any
    default: Any
    variables: tuple[str, ...]
    check: Check
    help: str
    default_help: str
    travels: bool


def _setting(name: str, annotation: Any) -> Setting:
    kind, row = get_args(annotation)
    return Setting(
        name=name,
        type=kind,
        default=row.default,
        variables=(f"TRACKDSL_{name.upper()}", *row.also),
        check=row.check or _check_of(kind),
        help=row.help,
        default_help=row.default_help or f"`{row.default}`",
        travels=row.travels,
    )


def _check_of(kind: Any) -> Check:
    """The check of a type."""
    if get_origin(kind) is Literal:
        known = get_args(kind)
        return lambda setting, value: _one_of(setting, value, known)
    if get_origin(kind) is tuple:
        return _names
    return _is_true if bool in (kind, *get_args(kind)) else _text


SETTINGS = {name: _setting(name, annotation) for name, annotation in Rows.__annotations__.items()}
