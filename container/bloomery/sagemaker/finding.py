"""What a look at a model directory, or at a deployment, has found before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "remark"]


@dataclass(frozen=True)
class Finding:
    """One thing. An error keeps the archive or the endpoint from being made, a warning does under ``strict``; a remark
    is what is right and may surprise. ``subject``: a path below the model directory, or the part of the deployment;
    empty for the whole. ``line``, of that file, counts from 1."""

    level: Level
    message: str
    subject: str = ""
    line: int | None = None

    @property
    def where(self) -> str:
        """``subject:line``, as far as there is one."""
        return f"{self.subject}:{self.line}" if self.line is not None else self.subject

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, self.message)))

    @property
    def labelled(self) -> str:
        """As a compiler says it, with the level."""
        return ": ".join(filter(None, (self.where, self.level, self.message)))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"level": self.level, "message": self.message, "path": self.subject, "line": self.line}


def error(subject: str, message: str) -> Finding:
    """Something that cannot be."""
    return Finding("error", message, subject)


def remark(subject: str, message: str) -> Finding:
    """Something to know."""
    return Finding("remark", message, subject)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by file and line; each once."""
    levels = ("error", "warning", "remark")
    return tuple(
        sorted(dict.fromkeys(findings), key=lambda each: (levels.index(each.level), each.subject, each.line or 0))
    )
