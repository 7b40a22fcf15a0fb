"""Lengths of time and moments, as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bloomery.cli.times import duration, moment
from bloomery.errors import ConfigurationError

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(("text", "seconds"), [("4h", 14400), ("90m", 5400), ("1d12h", 129600), ("1.5h", 5400)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text, "--ttl").total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "4", "h", "tomorrow", "-1h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--ttl is .*write it like 4h"):
        duration(text, "--ttl")


@pytest.mark.parametrize("text", ["0h", "0d0s", "99999999999999d", "9" * 400 + "d"])
def test_what_would_never_end_or_never_begin(text: str) -> None:
    """An expiry after no time would be no expiry at all."""
    with pytest.raises(ConfigurationError, match=r"--ttl is .*more than nothing, and 100 years at most"):
        duration(text, "--ttl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", datetime(2026, 11, 24, 11, 58, 30, tzinfo=UTC)),
        ("1h30m", datetime(2026, 11, 24, 10, 30, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 23, 12, tzinfo=UTC)),
        ("0s", NOON),
        ("2026-11-24T10:00:00Z", datetime(2026, 11, 24, 10, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert moment(text, "--since", NOON) == expected


def test_longer_ago_than_the_calendar_goes_is_long_ago() -> None:
    assert moment("99999999999999d", "--since", NOON).year < 1970
