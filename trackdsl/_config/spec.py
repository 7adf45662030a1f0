"""Every setting in one place: its name, type, default, variables and help.

The model `Settings`, the checks, `trackdsl doctor`, and the settings that a context takes to other processes are made
from these rows. The signature and help of `configure` and the table in the guide are written by hand, and a test
compares them with the rows.
"""

# No `from __future__ import annotations`: this module evaluates the annotations below when it is imported.

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from trackdsl._config.patterns import FORMS, is_pattern
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.uris import describe_mistake, without_credentials
from trackdsl.errors import SettingsError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
#: The default and the shortest interval between samples of the machine, in seconds. MLflow has the same default.
_INTERVAL, _SHORTEST_INTERVAL = 10.0, 0.1

#: The values of settings that are a choice, also for the signatures of `configure` and of decorators.
Mode = Literal["online", "offline", "disabled"]
Delivery = Literal["process", "thread"]
Ranks = Literal["children", "main", "separate"]
#: Converts a value to the setting's type. The first argument names the setting in error messages.
Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Row:
    """The description of a setting, in its annotation below.

    Attributes:
        default: the value if nothing sets another.
        help: one sentence for `configure` and `Settings`.
        default_help: the default as the guide's table shows it; its value if empty.
        also: environment variables that are read after `TRACKDSL_<NAME>`, in this order.
        check: converts values; the check of the setting's type if None.
        travels: whether the value that `configure` set is sent to other processes with a context.
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
        raise SettingsError(f"{setting} takes a string, not {value!r}.", setting=setting, value=value)
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
    """Names, from a collection or from a string with commas."""
    if isinstance(value, str):
        names: tuple[Any, ...] = tuple(name.strip() for name in value.split(",") if name.strip())
    else:
        names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting} takes names, not {value!r}.", setting=setting, value=value)
    return names


def _patterns(setting: str, value: Any) -> tuple[str, ...]:
    patterns = _names(setting, value)
    for one in patterns:
        if not is_pattern(one):
            message = f"{setting} has {one!r}, which names no functions. It takes {FORMS}."
            raise SettingsError(message, setting=setting, value=one)
    return patterns


def _interval(setting: str, value: Any) -> float:
    """Seconds, from a bool or a number, or from a string with one of these."""
    text = str(value).strip().lower()
    if text in (*_TRUE, *_FALSE):
        return _default_interval() if text in _TRUE else 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{setting} is {value!r}: it takes true, false, or a number of seconds."
        raise SettingsError(message, setting=setting, value=value)
    return max(seconds, _SHORTEST_INTERVAL)


def _default_interval() -> float:
    """The interval from MLflow's own variable, or ours."""
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
            "the store that runs go to, as MLflow writes it: `sqlite:////path/mlflow.db`, `http://host:5000`.",
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
            default_help="`Default`; `MLFLOW_EXPERIMENT_ID` works as in MLflow",
            # MLflow's id of an experiment is valid for one store only, see `resolve.experiment_id`.
            also=("TRACELET_MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"),
        ),
    ]
    mode: Annotated[
        Mode,
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
            "the folder of runs that are not delivered yet; None for a folder in the user's state folder.",
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
        Delivery,
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
            "names of arguments, fields, tags and keys whose values are masked, besides the well-known ones "
            "(`password`, `token`, `api_key`, …); `*` matches anything, and case does not matter.",
            default_help="none; several are separated by commas",
            travels=True,
        ),
    ]
    public_names: Annotated[
        tuple[str, ...],
        Row(
            (),
            "names whose values are never masked, even if they look like secrets: `token_*`.",
            default_help="none; several are separated by commas",
            travels=True,
        ),
    ]
    system_metrics: Annotated[
        bool | float,
        Row(
            0.0,
            "sample CPU, memory, disk, network and GPUs while root runs are open: `True`, or the "
            "seconds between two samples.",
            default_help="off; `true`, or the seconds between two samples of root runs",
            also=("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",),
            check=_interval,
        ),
    ]
    ranks: Annotated[
        Ranks,
        Row(
            "children",
            "what the processes of one launch record (torchrun, SLURM, MPI): `children`: each a child of one shared "
            "root run; `main`: only the first process records; `separate`: each a root run of its own.",
            default_help="`children`",
        ),
    ]
    stages: Annotated[
        tuple[str, ...],
        Row(
            (),
            "functions that `trackdsl run` makes stages, without a change of the code: `package.module:function`, "
            "`package.module:train_*`, `package.module:Class.method`.",
            default_help="none; several are separated by commas",
            check=_patterns,
        ),
    ]
    changes: Annotated[
        bool,
        Row(
            True,
            "write to each root run what changed since the last one like it. For that, the source of stages and what "
            "they use of the project, the list of packages and uncommitted changes are kept at MLflow.",
            default_help="on; `0` writes no changes, and keeps no source",
        ),
    ]
    reports: Annotated[
        bool,
        Row(
            True,
            "make a page about each root run with at least two children, after it has ended, as its artifact "
            "`trackdsl/report.html`.",
            default_help="on; `0` makes no pages about root runs",
        ),
    ]
    traces: Annotated[
        bool,
        Row(
            False,
            "make the tree of each root run a trace too, with a span for each stage, for the time line in MLflow's "
            "Traces tab.",
            default_help="off; `1` makes the trees of root runs traces",
        ),
    ]
    show_url: Annotated[
        bool | None,
        Row(
            None,
            "print the address of the program's first root run to stderr, once the run exists in MLflow; by default "
            "only if stderr is a terminal.",
            default_help="the address of a program's first root run is printed at a terminal; `0` turns this off",
        ),
    ]
    cards: Annotated[
        bool,
        Row(
            True,
            "show a card of its run below each notebook cell with `%%stage` or `%%experiment`.",
            default_help="on; `0` shows no cards of runs below notebook cells",
        ),
    ]


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: its name in `configure`.
        type: the type of its value.
        default: its value if nothing sets another.
        variables: its environment variables; the first that is set counts.
        check: converts a value to its type.
        help: one sentence.
        default_help: the default in words, for the guide's table.
        travels: whether the value that `configure` set is sent to other processes with a context.
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
    """The function that checks the values of settings of a type."""
    if get_origin(kind) is Literal:
        known = get_args(kind)
        return lambda setting, value: _one_of(setting, value, known)
    if get_origin(kind) is tuple:
        return _names
    return _is_true if bool in (kind, *get_args(kind)) else _text


SETTINGS = {name: _setting(name, annotation) for name, annotation in Rows.__annotations__.items()}
