"""`Settings`: all settings as one typed object, checked by pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from trackdsl._config import resolve as settings
from trackdsl._config.spec import SETTINGS, Rows
from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import SettingsError


class CheckedSettings(BaseSettings):
    """Settings that raise a `SettingsError` for an unknown setting or a wrong value. Its message names the fix."""

    model_config = SettingsConfigDict(extra="forbid", validate_default=False, frozen=True)

    _given: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _settings_error(type(self), error) from None
        self._given = frozenset(values)

    def given(self) -> dict[str, Any]:
        """The settings that were given by name. Only these take precedence over `configure` and the environment."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self._given}


class _SettingsInForce(PydanticBaseSettingsSource):
    """The values in force, from `configure`, the environment and the project, in trackdsl's order of precedence."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic passes it
        found = settings.look_up(field_name)
        return (None if found.source == "default" else found.value), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class _Base(CheckedSettings):
    """The methods of `Settings`. Its fields are made from the rows of the settings."""

    @field_validator("tracking_uri", check_fields=False)
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
        """Given values take precedence over the values in force."""
        return init_settings, _SettingsInForce(settings_cls)

    def session(self) -> dict[str, Any]:
        """The settings that `start_logging` uses."""
        return self.given()


_DOC = """All settings as one object. A setting that is not given has the value that is in force.

Attributes:
{attributes}

Raises:
    SettingsError: a setting does not exist, or cannot have this value.

Example:
    >>> Settings(experiment_name="churn", mode="offline").experiment_name
    'churn'
"""

if TYPE_CHECKING:

    class Settings(_Base, Rows):
        """All settings as one object."""

else:
    Settings = create_model(
        "Settings",
        __base__=_Base,
        __module__="trackdsl",
        __doc__=_DOC.format(attributes="\n".join(f"    {row.name}: {row.help}" for row in SETTINGS.values())),
        **{row.name: (row.type, row.default) for row in SETTINGS.values()},
    )


def _settings_error(model: type[BaseSettings], error: ValidationError) -> SettingsError:
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
