"""What each source of settings says, laid one over another; the stronger word keeps those that it overrode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Found:
    """A setting's text and where it came from, in words a user can follow."""

    text: str
    origin: str
    overrode: tuple[Found, ...] = ()  # what weaker sources said, the strongest first


Layer = dict[str, Found]


def lay(found: Found, key: str, below: Layer) -> None:
    """Put ``found`` under ``key`` on top of what ``below`` has there."""
    weaker = below.get(key)
    below[key] = replace(found, overrode=(*found.overrode, weaker, *weaker.overrode)) if weaker else found


def slip(found: Found, key: str, under: Layer) -> None:
    """Put ``found`` beneath what ``under`` has for ``key``."""
    stronger = under.get(key)
    under[key] = replace(stronger, overrode=(*stronger.overrode, found, *found.overrode)) if stronger else found


def merged(layers: Iterable[Mapping[str, Found]]) -> Layer:
    """One layer of several, the strongest first."""
    out: Layer = {}
    for layer in layers:
        for key, found in layer.items():
            slip(found, key, out)
    return out
