"""The body that every task takes: ``{"inputs": ..., "parameters": {...}, "stream": ...}`` plain text, or CSV.

A wrong value is a BadRequestError that names the field, shows the value and gives a valid example.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from bloomery.errors import BadRequestError
from bloomery.tasks.fields import boolean, parse_json, show, utf8
from djl_python import Input


@dataclass(frozen=True)
class Body:
    """What arrived: ``text`` of a text/plain body, else the fields of the JSON object."""

    text: str | None = None
    inputs: Any = None
    parameters: dict[str, object] = field(default_factory=dict)
    stream: bool | None = None


def read_body(inputs: Input, example: str) -> Body:
    """The body of ``inputs``; ``example`` is a valid one for this task."""
    data = bytes(inputs.get_as_bytes() or b"")
    media_type = (inputs.get_property("content-type") or "").partition(";")[0].strip().lower()
    if media_type == "text/csv" and (rows := _rows(utf8(data))):
        return Body(inputs=rows)
    if media_type.startswith("text/"):
        return Body(text=utf8(data))
    # curl without -H says application/x-www-form-urlencoded; what begins like an object is meant as JSON.
    if media_type in ("", "application/json", "application/jsonlines") or data.lstrip()[:1] == b"{":
        return _fields(parse_json(data, example), example)
    raise BadRequestError(
        f"Content-Type {media_type!r} is not served here: send application/json, for example {example}, or text/plain."
    )


def _rows(text: str) -> list[object]:
    """What DJLServing makes of CSV whose first line names ``inputs``, or ``question`` and ``context``.

    Other CSV is text, as a batch transform sends it line by line: no rows.
    """
    columns = {name.strip(' "\r') for name in text.partition("\n")[0].split(",")}
    if "inputs" not in columns and not {"question", "context"} <= columns:
        return []
    try:
        rows = [dict(row) for row in csv.DictReader(io.StringIO(text), skipinitialspace=True)]
    except csv.Error as error:
        raise BadRequestError(f"The body is not CSV: {error}.") from error
    return [row.get("inputs", row) for row in rows]


def _fields(body: object, example: str) -> Body:
    if not isinstance(body, dict):
        raise BadRequestError(f"The body is {show(body)}: it must be a JSON object, for example {example}.")
    for name in body:
        if name not in ("inputs", "parameters", "stream"):
            raise BadRequestError(
                f"Unknown field {name!r}: the body's fields are inputs, parameters and stream; "
                f"generation settings belong into parameters, for example {example}."
            )
    if "inputs" not in body:
        raise BadRequestError(f"The body has no field 'inputs', for example {example}.")
    stream = body.get("stream")
    settings = body.get("parameters")
    if settings is not None and not isinstance(settings, dict):
        raise BadRequestError(f'parameters is {show(settings)}: it must be an object, such as {{"do_sample": true}}.')
    return Body(
        inputs=body["inputs"],
        parameters=settings or {},
        stream=None if stream is None else boolean("stream", stream),
    )
