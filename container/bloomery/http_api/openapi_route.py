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
    headers: dict[str, str] = field(default_factory=dict)  # the same
    reply_headers: dict[str, str] = field(default_factory=dict)  # of its 200 and 202
    accepted: str | None = None  # what 202 means; its body has the form of 200's unless ``polled``
    polled: bool = False
    also: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()  # statuses with a document of 200's form, as health checks have
    errors: tuple[int, ...] = ()
    error: str = "Error"
