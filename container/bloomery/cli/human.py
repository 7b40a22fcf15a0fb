"""Values for people's eyes, and the same for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any

UNKNOWN = "?"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout, with colour and rules on a terminal."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*headers, box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            drawn.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
        Console().print(drawn)
        return
    widths = [max(len(each) for each in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


_COLOURS = {"InService": "green", "Failed": "red", "Creating": "yellow", "Updating": "yellow", "Deleting": "yellow"}


def as_json(value: Any) -> str:
    """Dataclasses become objects, moments ISO texts, durations seconds."""
    return json.dumps(value, default=_plain, indent=2)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def count(number: int, what: str) -> str:
    """``what`` in the singular."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def money(amount: float | None) -> str:
    """In USD: cents, tenths of a cent where there are any, two digits of what is less than a cent."""
    if amount is None:
        return UNKNOWN
    return f"${amount:,.3f}".removesuffix("0") if amount >= 0.01 or amount == 0 else f"${amount:.2g}"


def span(time: timedelta) -> str:
    """The two largest units: 2d 3h, 5m 10s."""
    seconds = int(abs(time.total_seconds()))
    for (large, long), (small, short) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("m", 60)),
        (("m", 60), ("s", 1)),
    ):
        if seconds >= long:
            return f"{seconds // long}{large} {seconds % long // short}{small}"
    return f"{seconds}s"


def latency(seconds: float | None) -> str:
    """Milliseconds below ten seconds."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
