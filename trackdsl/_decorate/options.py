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
from trackdsl.store_format.tags import NOTE_TAG

#: What an option of a type takes, for messages.
_TAKES: dict[type, str] = {
    bool: "a bool, True or False",
    str: "a str",
    Mapping: 'a mapping, such as {"team": "vision"}',
}


@dataclass(frozen=True)
class Options:
    """The options of `experiment` or `stage`, as given.

    Attributes:
        decorator: the name of the decorator.
    """

    decorator: str
    name: str | None = None
    nested: bool = True
    params: bool | Iterable[str] = True
    returns: bool = False
    tags: Mapping[str, Any] | None = None
    description: str | None = None
    run_name: str | None = None
    tracking_uri: str | None = None
    #: The seconds between two samples of the machine; 0 for no samples, None if the setting decides.
    system_metrics: float | None = None
    #: What the ranks of a launch record; None if the setting decides.
    ranks: str | None = None
    #: The run to resume, instead of a new one.
    run_id: str | Run | None = None
    #: Whether the tree of a root run becomes a trace; None if the setting decides.
    traces: bool | None = None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Pickles of earlier versions name the decorator `word`.
        self.__dict__.update({"decorator" if name == "word" else name: value for name, value in state.items()})

    @classmethod
    def checked(cls, decorator: str, name: str | None, given: Mapping[str, Any]) -> Options:
        """The options, once their types and values have been checked.

        Raises:
            OptionError: an option has a wrong type, or cannot have this value.
        """
        for option, kind in (("nested", bool), ("returns", bool), ("tags", Mapping), ("run_name", str),
                             ("description", str), ("tracking_uri", str), ("traces", bool)):  # fmt: skip
            value = given.get(option)
            if value is not None and not isinstance(value, kind):
                raise OptionError(f"{decorator}({option}=...) takes {_TAKES[kind]}, not {value!r}.", option=option)
        given = {option: value for option, value in given.items() if value is not None or option == "params"}
        for option in ("system_metrics", "tracking_uri", "ranks"):
            if given.get(option) not in (None, ""):
                try:
                    given[option] = settings.checked(option, given[option], f"{decorator}({option}=...)")
                except SettingsError as error:
                    raise OptionError(str(error), option=option) from None
        if "run_id" in given:
            if given.get("nested") is False:
                message = (
                    f"{decorator}(nested=False, run_id=...): a section has no run of its own. Remove nested=False."
                )
                raise OptionError(message, option="run_id")
            given["run_id"] = checked_run_id(given["run_id"], f"{decorator}(run_id=...)")
        given["params"] = _checked_params(decorator, given.get("params", True))
        return cls(decorator, name, **given)

    def static_tags(self) -> dict[str, str]:
        """The tags that every run of these options has."""
        tags = clean_tags(self.tags)
        if self.description is not None:
            tags[NOTE_TAG] = mask_text(self.description)
        return tags


def _checked_params(decorator: str, params: Any) -> bool | tuple[Any, ...]:
    """The arguments to record: all (True), none (False), or those that are named.

    Raises:
        OptionError: `params` is none of these.
    """
    if isinstance(params, bool):
        return params
    if isinstance(params, str):
        return (params,)
    if isinstance(params, Mapping):
        shown = ", ".join(f"{name}=..." for name in list(params)[:3])
        block = f' Parameters of a block are keywords: stage("a-name", {shown}).' if decorator == "stage" else ""
        message = f"{decorator}(params=...) takes True, False or the names to record, not a mapping.{block}"
        raise OptionError(message, option="params")
    if not isinstance(params, Iterable):
        raise OptionError(f"{decorator}(params=...) takes True, False or names, not {params!r}.", option="params")
    return tuple(params)  # A generator would be empty the second time.
