"""List operations: filters, order, pages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Record

_PAGE = 10  # entries, unless MaxResults says otherwise
# By what, and of which type that is.
_ORDERS: dict[str, tuple[Callable[[Record], Any], type]] = {
    "Name": (lambda record: record.name.lower(), str),
    "CreationTime": (lambda record: record.created, float),
    "Status": (lambda record: record.status, str),
}


def page(records: list[Record], parameters: Mapping[str, Any]) -> tuple[list[Record], dict[str, str]]:
    """The records to show, and ``{"NextToken": …}`` if there are more.

    The token holds the last record's place in the order, so that what is created or deleted meanwhile moves nothing.
    """
    order, kind = _ORDERS[parameters.get("SortBy", "CreationTime")]

    def place(record: Record) -> list[Any]:
        return [order(record), record.name.lower()]

    falling = parameters.get("SortOrder", "Descending") == "Descending"
    chosen = sorted((record for record in records if _wanted(record, parameters)), key=place, reverse=falling)
    if "NextToken" in parameters:
        last = _last_place(parameters["NextToken"], kind)
        chosen = [record for record in chosen if (place(record) < last if falling else place(record) > last)]
    size = parameters.get("MaxResults", _PAGE)
    shown = chosen[:size]
    return shown, {"NextToken": _token(place(shown[-1]))} if len(chosen) > size else {}


def _wanted(record: Record, parameters: Mapping[str, Any]) -> bool:
    return (
        str(parameters.get("NameContains", "")).lower() in record.name.lower()
        and parameters.get("StatusEquals", record.status) == record.status
        and record.created < parameters.get("CreationTimeBefore", float("inf"))
        and record.created >= parameters.get("CreationTimeAfter", 0)
        and record.modified < parameters.get("LastModifiedTimeBefore", float("inf"))
        and record.modified >= parameters.get("LastModifiedTimeAfter", 0)
    )


def _token(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _last_place(token: str, kind: type) -> list[Any]:
    """What ``_token`` was made of; AwsError for another's token, or one of another order."""
    try:
        place = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError):
        place = None
    if not isinstance(place, list) or [type(item) for item in place] != [kind, str]:
        raise AwsError(words.BAD_TOKEN.format())
    return place
