"""A row of the OpenAPI document's table."""

from __future__ import annotations

from dataclasses import dataclass, field

JSON = "application/json"


@dataclass(frozen=True)
class Body:
    """A JSON document: the schema's name in SCHEMAS, None for any document; and one that works."""

    schema: str | None
    example: object = None


@dataclass(frozen=True)
class Route:
    """One operation. ``also`` are further media types of its 200; ``errors`` have the schema ``error``."""

    method: str
    path: str
    tag: str
    summary: str
    answer: str | None = None  # the schema of the JSON document that is 200's body
    body: Body | None = None
    query: dict[str, str] = field(default_factory=dict)  # a parameter's name, and what it is for
    also: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    error: str = "Error"
