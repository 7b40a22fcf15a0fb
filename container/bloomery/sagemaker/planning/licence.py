"""What a model card's licence allows, as far as its name says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORBIDS = re.compile(r"(^|[^a-z])(nc|non-?commercial|research)([^a-z]|$)", re.IGNORECASE)
_ALLOWS = re.compile(
    r"(apache-2\.0|mit|bsd(-[a-z0-9-]+)?|cc0-1\.0|cc-by-4\.0|cc-by-sa-4\.0|unlicense|isc)", re.IGNORECASE
)
_RESTRICTS = re.compile(r"(^|[^a-z])(open)?rail", re.IGNORECASE)


@dataclass(frozen=True)
class Licence:
    """``name`` None: the card names none. ``commercial`` None: its name does not say. ``remark``: a sentence."""

    name: str | None
    commercial: bool | None
    remark: str


def judged(name: str | None) -> Licence:
    """By the name alone: nobody has read the text for you."""
    if name is None:
        return Licence(None, None, "the model card names no licence: ask who published the model")
    if _FORBIDS.search(name):
        return Licence(name, False, "not for commercial use")
    if _ALLOWS.fullmatch(name):
        return Licence(name, True, "commercial use is allowed")
    if _RESTRICTS.search(name):
        return Licence(name, True, "commercial use is allowed, with restrictions on what the model is used for")
    return Licence(name, None, "read it: its name does not say whether commercial use is allowed")
