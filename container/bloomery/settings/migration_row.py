"""One row of the table that tells what becomes of another system's setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["same", "different", "refused"]


@dataclass(frozen=True)
class Row:
    """``values`` is a regular expression, in any case, that a value matches as a whole; "" is any. Of several rows
    for one key the first that matches counts."""

    key: str
    verdict: Verdict
    how: str
    values: str = ""
    shown: str = ""  # the values in words, where the expression is none

    def matches(self, value: str) -> bool:
        """Whether the row is about ``value``."""
        return not self.values or re.fullmatch(self.values, value.strip(), re.IGNORECASE) is not None


def same(key: str, how: str, values: str = "", shown: str = "") -> Row:
    """It means here what it means there."""
    return Row(key, "same", how, values, shown)


def differs(key: str, how: str, values: str = "", shown: str = "") -> Row:
    """It is accepted, and ``how`` says what is so instead."""
    return Row(key, "different", how, values, shown)


def refused(key: str, how: str, values: str = "", shown: str = "") -> Row:
    """It has to be changed; ``how`` says into what."""
    return Row(key, "refused", how, values, shown)
