"""Lengths of time and moments, as people write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from bloomery.errors import ConfigurationError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_LONGEST = timedelta(days=36500)  # so that adding it to now, or taking it away, stays within the calendar


def duration(text: str, option: str) -> timedelta:
    """``4h``, ``90m``, ``1d12h``. Raises ConfigurationError about ``option``."""
    found = _duration(text)
    if found is None:
        raise ConfigurationError(f"{option} is {text!r}; write it like 4h, 90m or 1d12h")
    if not timedelta() < found <= _LONGEST:
        raise ConfigurationError(f"{option} is {text!r}; it must be more than nothing, and 100 years at most")
    return found


def moment(text: str, option: str, now: datetime) -> datetime:
    """So long ago, or when ISO 8601 says; without a zone by this machine's clock. Raises ConfigurationError."""
    ago = _duration(text)
    if ago is not None:
        return now - min(ago, _LONGEST)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r} is no time: write 90s, 10m, 1h30m or 1d, or a moment such as 2026-11-24T15:00"
        ) from None
    return found if found.tzinfo else found.astimezone()


def _duration(text: str) -> timedelta | None:
    text = text.strip().lower()
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(each[:-1]) * _UNITS[each[-1]] for each in re.findall(r"[\d.]+[dhms]", text))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        return timedelta.max
