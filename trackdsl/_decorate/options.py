"""The options of `experiment` and `stage`, checked once, at decoration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._core.redaction import mask_text
from trackdsl._recording.emit import clean_tags
from trackdsl._runs.run import Run, checked_run_id
from trackdsl.errors import OptionError, SettingsError

#: What options of a type are to be given, with an example.
_TAKES: dict[type, str] = {
    bool: "a bool, True or False",
    str: "a str",
    Mapping: 'a mapping, such as {"team": "vision"}',
}


@dataclass(frozen=True)
class Options:
    """The options of `experiment` or `stage`, as given."""

    word: str
    name: str | None = None
    nested: bool = True
    params: bool | Iterable[str] = True
    returns: bool = False
    tags: Mapping[str, Any] | None = None
    description: str | None = None
    run_name: str | None = None
    tracking_uri: str | None = None
    #: How often they are sampled, in seconds; 0 for never, None where the settings say it.
    system_metrics: float | None = None
    #: What the ranks of a launch record; None where the settings say it.
    ranks: str | None = None
    #: The run that is to go on, in place of a new one.
    run_id: str | Run | None = None

    @classmethod
    def checked(cls, word: str, name: str | None, given: Mapping[str, Any]) -> Options:
        """Options of the right types.

        Raises:
            OptionError: one is of the wrong type, or has a value that it cannot have.
        """
        for option, kind in (("nested", bool), ("returns", bool), ("tags", Mapping), ("run_name", str),
                             ("description", str), ("tracking_uri", str)):  # fmt: skip
            value = given.get(option)
            if value is not None and not isinstance(value, kind):
                raise OptionError(f"{word}({option}=...) takes {_TAKES[kind]}, not {value!r}.", option=option)
        given = {option: value for option, value in given.items() if value is not None or option == "params"}
        for option in ("system_metrics", "tracking_uri", "ranks"):
            if given.get(option) not in (None, ""):
                try:
                    given[option] = settings.checked(option, given[option], f"{word}({option}=...)")
                except SettingsError as error:
                    raise OptionError(str(error), option=option) from None
        if "run_id" in given:
            if given.get("nested") is False:
                message = f"{word}(nested=False, run_id=...): a section has no run of its own. Leave nested=False out."
                raise OptionError(message, option="run_id")
            given["run_id"] = checked_run_id(given["run_id"], f"{word}(run_id=...)")
        given["params"] = _checked_params(word, given.get("params", True))
        return cls(word, name, **given)

    def static_tags(self) -> dict[str, str]:
        """The tags that every run of these options has."""
        tags = clean_tags(self.tags)
        if self.description is not None:
            tags["mlflow.note.content"] = mask_text(self.description)
        return tags


def _checked_params(word: str, params: Any) -> bool | tuple[Any, ...]:
    """Which arguments are to be recorded: all, none, or those named.

    Raises:
        OptionError: it says neither.
    """
    if isinstance(params, bool):
        return params
    if isinstance(params, str):
        return (params,)
    if isinstance(params, Mapping):
        shown = ", ".join(f"{name}=..." for name in list(params)[:3])
        block = f' Parameters of a block are keywords: stage("a-name", {shown}).' if word == "stage" else ""
        message = f"{word}(params=...) takes True, False or the names to record, not a mapping.{block}"
        raise OptionError(message, option="params")
    if not isinstance(params, Iterable):
        raise OptionError(f"{word}(params=...) takes True, False or names, not {params!r}.", option="params")
    return tuple(params)  # Once and for all: a generator would be empty the second time.
