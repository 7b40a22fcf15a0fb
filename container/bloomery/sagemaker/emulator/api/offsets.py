"""Pages of a list that does not change: the token is where the next page begins."""

from __future__ import annotations

from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError


def page(items: list[Any], size: int, token: str | None) -> tuple[list[Any], dict[str, str]]:
    """The items to show, and ``{"NextToken": …}`` if there are more. AwsError for a token that is not ours."""
    if token is not None and not token.isdecimal():
        raise AwsError(words.BAD_TOKEN.format(), "InvalidNextTokenException")
    start = int(token or 0)
    end = start + size
    return items[start:end], {"NextToken": str(end)} if end < len(items) else {}
