"""The licence that a model card (README.md) gives in its YAML front matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from bloomery.checkpoints.source import Connection, Entry
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.errors import CheckpointError

NAME = "README.md"
_LIMIT = 64 << 10  # bytes: evaluation results make some front matters long


def licence_of(connect: Callable[[], Connection], entries: Callable[[], Sequence[Entry]]) -> str | None:
    """The licence in the model card among a source's ``entries``; None when there is none that can be read."""
    try:
        card = next((entry for entry in entries() if entry.name == NAME), None)
        if card is None:
            return None
        with closing(connect()) as connection:
            return licence(read_bytes(connection, card, 0, _LIMIT).decode(errors="replace"))
    except CheckpointError:
        return None


def licence(text: str) -> str | None:
    """What ``license`` says, with ``license_name`` instead of "other", "non-commercial" where the card says so in
    a field of its own (OPT's ``commercial: false``), and ``license_link`` behind it."""
    import yaml  # type: ignore[import-untyped,unused-ignore]

    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return None
    end = text.find("\n---", 3)
    try:
        fields = yaml.safe_load(text[4 : end + 1]) if end > 0 else None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date of 30 February is a ValueError
        return None
    return from_fields(fields) if isinstance(fields, dict) else None


def from_fields(fields: dict[str, Any]) -> str | None:
    """As ``licence``, from the fields of the front matter."""
    given = fields.get("license")
    names = [str(name) for name in (given if isinstance(given, list) else [given]) if name]
    if fields.get("license_name"):
        names = [*(name for name in names if name != "other"), str(fields["license_name"])]
    if not names:
        return None
    if fields.get("commercial") is False:
        names.append("non-commercial")
    link = fields.get("license_link")
    return " ".join(", ".join(names).split()) + (f" ({link})" if link and "://" in str(link) else "")
