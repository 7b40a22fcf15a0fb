"""What ``bloomery explain`` tells of a setting."""

from __future__ import annotations

from dataclasses import dataclass

from bloomery.settings.layers import Found
from bloomery.settings.secret import guard


@dataclass(frozen=True)
class Overridden:
    """What a weaker source said."""

    value: str
    origin: str


@dataclass(frozen=True)
class Explained:
    """One setting: its effective value and its source. ``overrode`` has the weaker sources that said something else,
    the strongest first."""

    scope: str  # "server", or the model's name
    key: str
    value: str
    origin: str
    overrode: tuple[Overridden, ...] = ()


def shown(value: object) -> str:
    """A value as one would write it into a file; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ",".join(f"{name}={text}" for name, text in value.items())
    return str(value)


def overridden(key: str, found: Found | None) -> tuple[Overridden, ...]:
    """The weaker words of ``found`` that differ from its own; secrets as ***."""
    if found is None:
        return ()
    return tuple(
        Overridden(str(guard(key, each.text)), each.origin) for each in found.overrode if each.text != found.text
    )
