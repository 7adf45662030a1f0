"""`Settings`: all settings as one typed object, checked by pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional, Union

from pydantic import PrivateAttr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from trackdsl import settings
from trackdsl._suggest import suggestion_for
from trackdsl.errors import SettingsError


class CheckedSettings(BaseSettings):
    """Settings whose misuse is told as everywhere in trackdsl: by a `SettingsError` that names the fix."""

    model_config = SettingsConfigDict(extra="forbid", validate_default=False, frozen=True)

    _given: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _told(type(self), error) from None
        self._given = frozenset(values)

    def given(self) -> dict[str, Any]:
        """The settings that were given by name. The others may be said elsewhere, by something that counts less."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self._given}


class _InForce(PydanticBaseSettingsSource):
    """What the environment and the project say, by the one order of precedence that trackdsl has."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's
        found = settings.look_up(field_name)
        return (None if found.source == "default" else found.value), field_name, False

    def __call__(self) -> dict[str, Any]:
        told = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in told.items() if value is not None}


class Settings(CheckedSettings):
    """The settings of trackdsl. What is not given is what is in force: `configure`, environment, project, default.

    Attributes:
        tracking_uri: where runs go, as MLflow writes it: `sqlite:////path/mlflow.db`, `http://host:5000`.
        experiment_name: the MLflow experiment of root runs that name none.
        mode: `online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.
        spool: the folder of the journals; None for the one in the user's state folder.
        strict: raise faults in tracking instead of logging them.
        delivery: `process` delivers from a process of its own, `thread` from a thread of this one.
        secret_names: names whose values are masked, beside the well-known ones (`password`, `api_key`, …).
        public_names: names whose values are not masked, whatever they look like.
        system_metrics: sample processor, memory and so on of root runs: `True`, or how often, in seconds.
        ranks: what processes that a launcher starts together record, such as those of torchrun: `children` of one root
            run, `main` the first of them alone, `separate` each for itself.
        show_url: write the address of the program's first root run to its errors, once the run is at MLflow; by default
            where these go to a terminal.

    Raises:
        SettingsError: a setting or value that does not exist.

    Example:
        >>> Settings(experiment_name="churn", mode="offline").experiment_name
        'churn'
    """

    tracking_uri: str = settings.DEFAULT_TRACKING_URI
    experiment_name: str = "Default"
    mode: Literal["online", "offline", "disabled"] = "online"
    spool: Optional[Path] = None  # noqa: UP045 - pydantic reads it at run time
    strict: bool = False
    delivery: Literal["process", "thread"] = "process"
    secret_names: tuple[str, ...] = ()
    public_names: tuple[str, ...] = ()
    system_metrics: Union[bool, float] = False
    ranks: Literal["children", "main", "separate"] = "children"
    show_url: Optional[bool] = None  # noqa: UP045

    @field_validator("tracking_uri")
    @classmethod
    def _check_tracking_uri(cls, value: str) -> str:
        return str(settings.checked("tracking_uri", value, "tracking_uri"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all of them
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given counts before what is in force."""
        return init_settings, _InForce(settings_cls)

    def session(self) -> dict[str, Any]:
        """What `start_logging` is told."""
        return self.given()


def _told(model: type[BaseSettings], error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), SettingsError):
        return cause
    name, value = ".".join(map(str, first["loc"])), first.get("input")
    known = list(model.model_fields)
    if first["type"] == "extra_forbidden":
        hint = suggestion_for(name, known)
        message = f"{model.__name__} has no setting {name!r}{hint.text} Known: {', '.join(known)}."
    else:
        message = f"{name} is {value!r}: {first['msg']}."
    return SettingsError(message, setting=name, value=value)
