"""What all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["NONE", "Positive", "Rate", "Settings", "Share", "as_toml"]

NONE = "none"
"""How TOML, which has no null, says that a number is not given where the default gives one."""

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Base of all sections: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: None if one == NONE and _says_none(cls, key) else one for key, one in values.items()}


def as_toml(section: Settings) -> dict[str, Any]:
    """A section and those below it as TOML values; None is left out where it is the default, else said in words."""
    result: dict[str, Any] = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Settings):
            result[name] = as_toml(value)
        elif value is None and field.default is not None and _says_none(type(section), name):
            result[name] = NONE
    return result


def _says_none(section: type[Settings], name: str) -> bool:
    """Whether a field may be None, and is no word or path, where the word for it would mean itself."""
    kinds = get_args(section.model_fields[name].annotation) if name in section.model_fields else ()
    return NoneType in kinds and not {str, Path}.intersection(kinds)
