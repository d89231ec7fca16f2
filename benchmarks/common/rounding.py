"""Figures of studies as they are written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["rounded"]


def rounded(value: Any) -> Any:
    """The same JSON value with four digits after the point."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value
